"""The line from promised to true Dice."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autoseg.selection.quality_estimation import estimated_dice, fit_dice_regression, leave_one_out_estimates

PROMISED = np.array([0.7, 0.8, 0.9, 0.95, 0.99])


def test_a_perfect_line_is_found_and_judged() -> None:
    found = fit_dice_regression(PROMISED, 2 * PROMISED - 1)
    assert (found.slope, found.intercept) == pytest.approx((2, -1))
    assert found.error == pytest.approx(0, abs=1e-9)
    assert (found.correlation, found.cases) == (pytest.approx(1), 5)
    assert estimated_dice(found, 0.85) == pytest.approx(0.7)
    assert (estimated_dice(found, 0.4), estimated_dice(found, 1.2)) == (0, 1)


def test_each_case_is_judged_by_a_line_through_the_others() -> None:
    """The mean of three times 0.5 misses the fourth, 0.9, by 0.4; with it in the mean the others are missed by 0.4 / 3."""
    found = fit_dice_regression(np.full(4, 0.8), np.array([0.5, 0.5, 0.5, 0.9]))
    assert (found.slope, found.intercept) == pytest.approx((0, 0.6))
    assert found.error == pytest.approx((0.4 + 3 * 0.4 / 3) / 4)
    assert math.isnan(found.correlation)


def test_a_falling_line_is_not_believed() -> None:
    found = fit_dice_regression(PROMISED, 1 - PROMISED)
    assert found.slope == 0
    assert found.intercept == pytest.approx(float(1 - PROMISED.mean()))
    assert found.correlation == pytest.approx(-1)


def test_cases_without_the_organ_do_not_count_and_few_are_not_enough() -> None:
    nothing = float("nan")
    assert fit_dice_regression(np.append(PROMISED, [nothing, 0.3]), np.append(PROMISED, [0.5, nothing])).cases == 5
    assert fit_dice_regression(PROMISED[:3], PROMISED[:3]) is None


def test_an_empty_mask_keeps_its_promise_of_nothing() -> None:
    """The line that falls became the mean, 0.9: no Dice of an empty mask."""
    flat = fit_dice_regression(PROMISED, 1.8 - PROMISED)
    assert estimated_dice(flat, 0.3) == pytest.approx(1.8 - float(PROMISED.mean()))
    assert estimated_dice(flat, 0.0) == 0


def test_others_foretell_a_case_or_it_keeps_its_promise() -> None:
    true = 2 * PROMISED - 1
    true[0] = 0.9
    assert leave_one_out_estimates(PROMISED, true)[0] == pytest.approx(0.4)
    assert fit_dice_regression(PROMISED, true).error == pytest.approx(np.abs(leave_one_out_estimates(PROMISED, true) - true).mean())
    assert leave_one_out_estimates(PROMISED[:3], true[:3]).tolist() == PROMISED[:3].tolist()


def test_without_a_line_the_promise_stands() -> None:
    assert estimated_dice(None, 0.8) == 0.8
    assert math.isnan(estimated_dice(fit_dice_regression(PROMISED, PROMISED), float("nan")))
