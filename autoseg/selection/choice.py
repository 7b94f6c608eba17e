"""The choice of a model, or an average of models, for each organ by the scores of the cross-validation.

The rule that decides is a function in `RULES` of every candidate's scores, case by case; it returns the winner and the reason.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..evaluation.metrics import find_metric, value_of
from ..runtime.registry import lookup
from ..schema import Candidate, Choice, Evidence, Members, Score
from .candidates import candidate_seconds
from .cross_validation import CrossValidation
from .evidence import Comparison, Rule, evidence_for
from .rules import best_mean, cheapest, supported

log = logging.getLogger(__name__)

SEED = 20211
"""Seed of the bootstrap, so that the same scores give the same intervals."""

DEFAULT_RULE = "supported"

RULES: dict[str, str | Rule] = {"supported": supported, "best_mean": best_mean, "cheapest": cheapest}
"""Name to the function that finds the winner."""


@dataclass(frozen=True)
class SelectionContext:
    """Facts about the cross-validation beside the scores.

    Attributes:
        fold_of: Case to its fold, for the nested estimate; empty gives none.
        patient_of: Case to its patient; cases that are missing are patients of their own.
        seconds: Candidate name to seconds of computation a case; those that were not measured are missing.
    """

    metric: str = "dice"
    fold_of: Mapping[str, str] = field(default_factory=dict)
    patient_of: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)


def selection_context(cross_validation: CrossValidation, candidates: Sequence[Candidate], seconds: Mapping[str, float]) -> SelectionContext:
    """Collects folds and patients of the cases, and the seconds of candidates from those of each model."""
    return SelectionContext(
        cross_validation.metric,
        fold_of={case.name: fold for fold, case in cross_validation.all_cases},
        patient_of={case.name: case.group for _, case in cross_validation.all_cases if case.group},
        seconds=candidate_seconds(candidates, seconds),
    )


def choose(
    scores: Mapping[str, Sequence[Score]],
    candidates: Sequence[Candidate],
    organs: Sequence[str],
    *,
    folds: Sequence[str],
    rule: str = DEFAULT_RULE,
    context: SelectionContext | None = None,
) -> Choice:
    """Chooses a candidate for each organ among those that cover it; an organ that none covers is named in a warning and left out.

    No average that has a member with a Dice of 0 for the organ in all cases is compared: what has not learnt it takes part in no average.

    Only cases that every candidate was validated on are compared. A case in which neither reference nor prediction has the organ
    has no value (NaN) and is left out of that candidate's mean; a false alarm there counts as the worst. An organ is judged on the cases in
    which it was annotated: those that every candidate has a score of it for. Where there is none, the first candidate is taken, with a
    warning.

    Args:
        scores: Candidate name to its scores over the cross-validation.
        candidates: Cheapest first: the order decides between candidates with equally many members where their seconds are not known.
        rule: Name in `RULES` or ``module:function`` of a `Comparison`.
        context: The metric, and what else is known of the cases; Dice and nothing without it.

    Raises:
        ValueError: No candidate, no case in common, an unknown rule or metric, a candidate that lacks scores or has two of one case, or a
            score without the metric.
    """
    decide: Rule = lookup(RULES, rule, "rule of selection")
    context = context or SelectionContext()
    find_metric(context.metric)
    comparisons = _comparisons(scores, candidates, organs, context)
    chosen: dict[str, Members] = {}
    reasons: dict[str, str] = {}
    evidence: dict[str, Evidence] = {}
    table: dict[str, dict[str, float]] = {candidate.name: {} for candidate in candidates}
    for organ, comparison in comparisons.items():
        if not comparison.cases:
            first = comparison.candidates[0]
            chosen[organ], reasons[organ] = first.members, f"{first.name}: {organ} was annotated in no validation case to judge it by"
            log.warning("%s; the first model of it is taken.", reasons[organ])
            continue
        for name, mean in comparison.means.items():
            table[name][organ] = mean
        winner, reason = decide(comparison)
        failed = failed_members(scores, comparison.candidates, organ)
        reasons[organ] = f"{reason}; {', '.join(failed)}: Dice 0 in all cases, so in no average" if failed else reason
        evidence[organ] = evidence_for(comparison, winner, decide)
        chosen[organ] = winner.members
    if lacking := [organ for organ in organs if organ not in chosen]:
        log.warning("No model covers %s: background until one is trained.", ", ".join(lacking))
    n_cases = len({case for comparison in comparisons.values() for case in comparison.cases})
    return Choice(
        chosen, tuple(folds), table, n_cases, reasons, rule, metric=context.metric, evidence=evidence, seconds=dict(context.seconds)
    )


def taken_for_all(
    choice: Choice,
    candidate: Candidate,
    reason: str,
    *,
    scores: Mapping[str, Sequence[Score]],
    candidates: Sequence[Candidate],
    context: SelectionContext,
) -> Choice:
    """The choice with one candidate for all its organs, the evidence told from there, and without what followed from the former organs.

    Args:
        candidate: One of `candidates`, which were compared.
        reason: Precedes the reason of each organ whose candidate changes.
    """
    organs = dict.fromkeys(choice.organs, candidate.members)
    comparisons = _comparisons(scores, candidates, tuple(organs), context)
    evidence = {organ: evidence_for(one, candidate, lambda _: (candidate, reason)) for organ, one in comparisons.items()}
    changed = [organ for organ, members in choice.organs.items() if members != candidate.members]
    reasons = choice.reasons | {organ: f"{reason}; by the organ alone: {choice.reasons[organ]}" for organ in changed}
    return replace(
        choice,
        organs=organs,
        reasons=reasons,
        evidence=evidence,
        member_folds={name: folds for name, folds in choice.member_folds.items() if name in candidate.members},
        calibration={name: one for name, one in choice.calibration.items() if name in candidate.members},
        postprocessing={},
        dice_regression={},
        merged=None,
    )


def _comparisons(
    scores: Mapping[str, Sequence[Score]], candidates: Sequence[Candidate], organs: Sequence[str], context: SelectionContext
) -> dict[str, Comparison]:
    """Organ to the values of its candidates on the cases that all of them can be judged by; organs that none covers are missing."""
    if not candidates:
        raise ValueError("choice of the best model: there is no candidate; train at least one configuration")
    if absent := [candidate.name for candidate in candidates if not scores.get(candidate.name)]:
        raise ValueError(f"choice of the best model: no validation scores of {', '.join(absent)}")
    worst = _worst([score for candidate in candidates for score in scores[candidate.name]], context.metric)
    values = {candidate.name: _by_organ_and_case(scores[candidate.name], candidate.name, context.metric, worst) for candidate in candidates}
    validated = {name: {case for _, case in one} for name, one in values.items()}
    ranked = _simplest_first(candidates, context.seconds)
    found, incomplete = {}, set()
    for number, organ in enumerate(organs):
        able = tuple(candidate for candidate in ranked if candidate.covers(organ))
        failed = failed_members(scores, able, organ)
        able = tuple(candidate for candidate in able if len(candidate.members) == 1 or not set(failed) & set(candidate.members))
        if not able:
            continue
        of_able = {one.name: values[one.name] for one in able}
        cases, n_common, n_any = _judged_cases(organ, of_able, validated)
        if n_common < n_any:
            incomplete.add((n_common, n_any))
        patients = [context.patient_of.get(case) or case for case in cases]
        found[organ] = Comparison(
            able,
            {name: np.array([one[organ, case] for case in cases]) for name, one in of_able.items()},
            cases,
            context.metric,
            folds=tuple(context.fold_of[case] for case in cases) if context.fold_of else (),
            patients=tuple(patients) if len(set(patients)) < len(patients) else (),
            seconds=context.seconds,
            seed=SEED + number,
        )
    for counts in sorted(incomplete):
        log.warning("The models are compared on the %d of %d cases that all of them were validated on.", *counts)
    return found


def failed_members(scores: Mapping[str, Sequence[Score]], candidates: Sequence[Candidate], organ: str) -> list[str]:
    """Members of the candidates whose Dice of an organ is 0 in all cases that have one, in the order of their candidates."""
    members = dict.fromkeys(name for candidate in candidates for name in candidate.members)
    dice = {name: [score.dice for score in scores.get(name, ()) if score.organ == organ and not math.isnan(score.dice)] for name in members}
    return [name for name, of_cases in dice.items() if of_cases and not any(of_cases)]


def _simplest_first(candidates: Sequence[Candidate], seconds: Mapping[str, float]) -> list[Candidate]:
    """Fewest members first, then fewest seconds where all were measured; among equals as they were given."""
    measured = all(candidate.name in seconds for candidate in candidates)
    return sorted(candidates, key=lambda one: (len(one.members), seconds[one.name] if measured else 0.0))


def _worst(scores: Sequence[Score], metric: str) -> float:
    """The value of a case that has the organ but no number, as the precision of an empty mask: 0, or the largest where low is good."""
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


def _judged_cases(
    organ: str, values: Mapping[str, Mapping[tuple[str, str], float]], validated: Mapping[str, set[str]]
) -> tuple[tuple[str, ...], int, int]:
    """Sorted names of the cases for which every candidate has a score of the organ.

    Also how many cases all candidates, and how many any, were validated on: of those with a score of the organ.
    """
    validated = {name: validated[name] for name in values}
    with_organ = {case for case in set.union(*validated.values()) if any((organ, case) in one for one in values.values())}
    common = set.intersection(*validated.values())
    if with_organ and not common:
        counts = ", ".join(f"{name}: {len(one)}" for name, one in validated.items())
        raise ValueError(f"choice of the best model: the candidates have no validation case in common ({counts}); train the same folds")
    cases = sorted(common & with_organ)
    lacking = [(name, case) for case in cases for name, one in values.items() if (organ, case) not in one]
    without = {case for _, case in lacking}
    judged = tuple(case for case in cases if case not in without)
    if cases and not judged:
        raise ValueError(f"{lacking[0][0]}: case {lacking[0][1]} has no score for {organ}, nor is there another case that all have one of")
    if lacking:
        log.warning("%s is judged on the %d of %d cases for which every model has a score of it.", organ, len(judged), len(cases))
    return judged, len(cases), len(with_organ)
