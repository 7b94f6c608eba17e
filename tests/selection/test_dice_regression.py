"""The Dice of a mask without a reference, by a line or a ridge regression through held-out cases."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from autoseg.inference.organ_statistics import OrganStatistics
from autoseg.runtime.serialization import from_jsonable, to_jsonable
from autoseg.schema import DiceRegression
from autoseg.selection.dice_regression import QualityEstimate, estimated_dice, fit_dice_regression, left_out_estimates

EXPECTED = np.array([0.7, 0.8, 0.9, 0.95, 0.99])
NAN = math.nan


def estimates(expected: np.ndarray, true: np.ndarray) -> list[QualityEstimate]:
    """As version 0.1.0 stored them: nothing but two numbers a case."""
    return [QualityEstimate(f"c{place}", *pair) for place, pair in enumerate(zip(expected.tolist(), true.tolist(), strict=True))]


def estimate(regression: DiceRegression | None, expected: float) -> float:
    return estimated_dice(regression, OrganStatistics(expected, NAN))


def held_out(count: int = 60, *, seed: int = 0) -> list[QualityEstimate]:
    """Cases whose expected Dice says nothing, and whose low probability says all; two of each patient."""
    rng, found = np.random.default_rng(seed), []
    for place in range(count):
        low = rng.uniform(0.4, 0.9)
        mask = OrganStatistics(rng.uniform(0.85, 0.95), rng.uniform(90, 110), 0.5 + low / 2, low, rng.uniform(0.2, 0.3), 0.8)
        found.append(QualityEstimate(f"c{place}", mask.expected_dice, min(1.0, low + 0.05), mask, rng.uniform(90, 110), f"p{place // 2}"))
    return found


@pytest.mark.parametrize(
    ("expected", "true", "line", "error", "correlation"),
    [
        (EXPECTED, 2 * EXPECTED - 1, (2, -1), 0, 1),
        # The mean of three times 0.5 misses the fourth, 0.9, by 0.4; with it in the mean the others are missed by 0.4 / 3.
        (np.full(4, 0.8), np.array([0.5, 0.5, 0.5, 0.9]), (0, 0.6), (0.4 + 3 * 0.4 / 3) / 4, None),
        # A falling line is not believed.
        (EXPECTED, 1 - EXPECTED, (0, 1 - EXPECTED.mean()), None, None),
        # Cases without the organ do not count.
        (np.append(EXPECTED, [NAN, 0.3]), np.append(2 * EXPECTED - 1, [0.5, NAN]), (2, -1), 0, 1),
    ],
)
def test_the_line_and_its_error(expected, true, line, error, correlation) -> None:
    found = fit_dice_regression(estimates(expected, true))
    assert (found.slope, found.intercept) == pytest.approx(line)
    assert error is None or found.error == pytest.approx(error, abs=1e-9)
    assert correlation is None or found.correlation == pytest.approx(correlation)
    assert found.cases == np.count_nonzero(~np.isnan(expected + true))


def test_an_estimate_lies_between_0_and_1_and_is_the_expected_dice_without_a_regression() -> None:
    line = replace(fit_dice_regression(estimates(EXPECTED, 2 * EXPECTED - 1)), features={})
    assert [estimate(line, dice) for dice in (0.85, 0.4, 1.2)] == pytest.approx([0.7, 0, 1])
    assert math.isnan(estimate(line, NAN))
    assert estimate(None, 0.8) == 0.8
    assert fit_dice_regression(estimates(EXPECTED[:3], EXPECTED[:3])) is None


def test_an_empty_mask_has_a_dice_of_0() -> None:
    """The line that falls became the mean, 0.9: no Dice of an empty mask."""
    flat = replace(fit_dice_regression(estimates(EXPECTED, 1.8 - EXPECTED)), features={})
    assert estimate(flat, 0.3) == pytest.approx(1.8 - float(EXPECTED.mean()))
    assert estimate(flat, 0.0) == 0


def test_a_case_is_estimated_by_the_others_where_these_are_enough() -> None:
    true = 2 * EXPECTED - 1
    true[0] = 0.9
    some = estimates(EXPECTED, true)
    regression = fit_dice_regression(some)
    left_out = left_out_estimates(some, regression)
    assert regression.error == pytest.approx(np.abs(left_out - true).mean())
    assert left_out_estimates(some, replace(regression, features={}))[0] == pytest.approx(0.4)
    assert left_out_estimates(some[:3], None).tolist() == EXPECTED[:3].tolist()


def test_features_say_what_the_expected_dice_does_not() -> None:
    cases, others = held_out(), held_out(seed=1)
    regression = fit_dice_regression(cases)
    assert regression.features and regression.correlation > 0.95 and regression.error < 0.06
    true = [one.true_dice for one in others]
    assert spearmanr([estimated_dice(regression, one.mask) for one in others], true).statistic > 0.95
    line = replace(regression, features={})
    assert np.ptp([estimated_dice(line, one.mask) for one in others]) < 0.2, "hardly better than the mean"
    assert from_jsonable(to_jsonable(regression), DiceRegression) == regression


def test_cases_of_one_patient_do_not_estimate_each_other() -> None:
    """Both cases of the first patient are equally far off: one would foretell the other."""
    cases = [replace(one, true_dice=0.1) if one.patient == "p0" else one for one in held_out()]
    regression = fit_dice_regression(cases)
    apart = left_out_estimates([replace(one, patient="") for one in cases], regression)
    together = left_out_estimates(cases, regression)
    assert together[0] > apart[0]


@pytest.mark.parametrize(("present", "found"), [(60, 0.0), (10, NAN)])
def test_an_organ_that_nearly_all_cases_have_was_missed_where_nothing_is_found(present: int, found: float) -> None:
    """Of an organ that is often absent, nothing found is no fault: it has no Dice."""
    cases = [one if place < present else replace(one, reference_ml=0.0, true_dice=NAN) for place, one in enumerate(held_out())]
    regression = fit_dice_regression(cases)
    assert regression.missed == pytest.approx(present / 60)
    assert estimated_dice(regression, OrganStatistics(NAN)) == pytest.approx(found, nan_ok=True)
    assert estimated_dice(regression, OrganStatistics(0.0)) == 0


def test_a_mask_that_is_far_too_small_or_too_large_cannot_be_right() -> None:
    cases = held_out()
    regression, mask = fit_dice_regression(cases), max(cases, key=lambda one: one.true_dice).mask
    usual = estimated_dice(regression, mask)
    assert usual > 0.85
    assert estimated_dice(regression, replace(mask, volume_ml=1.0)) == pytest.approx(2 * 1 / (1 + regression.smallest_ml))
    assert estimated_dice(regression, replace(mask, volume_ml=900.0)) < 2 * 111 / (900 + 111)
    assert (
        min(left_out_estimates([*cases, replace(cases[0], case="x", patient="x", statistics=replace(mask, volume_ml=1.0))], regression))
        < 0.03
    )


def test_a_feature_beyond_all_held_out_cases_counts_as_the_last_of_them() -> None:
    regression = fit_dice_regression(held_out())
    lowest = min(one.mask.low_probability for one in held_out())
    masks = [replace(held_out()[0].mask, low_probability=value) for value in (lowest, lowest / 5)]
    assert estimated_dice(regression, masks[0]) == pytest.approx(estimated_dice(regression, masks[1]))
