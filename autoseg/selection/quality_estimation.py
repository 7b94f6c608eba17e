"""The Dice of a prediction that has no reference, estimated from its probabilities by a line through the cross-validation.

Where probabilities are calibrated, a voxel that is given an organ with probability p is right with probability p, which gives the expected
Dice of the whole mask (`autoseg.inference.uncertainty.expected_dice`). It ranks cases well and is too optimistic where a model errs
without knowing it; by how much, the held-out cases show, whose expected and true Dice are stored with the choice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from ..inference.apply_selection import calibrated
from ..inference.uncertainty import expected_dice
from ..runtime.migrate.names import existing_file
from ..runtime.serialization import read_json, write_json
from ..schema import Case, DiceRegression
from .cross_validation import CrossValidation, for_each_case
from .held_out import HeldOut

QUALITY_ESTIMATES = "quality_estimates.json"
"""In ``results/<dataset>``: organ to its `QualityEstimate`."""

FEWEST = 4
"""Cases for a line: fewer leave nothing to judge it by."""


@dataclass(frozen=True)
class QualityEstimate:
    """Expected and true Dice of one organ in one held-out case.

    Attributes:
        expected_dice: By the calibrated probabilities; NaN where they do not show the organ.
        true_dice: After post-processing; NaN where the organ is absent from prediction and reference.
    """

    case: str
    expected_dice: float
    true_dice: float


@dataclass(frozen=True)
class EstimatedDice:
    """Dice of an organ in one held-out case: estimated by the line through the other cases, and true."""

    case: str
    estimated: float
    true: float


def estimate_quality(
    held_out: HeldOut, cross_validation: CrossValidation, dice: Mapping[str, Mapping[str, float]]
) -> dict[str, list[QualityEstimate]]:
    """Organ to the expected Dice of each held-out case beside the true one.

    Args:
        held_out: The choice with its temperatures and its post-processing.
        dice: Organ to case to the Dice after post-processing; other cases are left out.
    """
    models = len(held_out.member_labels)
    expected = for_each_case(partial(expected_dice_of, held_out), cross_validation, what="Estimating the Dice", models=models)
    of_cases = {case.name: of_organs for (_, case), of_organs in expected.items()}
    return {
        organ: [QualityEstimate(case, of_cases[case].get(organ, math.nan), true[case]) for case in of_cases if case in true]
        for organ, true in dice.items()
    }


def expected_dice_of(held_out: HeldOut, fold: str, case: Case) -> dict[str, float]:
    """Organ to the Dice that its members' calibrated probabilities lead to expect; organs with a missing member are left out.

    Runs in a process of its own where there is much to do.
    """
    choice, labels = held_out.choice, held_out.member_labels
    predictions = calibrated(held_out.logits(fold, case.name), choice, labels)
    found: dict[str, float] = {}
    for members in dict.fromkeys(choice.organs.values()):
        if all(name in predictions for name in members):
            organs = [organ for organ, chosen in choice.organs.items() if chosen == members]
            steps = {organ: choice.postprocessing[organ] for organ in organs if organ in choice.postprocessing}
            found |= expected_dice([predictions[name] for name in members], labels[members[0]], steps, organs=organs)
    return found


def write_quality_estimates(results: Path, estimates: Mapping[str, Sequence[QualityEstimate]]) -> None:
    """Writes the estimates beside the choice."""
    write_json(results / QUALITY_ESTIMATES, estimates)


def read_estimated_dice(results: Path) -> dict[str, tuple[EstimatedDice, ...]]:
    """Organ to the estimated and the true Dice of its held-out cases; each is estimated by a line through the others."""
    path = existing_file(results / QUALITY_ESTIMATES)
    stored = read_json(path, dict[str, list[QualityEstimate]]) if path.is_file() else {}
    return {organ: points for organ, estimates in stored.items() if (points := _estimated(estimates))}


def _estimated(estimates: Sequence[QualityEstimate]) -> tuple[EstimatedDice, ...]:
    known = [one for one in estimates if not math.isnan(one.expected_dice + one.true_dice)]
    estimated = leave_one_out_estimates(*columns_of(known)).tolist()
    return tuple(EstimatedDice(one.case, dice, one.true_dice) for one, dice in zip(known, estimated, strict=True))


def columns_of(estimates: Sequence[QualityEstimate]) -> tuple[np.ndarray, np.ndarray]:
    """Expected and true Dice, ``(cases,)`` each."""
    return np.array([one.expected_dice for one in estimates], float), np.array([one.true_dice for one in estimates], float)


def fit_dice_regression(expected: np.ndarray, true: np.ndarray) -> DiceRegression | None:
    """Fits the line from expected to true Dice, ``(cases,)`` each, and measures its error.

    The error is the mean absolute one with each case left out once; the correlation is Spearman's, NaN where one of both is constant. Cases
    with a NaN do not count. None where fewer than `FEWEST` are left.
    """
    expected, true = np.asarray(expected, np.float64), np.asarray(true, np.float64)
    known = ~(np.isnan(expected) | np.isnan(true))
    x, y = expected[known], true[known]
    if len(x) < FEWEST:
        return None
    correlation = float(spearmanr(x, y).statistic) if np.ptp(x) > 0 and np.ptp(y) > 0 else math.nan
    return DiceRegression(*_line(x, y), float(np.abs(leave_one_out_estimates(x, y) - y).mean()), correlation, len(x))


def leave_one_out_estimates(expected: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Estimates the Dice of each case, ``(cases,)`` without NaN, by a line through all others; of too few it is the expected one."""
    if len(expected) < FEWEST:
        return np.clip(np.asarray(expected, np.float64), 0, 1)
    return np.array([_at(*_line(np.delete(expected, i), np.delete(true, i)), expected[i]) for i in range(len(expected))])


def estimated_dice(dice_regression: DiceRegression | None, expected: float) -> float:
    """Maps the expected Dice of a mask to an estimate, 0..1; to itself where there is no line; NaN stays NaN."""
    return expected if dice_regression is None or math.isnan(expected) else _at(dice_regression.slope, dice_regression.intercept, expected)


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of least squares; a falling line is taken for chance, and the mean takes its place."""
    spread = x - x.mean()
    slope = max(0.0, float(spread @ y / (spread @ spread))) if np.ptp(x) > 0 else 0.0
    return slope, float(y.mean() - slope * x.mean())


def _at(slope: float, intercept: float, x: float) -> float:
    if x == 0:  # an empty mask, whose Dice is 0 whatever a line through masks gives
        return 0.0
    return float(min(1.0, max(0.0, slope * x + intercept)))
