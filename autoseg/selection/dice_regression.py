"""The Dice of a prediction that has no reference: what its probabilities promise, mapped by a line through the cross-validation.

Where probabilities are calibrated, a voxel that is given an organ with probability p is right with probability p, which gives the expected
Dice of the whole mask (`autoseg.inference.uncertainty.expected_dice`). It ranks cases well and is too optimistic where a model errs
without knowing it; how much so the cross-validation tells.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import spearmanr

from ..schema import DiceRegression

FEWEST = 4
"""Cases for a line: fewer leave nothing to judge it by."""


def fit_dice_regression(expected: np.ndarray, true: np.ndarray) -> DiceRegression | None:
    """The line from promised to true Dice, and how far to trust it.

    Args:
        expected: ``(cases,)``, NaN where the probabilities know nothing of the organ.
        true: ``(cases,)``, NaN where the organ is absent from prediction and reference.

    Returns:
        Line, mean absolute error with each case left out once, and Spearman's correlation (NaN where one of both is constant); None where
        fewer than `FEWEST` cases have both.
    """
    expected, true = np.asarray(expected, np.float64), np.asarray(true, np.float64)
    known = ~(np.isnan(expected) | np.isnan(true))
    x, y = expected[known], true[known]
    if len(x) < FEWEST:
        return None
    varied = np.ptp(x) > 0 and np.ptp(y) > 0
    correlation = float(spearmanr(x, y).statistic) if varied else math.nan
    return DiceRegression(*_line(x, y), float(np.abs(leave_one_out_estimates(x, y) - y).mean()), correlation, len(x))


def leave_one_out_estimates(expected: np.ndarray, true: np.ndarray) -> np.ndarray:
    """The Dice of each case by a line through all others, ``(cases,)``; the promise itself where these are too few for a line.

    Args:
        expected: ``(cases,)``, without NaN.
        true: ``(cases,)``, without NaN.
    """
    if len(expected) < FEWEST:
        return np.clip(np.asarray(expected, np.float64), 0, 1)
    return np.array([_at(*_line(np.delete(expected, i), np.delete(true, i)), expected[i]) for i in range(len(expected))])


def estimated_dice(dice_regression: DiceRegression | None, expected: float) -> float:
    """The Dice to expect where the probabilities promise `expected`, 0..1; the promise itself where there is no line, NaN stays NaN."""
    return expected if dice_regression is None or math.isnan(expected) else _at(dice_regression.slope, dice_regression.intercept, expected)


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of least squares; a falling line says nothing that could be believed, so the mean takes its place."""
    spread = x - x.mean()
    slope = float(spread @ y / (spread @ spread)) if np.ptp(x) > 0 else 0.0
    slope = max(0.0, slope)
    return slope, float(y.mean() - slope * x.mean())


def _at(slope: float, intercept: float, x: float) -> float:
    if x == 0:  # promised by an empty mask, whose Dice is 0 whatever a line through masks says
        return 0.0
    return float(min(1.0, max(0.0, slope * x + intercept)))
