"""Which model, or average of models, segments which organ: decided by the cross-validation.

The rule that decides is a function in `RULES`: given every candidate's scores, case by case, it returns the winner and says why.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..evaluation.counts import nan_mean
from ..evaluation.metrics import find_metric, higher_is_better_score, value_of
from ..runtime.registry import lookup
from ..schema import Candidate, Choice, Score
from .evidence import Comparison, Rule, evidence_for
from .rules import best_mean, cheapest, supported

log = logging.getLogger(__name__)

SEED = 20211
"""Of the bootstrap, so that the same scores give the same intervals."""

DEFAULT_RULE = "supported"

RULES: dict[str, str | Rule] = {"supported": supported, "best_mean": best_mean, "cheapest": cheapest}
"""How the winner is found."""


@dataclass(frozen=True)
class SelectionContext:
    """What is known of the cross-validation beside the scores.

    Attributes:
        metric: Name of the metric by which candidates are compared.
        fold_of: Case to its fold, for the nested estimate; empty gives none.
        patient_of: Case to its patient; cases that are missing are patients of their own.
        seconds: Candidate name to seconds of computation a case; those that were not measured are missing.
    """

    metric: str = "dice"
    fold_of: Mapping[str, str] = field(default_factory=dict)
    patient_of: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)


def candidates_for(models: Sequence[str], max_members: int = 3, *, organs: Mapping[str, tuple[str, ...]] | None = None) -> list[Candidate]:
    """Every model alone, then every combination of up to `max_members` of them that have the same organs.

    Args:
        models: Names of model folders, cheapest first: the order decides ties.
        max_members: Largest number of models that are averaged.
        organs: Of each model those that it segments; models that are missing segment all.

    Raises:
        ValueError: A model is given twice, or `max_members` is below 1.
    """
    if len(set(models)) < len(models):
        raise ValueError(f"models: expected each name once, got {', '.join(models)}")
    if max_members < 1:
        raise ValueError(f"max_members: expected at least 1, got {max_members}")
    sizes = range(1, min(max_members, len(models)) + 1)
    found = [members for size in sizes for members in itertools.combinations(models, size)]
    of = {model: (organs or {}).get(model, ()) for model in models}
    return [Candidate(members, of[members[0]]) for members in found if len({of[name] for name in members}) == 1]


def narrowed(candidates: Sequence[Candidate], scores: Mapping[str, Sequence[Score]], metric: str, limit: int) -> list[Candidate]:
    """The candidates with at most about `limit` averages: those of the best few models of some organ, as many models as the limit allows.

    Which models are the best is judged by their own means over all cases. This much of the choice the nested estimate does not repeat.

    Args:
        candidates: Models and averages.
        scores: Model to its scores over the cross-validation.
        metric: By which models are the best.
        limit: Number of averages; the averages of the best two models of each organ are kept in any case.
    """
    averages = [candidate for candidate in candidates if len(candidate.members) > 1]
    if len(averages) <= limit:
        return list(candidates)
    values: dict[str, dict[str, list[float]]] = {}
    for name, some in scores.items():
        for score in some:
            values.setdefault(score.organ, {}).setdefault(name, []).append(higher_is_better_score(value_of(score, metric), metric))
    means = {organ: {name: nan_mean(some) for name, some in of.items()} for organ, of in values.items()}
    ranked = [sorted(of, key=lambda name, of=of: -math.inf if math.isnan(of[name]) else of[name], reverse=True) for of in means.values()]
    best = 1 + max(2, *(len(names) for names in ranked))
    kept = averages
    while len(kept) > limit and best > 2:
        best -= 1
        kept = [one for one in averages if any(set(one.members) <= set(names[:best]) for names in ranked)]
    log.info("Of %d averages those %d are compared that are made of the best %d models of an organ.", len(averages), len(kept), best)
    return [candidate for candidate in candidates if len(candidate.members) == 1 or candidate in kept]


def choose(
    scores: Mapping[str, Sequence[Score]],
    candidates: Sequence[Candidate],
    organs: Sequence[str],
    *,
    folds: Sequence[str],
    rule: str = DEFAULT_RULE,
    known: SelectionContext | None = None,
) -> Choice:
    """Chooses a candidate for each organ among those that cover it; an organ that none covers is named in a warning and left out.

    Only cases that every candidate was validated on are compared. A case in which neither reference nor prediction has the organ
    has no value (NaN) and is left out of that candidate's mean; a false alarm there counts as the worst. An organ is judged on the cases in
    which it was annotated: those that every candidate has a score of it for. Where there is none, the first candidate is taken, with a
    warning.

    Args:
        scores: Candidate name -> its scores over the cross-validation.
        candidates: Cheapest first: the order decides between candidates with equally many members where their seconds are not known.
        organs: Names to choose for.
        folds: Folds the scores come from; their models will vote.
        rule: Name in `RULES` or ``module:function`` of a `Comparison`.
        known: The metric, and what else is known; None means Dice and nothing.

    Returns:
        The choice with the evidence for each organ.

    Raises:
        ValueError: No candidate, no case in common, an unknown rule or metric, a candidate that lacks scores or has two of one case, or a
            score without the metric.
    """
    known = known or SelectionContext()
    decide: Rule = lookup(RULES, rule, "rule of selection")
    find_metric(known.metric)
    comparisons = _comparisons(scores, candidates, organs, known)
    chosen, reasons, evidence, table = {}, {}, {}, {candidate.name: {} for candidate in candidates}
    for organ, comparison in comparisons.items():
        if not comparison.cases:
            first = comparison.candidates[0]
            chosen[organ], reasons[organ] = first.members, f"{first.name}: {organ} was annotated in no validation case to judge it by"
            log.warning("%s; the first model of it is taken.", reasons[organ])
            continue
        for name, mean in comparison.means.items():
            table[name][organ] = mean
        winner, reasons[organ] = decide(comparison)
        evidence[organ] = evidence_for(comparison, winner, decide)
        chosen[organ] = winner.members
    if len(chosen) < len(organs):
        log.warning("No model covers %s: background until one is trained.", ", ".join(organ for organ in organs if organ not in chosen))
    n_cases = len({case for comparison in comparisons.values() for case in comparison.cases})
    return Choice(chosen, tuple(folds), table, n_cases, reasons, rule, metric=known.metric, evidence=evidence, seconds=dict(known.seconds))


def _comparisons(
    scores: Mapping[str, Sequence[Score]], candidates: Sequence[Candidate], organs: Sequence[str], known: SelectionContext
) -> dict[str, Comparison]:
    """Organ to what its candidates reached on the cases that all of them can be judged by; organs that none covers are missing."""
    if not candidates:
        raise ValueError("choice of the best model: there is no candidate; train at least one configuration")
    absent = [candidate.name for candidate in candidates if not scores.get(candidate.name)]
    if absent:
        raise ValueError(f"choice of the best model: no validation scores of {', '.join(absent)}")
    worst = _worst([score for candidate in candidates for score in scores[candidate.name]], known.metric)
    values = {candidate.name: _by_organ_and_case(scores[candidate.name], candidate.name, known.metric, worst) for candidate in candidates}
    validated = {name: {case for _, case in one} for name, one in values.items()}
    ranked = _simplest_first(candidates, known.seconds)
    found: dict[str, Comparison] = {}
    incomplete: set[tuple[int, int]] = set()
    for number, organ in enumerate(organs):
        able = tuple(candidate for candidate in ranked if candidate.covers(organ))
        if not able:
            continue
        of_able = {one.name: values[one.name] for one in able}
        common, n_any = _common_cases(organ, of_able, validated)
        if len(common) < n_any:
            incomplete.add((len(common), n_any))
        cases = tuple(_cases_with(organ, of_able, common))
        found[organ] = Comparison(
            able,
            {name: np.array([one[organ, case] for case in cases]) for name, one in of_able.items()},
            cases,
            known.metric,
            folds=tuple(known.fold_of[case] for case in cases) if known.fold_of else (),
            patients=_patients(cases, known.patient_of),
            seconds=known.seconds,
            seed=SEED + number,
        )
    for counts in sorted(incomplete):
        log.warning("The models are compared on the %d of %d cases that all of them were validated on.", *counts)
    return found


def _patients(cases: Sequence[str], patient_of: Mapping[str, str]) -> tuple[str, ...]:
    """Of each case the patient; empty where no two cases share one."""
    names = tuple(patient_of.get(case) or case for case in cases)
    return names if len(set(names)) < len(names) else ()


def _simplest_first(candidates: Sequence[Candidate], seconds: Mapping[str, float]) -> list[Candidate]:
    """Fewest members first, then fewest seconds where all were measured; among equals as they were given."""
    measured = all(candidate.name in seconds for candidate in candidates)
    return sorted(candidates, key=lambda one: (len(one.members), seconds[one.name] if measured else 0.0))


def _worst(scores: Sequence[Score], metric: str) -> float:
    """What a case counts as that has the organ but no number, as has the precision of an empty mask.

    0 of what shall be high, else the largest that any candidate has anywhere; NaN where there is none.
    """
    if find_metric(metric).better == "higher":
        return 0.0
    known = [abs(value) for score in scores if not math.isnan(value := value_of(score, metric))]
    return max(known, default=math.nan)


def _by_organ_and_case(scores: Sequence[Score], candidate: str, metric: str, worst: float) -> dict[tuple[str, str], float]:
    """(Organ, case) to the metric, NaN only where nobody has the organ; of a signed error its size: a mean of both signs would hide it."""
    signed = find_metric(metric).better == "zero"
    values: dict[tuple[str, str], float] = {}
    for score in scores:
        if (score.organ, score.case) in values:
            raise ValueError(f"{candidate}: case {score.case} has two scores for {score.organ}; expected each case in one fold only")
        value = value_of(score, metric)
        if math.isnan(value) and score.n_prediction + score.n_reference:
            value = worst
        values[score.organ, score.case] = abs(value) if signed else value
    return values


def _common_cases(
    organ: str, values: Mapping[str, Mapping[tuple[str, str], float]], validated: Mapping[str, set[str]]
) -> tuple[list[str], int]:
    """Sorted names of the cases that every candidate was validated on, and how many any was: of those with a score of the organ."""
    cases = {name: validated[name] for name in values}
    with_organ = {case for case in set.union(*cases.values()) if any((organ, case) in one for one in values.values())}
    common = set.intersection(*cases.values())
    if with_organ and not common:
        counts = ", ".join(f"{name}: {len(one)}" for name, one in cases.items())
        raise ValueError(f"choice of the best model: the candidates have no validation case in common ({counts}); train the same folds")
    return sorted(common & with_organ), len(with_organ)


def _cases_with(organ: str, values: Mapping[str, Mapping[tuple[str, str], float]], cases: Sequence[str]) -> list[str]:
    """Those of the cases for which every candidate has a score of the organ."""
    judged = [case for case in cases if all((organ, case) in one for one in values.values())]
    lacking = [(name, case) for case in cases for name, one in values.items() if (organ, case) not in one]
    if cases and not judged:
        raise ValueError(f"{lacking[0][0]}: case {lacking[0][1]} has no score for {organ}, nor is there another case that all have one of")
    if lacking:
        log.warning("%s is judged on the %d of %d cases for which every model has a score of it.", organ, len(judged), len(cases))
    return judged
