"""The line from expected to true Dice."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autoseg.selection.quality_estimation import estimated_dice, fit_dice_regression, leave_one_out_estimates

EXPECTED = np.array([0.7, 0.8, 0.9, 0.95, 0.99])
NAN = math.nan


@pytest.mark.parametrize(
    ("expected", "true", "line", "error", "correlation"),
    [
        (EXPECTED, 2 * EXPECTED - 1, (2, -1), 0, 1),
        # The mean of three times 0.5 misses the fourth, 0.9, by 0.4; with it in the mean the others are missed by 0.4 / 3.
        (np.full(4, 0.8), np.array([0.5, 0.5, 0.5, 0.9]), (0, 0.6), (0.4 + 3 * 0.4 / 3) / 4, NAN),
        # A falling line is not believed.
        (EXPECTED, 1 - EXPECTED, (0, 1 - EXPECTED.mean()), None, -1),
        # Cases without the organ do not count.
        (np.append(EXPECTED, [NAN, 0.3]), np.append(2 * EXPECTED - 1, [0.5, NAN]), (2, -1), 0, 1),
    ],
)
def test_the_line_and_its_error(expected, true, line, error, correlation) -> None:
    found = fit_dice_regression(expected, true)
    assert (found.slope, found.intercept) == pytest.approx(line)
    assert error is None or found.error == pytest.approx(error, abs=1e-9)
    assert found.correlation == pytest.approx(correlation, nan_ok=True)
    assert found.cases == np.count_nonzero(~np.isnan(expected + true))


def test_an_estimate_lies_between_0_and_1_and_is_the_expected_dice_without_a_line() -> None:
    line = fit_dice_regression(EXPECTED, 2 * EXPECTED - 1)
    assert [estimated_dice(line, dice) for dice in (0.85, 0.4, 1.2)] == pytest.approx([0.7, 0, 1])
    assert math.isnan(estimated_dice(line, NAN))
    assert estimated_dice(None, 0.8) == 0.8
    assert fit_dice_regression(EXPECTED[:3], EXPECTED[:3]) is None


def test_an_empty_mask_has_a_dice_of_0() -> None:
    """The line that falls became the mean, 0.9: no Dice of an empty mask."""
    flat = fit_dice_regression(EXPECTED, 1.8 - EXPECTED)
    assert estimated_dice(flat, 0.3) == pytest.approx(1.8 - float(EXPECTED.mean()))
    assert estimated_dice(flat, 0.0) == 0


def test_a_case_is_estimated_by_the_others_where_these_are_enough() -> None:
    true = 2 * EXPECTED - 1
    true[0] = 0.9
    assert leave_one_out_estimates(EXPECTED, true)[0] == pytest.approx(0.4)
    assert fit_dice_regression(EXPECTED, true).error == pytest.approx(np.abs(leave_one_out_estimates(EXPECTED, true) - true).mean())
    assert leave_one_out_estimates(EXPECTED[:3], true[:3]).tolist() == EXPECTED[:3].tolist()
