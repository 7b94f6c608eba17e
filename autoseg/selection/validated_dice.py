"""How good the models of a choice were in validation, organ by organ: what every prediction says beside the organs that it writes."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path

from ..evaluation.counts import nan_mean
from ..evaluation.summaries import summary
from ..runtime.runs import ALL, ModelFolder
from ..schema import Choice, candidate_name
from ..schema.scores import UNRELIABLE_DICE
from .quality_estimation import read_final_dice

log = logging.getLogger(__name__)


def validated_dice(choice: Choice, results: Path) -> dict[str, float]:
    """Organ to the mean Dice of held-out cases, of what comes nearest to the prediction that is known; NaN where nothing is.

    That is the final result of the cross-validation, merged and post-processed; else the chosen candidate's by itself; else, of models that
    were asked for by name, the mean of their own validations. Cases that a model was trained on (fold ``all``) do not count.
    """
    final = read_final_dice(results, choice) if choice.cases else {}
    own: dict[str, dict[str, float]] = {}
    found = {}
    for organ, members in choice.organs.items():
        if organ in final:
            found[organ] = nan_mean(final[organ].values())
            continue
        known = choice.table.get(candidate_name(members), {}).get(organ)
        if known is None:
            for name in members:
                own.setdefault(name, _of_model(results / name))
            known = nan_mean(own[name].get(organ, math.nan) for name in members)
        found[organ] = float(known)
    return found


def _of_model(folder: Path) -> dict[str, float]:
    """Organ to the mean Dice over the held-out cases of a model's validated folds."""
    model = ModelFolder(folder)
    scores = [score for fold in model.validated_folds() if fold != ALL for score in model.run(fold).scores()]
    return {organ: one.dice for organ, one in summary(scores).items()}


def in_words(dice: float) -> str:
    """Such as ``0.91``."""
    return "unknown" if math.isnan(dice) else f"{dice:.2f}"


def warn_of_low_dice(validated: Mapping[str, float]) -> None:
    """Logs a warning of the organs that the models have not learnt, or of which nobody knows."""
    low = {organ: dice for organ, dice in validated.items() if dice < UNRELIABLE_DICE}
    if low:
        listed = ", ".join(f"{organ} {in_words(dice)}" for organ, dice in low.items())
        what = "it" if len(low) == 1 else "these organs"
        log.warning(
            "NOT TO BE RELIED ON: in validation the models' Dice is below %g for %s. They have not learnt %s: train longer (--time), or "
            "look at the labels with autoseg_check.",
            *(UNRELIABLE_DICE, listed, what),
        )
    if unknown := [organ for organ, dice in validated.items() if math.isnan(dice)]:
        log.info("Not validated on held-out cases: %s.", ", ".join(unknown))
