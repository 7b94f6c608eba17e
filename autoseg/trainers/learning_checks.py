"""Whether a training has learnt anything: by its steps before it begins, by its scores when it has ended.

The numbers are measured (docs/training.md, "Too few steps"), on hippocampi, hearts and phantoms, with networks of every kind, from random
weights: of 22 trainings with 20 to 150 steps 21 ended with a mean Dice below 0.5, and 17 below 0.2; of 11 with 150 to 500 steps 6 ended
below 0.5; of 29 with more none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..evaluation.summaries import summary
from ..planners.budget import STEPS_TO_LEARN
from ..schema import Budget, Score
from ..schema.scores import UNRELIABLE_DICE

FAR_TOO_FEW = 150
"""Steps below which a network that starts from random weights learns next to nothing."""

FEW = 500
"""Steps below which its mean Dice stayed below 0.5 in more than half of the trainings."""

NOT_LEARNT = 0.2
"""An organ with a lower mean Dice was not learnt: what trainings with far too few steps ended with."""

ROUND_MINUTES = (1, 2, 3, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 240, 360, 480, 720, 960, 1440)
"""Times that people give."""


def too_few_steps(budget: Budget, step_seconds: float, *, fine_tunes: bool = False) -> str:
    """What to tell before a training whose steps are too few to learn from; empty where they are enough.

    Args:
        budget: Of the training.
        step_seconds: Time of a step.
        fine_tunes: It starts from trained weights, which need fewer steps.
    """
    steps = budget.amount / step_seconds if budget.kind == "time" else budget.amount
    if fine_tunes or steps >= FEW:
        return ""
    much = "far too few" if steps < FAR_TOO_FEW else "few"
    if budget.kind == "time":
        return f"About {max(steps, 1):.0f} steps: {much} to learn from; give --time {round_time(STEPS_TO_LEARN * step_seconds)}"
    seconds = round_time(STEPS_TO_LEARN * step_seconds)
    return f"{steps:.0f} steps: {much} to learn from; give --iterations {STEPS_TO_LEARN} (about {seconds}) or more"


def not_learnt(scores: Sequence[Score], *, steps: int = 0, seconds: float = math.nan, budget: Budget | None = None) -> list[str]:
    """What to tell after a validation of organs that were not learnt, and what to do; empty where all were.

    Args:
        scores: Of the held-out cases, whole volumes.
        steps: That were taken; 0 where it is not known.
        seconds: That they took.
        budget: Of the training.
    """
    found = {organ: one.dice for organ, one in summary(scores).items()}
    never = [organ for organ in found if _is_never_predicted(scores, organ)]
    nothing = [organ for organ, dice in found.items() if dice < NOT_LEARNT and organ not in never]
    badly = [organ for organ, dice in found.items() if NOT_LEARNT <= dice < UNRELIABLE_DICE]
    lines = [f"NOT LEARNT: {', '.join(never)}: in the held-out cases, but never predicted."] if never else []
    for organs, words in ((nothing, "NOT LEARNT"), (badly, "LEARNT BADLY")):
        if organs:
            lines.append(f"{words}: {', '.join(f'{organ} (Dice {found[organ]:.2f})' for organ in organs)}.")
    return [*lines, _remedy(steps, seconds, budget)] if lines else []


def _remedy(steps: int, seconds: float, budget: Budget | None) -> str:
    labels = "look at its learning curve (progress.png) and its labels (autoseg_check, autoseg_overlay), or train longer"
    if not 0 < steps < STEPS_TO_LEARN:
        return f"{steps} steps were enough for other organs and data: {labels}." if steps else f"For these organs {labels}."
    much = "far too few" if steps < FAR_TOO_FEW else "few" if steps < FEW else "not many"
    if budget is not None and budget.kind == "time" and seconds > 0:
        needed = max(STEPS_TO_LEARN * seconds / steps, 2 * budget.amount)
        return f"{steps} steps are {much}: give --time {round_time(needed)} --longer, which goes on from here."
    return f"{steps} steps are {much}: give --iterations {max(STEPS_TO_LEARN, 2 * steps)} --restart, or a --time."


def _is_never_predicted(scores: Sequence[Score], organ: str) -> bool:
    """Whether no case has a voxel of an organ that the references have."""
    some = [score for score in scores if score.organ == organ]
    return any(score.n_reference for score in some) and not any(score.n_prediction for score in some)


def round_time(seconds: float) -> str:
    """A time of at least so many seconds as people give it: ``20m``, ``90m``, ``2h``, ``3d``."""
    minutes = next((one for one in ROUND_MINUTES if one * 60 >= seconds * 0.999), None)
    if minutes is None:
        return f"{math.ceil(seconds / 86400)}d"
    return f"{minutes // 60}h" if minutes % 60 == 0 else f"{minutes}m"
