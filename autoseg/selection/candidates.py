"""The candidates that are compared: single models, and averages of models that segment the same organs."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Mapping, Sequence

from ..evaluation.counts import nan_mean
from ..evaluation.metrics import higher_is_better_score, value_of
from ..schema import Candidate, Score

log = logging.getLogger(__name__)


def candidates_for(models: Sequence[str], max_members: int = 3, *, organs: Mapping[str, tuple[str, ...]] | None = None) -> list[Candidate]:
    """Makes a candidate of every model, and of every combination of up to `max_members` of them that have the same organs.

    Args:
        models: Names of model folders, cheapest first: the order decides ties.
        organs: Of each model those that it segments; models that are missing segment all.

    Raises:
        ValueError: A model is given twice, or `max_members` is below 1.
    """
    if len(set(models)) < len(models):
        raise ValueError(f"models: expected each name once, got {', '.join(models)}")
    if max_members < 1:
        raise ValueError(f"max_members: expected at least 1, got {max_members}")
    sizes = range(1, min(max_members, len(models)) + 1)
    combinations = [members for size in sizes for members in itertools.combinations(models, size)]
    organs_of = {model: (organs or {}).get(model, ()) for model in models}
    return [Candidate(members, organs_of[members[0]]) for members in combinations if len({organs_of[name] for name in members}) == 1]


def candidate_seconds(candidates: Sequence[Candidate], seconds: Mapping[str, float]) -> dict[str, float]:
    """Candidate name to the seconds of all its members a case; candidates with a member that was not measured are missing."""
    return {one.name: sum(seconds[name] for name in one.members) for one in candidates if all(name in seconds for name in one.members)}


def within_seconds(candidates: Sequence[Candidate], seconds: Mapping[str, float], limit: float) -> list[Candidate]:
    """The candidates that are known to take at most `limit` seconds a case, by the seconds of each model.

    Raises:
        ValueError: There is none.
    """
    measured = candidate_seconds(candidates, seconds)
    quick = [candidate for candidate in candidates if measured.get(candidate.name, math.inf) <= limit]
    if unknown := [candidate.name for candidate in candidates if candidate.name not in measured]:
        log.warning("Left out, as nobody measured how long they take: %s", ", ".join(unknown))
    if not quick:
        listed = ", ".join(f"{name} {value:.3g}" for name, value in measured.items())
        raise ValueError(f"at most {limit:g} seconds a case: no model is that quick; measured: {listed or 'none'}")
    return quick


def limit_averages(candidates: Sequence[Candidate], scores: Mapping[str, Sequence[Score]], metric: str, limit: int) -> list[Candidate]:
    """The candidates with at most about `limit` averages: those of the best few models of some organ, as many models as the limit allows.

    Which models are the best is judged by their own means over all cases. This much of the choice the nested estimate does not repeat.

    Args:
        scores: Model to its scores over the cross-validation.
        metric: By which models are the best.
        limit: Number of averages; the averages of the best two models of each organ stay in any case.
    """
    averages = [candidate for candidate in candidates if len(candidate.members) > 1]
    if len(averages) <= limit:
        return list(candidates)
    of_organs: dict[str, dict[str, float]] = {}
    for name, some in scores.items():
        for organ, mean in mean_scores(some, metric).items():
            of_organs.setdefault(organ, {})[name] = mean
    ranked = [sorted(means, key=means.__getitem__, reverse=True) for means in of_organs.values()]
    best = 1 + max(2, *(len(names) for names in ranked))
    remaining = averages
    while len(remaining) > limit and best > 2:
        best -= 1
        remaining = [one for one in averages if any(set(one.members) <= set(names[:best]) for names in ranked)]
    log.info("Of %d averages those %d are compared that are made of the best %d models of an organ.", len(averages), len(remaining), best)
    return [candidate for candidate in candidates if len(candidate.members) == 1 or candidate in remaining]


def mean_scores(scores: Sequence[Score], metric: str) -> dict[str, float]:
    """Organ to the mean of a model's scores, turned so that higher is better; minus infinity where no score of it has a value."""
    values: dict[str, list[float]] = {}
    for score in scores:
        values.setdefault(score.organ, []).append(higher_is_better_score(value_of(score, metric), metric))
    return {organ: -math.inf if math.isnan(mean := nan_mean(known)) else mean for organ, known in values.items()}
