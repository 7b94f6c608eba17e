"""Organs that no compared candidate covers, as their models share no fold with the others: each is taken from the best of its models."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..evaluation.metrics import has_value
from ..runtime.runs import ALL
from ..schema import Candidate, Choice, Score
from .candidates import mean_scores
from .cross_validation import CrossValidation
from .stored_scores import scores_of_folds

log = logging.getLogger(__name__)


def best_uncompared(
    cross_validation: CrossValidation,
    models: Mapping[str, Sequence[str]],
    organs: Mapping[str, tuple[str, ...]],
    candidates: Sequence[Candidate],
) -> dict[str, tuple[str, str]]:
    """Finds the best model, by its own numbered folds, of each organ that no candidate covers: organ to the model and one sentence."""
    lacking = {organ for name in models for organ in organs[name]} - {organ for candidate in candidates for organ in candidate.organs}
    able_models = {name: folds for name, folds in models.items() if lacking & set(organs[name])}
    means = mean_scores_of_each(cross_validation.results, able_models, cross_validation.metric, cross_validation.unstored)
    found: dict[str, tuple[str, str]] = {}
    for organ in sorted(lacking):
        able = {name: means[name].get(organ, -math.inf) for name in models if organ in organs[name]}
        best = max(able, key=able.__getitem__)
        why = "the only model of it" if len(able) == 1 else "the best of its models, each by its own folds"
        found[organ] = best, f"{best}: not compared with the others; {why}"
    if found:
        log.warning("Not compared: %s", "; ".join(f"{organ} is taken from {model}" for organ, (model, _) in found.items()))
    return found


def with_uncompared(choice: Choice, uncompared: Mapping[str, tuple[str, str]], names: Sequence[str]) -> Choice:
    """Adds what `best_uncompared` found to a choice, whose organs then have the order of `names`."""
    organs = choice.organs | {organ: (model,) for organ, (model, _) in uncompared.items()}
    reasons = choice.reasons | {organ: reason for organ, (_, reason) in uncompared.items()}
    chosen = [organ for organ in names if organ in organs]
    return replace(choice, organs={organ: organs[organ] for organ in chosen}, reasons={organ: reasons[organ] for organ in chosen})


def mean_scores_of_each(
    results: Path, models: Mapping[str, Sequence[str]], metric: str, unstored: Mapping[str, Sequence[Score]] | None = None
) -> dict[str, dict[str, float]]:
    """Model to organ to its mean over the numbered folds of the model, turned so that higher is better; minus infinity without a value.

    Where scores of any model lack the metric, all are judged by Dice: means of two metrics cannot be compared.
    """
    scores = scores_of_folds(results, {name: [fold for fold in folds if fold != ALL] for name, folds in models.items()}, unstored)
    known = metric if all(has_value(score, metric) for of_model in scores.values() for score in of_model) else "dice"
    return {name: mean_scores(of_model, known) for name, of_model in scores.items()}
