"""The Dice that the probabilities of held-out cases promise, beside the true one: how well a prediction's Dice can be foretold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ..inference.apply_selection import calibrated
from ..inference.uncertainty import expected_dice
from ..schema import Case, DiceRegression
from .candidate_scores import run_all
from .dice_regression import fit_dice_regression
from .estimated_dice import QualityEstimate
from .held_out import HeldOut


def estimate_quality(
    held_out: HeldOut, todo: Sequence[tuple[str, Case]], dice: Mapping[str, Mapping[str, float]], *, voxels: int, memory: int
) -> dict[str, list[QualityEstimate]]:
    """Organ to what was promised of each case, and its Dice.

    Args:
        held_out: The choice with its temperatures and its post-processing.
        todo: Folds and the cases that were held out there.
        dice: Organ to case to the Dice after post-processing; only these are looked at.
        voxels: See `candidate_scores.run_all`.
        memory: Likewise.

    Raises:
        ValueError: What models said of a case cannot be read.
    """
    jobs = {f"fold {fold}, {case.name}": (held_out, fold, case.name) for fold, case in todo}
    estimated_dice = run_all(expected_dice_of, jobs, what="Foretelling the Dice", voxels=voxels, memory=memory)
    found: dict[str, list[QualityEstimate]] = {organ: [] for organ in dice}
    for (_, case), expected in zip(todo, estimated_dice.values(), strict=True):
        for organ, true in dice.items():
            if case.name in true:
                found[organ].append(QualityEstimate(case.name, expected.get(organ, math.nan), true[case.name]))
    return found


def dice_regression_of(quality_estimates: Sequence[QualityEstimate]) -> DiceRegression | None:
    """The line through an organ's cases; None where there are too few."""
    return fit_dice_regression(np.array([one.expected for one in quality_estimates]), np.array([one.true for one in quality_estimates]))


def expected_dice_of(held_out: HeldOut, fold: str, case: str) -> dict[str, float]:
    """Organ to the Dice that its members' calibrated probabilities promise; organs with a member that is missing are left out.

    Runs in a process of its own where there is much to do.
    """
    choice = held_out.choice
    candidate_predictions = calibrated(held_out.kept(fold, case), choice, held_out.own)
    found: dict[str, float] = {}
    for members in dict.fromkeys(choice.organs.values()):
        if all(name in candidate_predictions for name in members):
            organs = [organ for organ, chosen in choice.organs.items() if chosen == members]
            steps = {organ: choice.postprocessing[organ] for organ in organs if organ in choice.postprocessing}
            found |= expected_dice([candidate_predictions[name] for name in members], held_out.own[members[0]], steps, organs=organs)
    return found
