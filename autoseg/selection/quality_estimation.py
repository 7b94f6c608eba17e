"""The Dice that the probabilities of held-out cases promise, beside the true one: how well a prediction's Dice can be foretold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ..inference.apply_selection import calibrated
from ..inference.uncertainty import promised_dice
from ..schema import Case, Reliability
from .candidate_scores import run_all
from .dice_regression import fit_reliability
from .estimated_dice import Foretold
from .held_out import HeldOut


def foretell(
    held_out: HeldOut, todo: Sequence[tuple[str, Case]], dice: Mapping[str, Mapping[str, float]], *, voxels: int, memory: int
) -> dict[str, list[Foretold]]:
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
    promises = run_all(promised_of, jobs, what="Foretelling the Dice", voxels=voxels, memory=memory)
    found: dict[str, list[Foretold]] = {organ: [] for organ in dice}
    for (_, case), promised in zip(todo, promises.values(), strict=True):
        for organ, true in dice.items():
            if case.name in true:
                found[organ].append(Foretold(case.name, promised.get(organ, math.nan), true[case.name]))
    return found


def reliability_of(foretold: Sequence[Foretold]) -> Reliability | None:
    """The line through an organ's cases; None where there are too few."""
    return fit_reliability(np.array([one.promised for one in foretold]), np.array([one.true for one in foretold]))


def promised_of(held_out: HeldOut, fold: str, case: str) -> dict[str, float]:
    """Organ to the Dice that its members' calibrated probabilities promise; organs with a member that is missing are left out.

    Runs in a process of its own where there is much to do.
    """
    choice = held_out.choice
    opinions = calibrated(held_out.kept(fold, case), choice, held_out.own)
    found: dict[str, float] = {}
    for members in dict.fromkeys(choice.organs.values()):
        if all(name in opinions for name in members):
            organs = [organ for organ, chosen in choice.organs.items() if chosen == members]
            steps = {organ: choice.cleaning[organ] for organ in organs if organ in choice.cleaning}
            found |= promised_dice([opinions[name] for name in members], held_out.own[members[0]], steps, organs=organs)
    return found
