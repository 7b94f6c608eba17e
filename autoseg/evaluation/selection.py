"""Which model, or average of models, segments which organ: decided by the cross-validation.

The rule that decides is a function in `RULES`: given every candidate's Dice, case by case, it returns the winner and says why.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..model import Candidate, Choice, Score
from ..naming import lookup
from .overlap import mean_of_known

log = logging.getLogger(__name__)

TIE = 1e-6
"""Mean Dice values closer than this are equal."""

Rule = Callable[[Mapping[str, np.ndarray], Sequence[Candidate]], tuple[Candidate, str]]
"""``(Dice of one organ: candidate name -> (cases,), candidates in order of preference) -> (winner, one sentence)``."""


def candidates_for(models: Sequence[str], max_members: int = 2, *, organs: Mapping[str, tuple[str, ...]] | None = None) -> list[Candidate]:
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


def choose(
    scores: Mapping[str, Sequence[Score]],
    candidates: Sequence[Candidate],
    organs: Sequence[str],
    *,
    folds: Sequence[str],
    rule: str = "best_mean_dice",
) -> Choice:
    """Chooses a candidate for each organ among those that cover it; an organ that none covers is named in a warning and left out.

    Only cases that every candidate was validated on are compared. A case in which neither reference nor prediction has the organ
    has no Dice (NaN) and is left out of that candidate's mean; a false alarm there counts as 0. An organ is judged on the cases in which it
    was annotated: those that every candidate has a score of it for. Where there is none, the first candidate is taken, with a warning.

    Args:
        scores: Candidate name -> its scores over the cross-validation.
        candidates: Cheapest first: the order decides ties between candidates with equally many members.
        organs: Names to choose for.
        folds: Folds the scores come from; their models will vote.
        rule: Name in `RULES` or ``module:function``.

    Raises:
        ValueError: No candidate, no case in common, an unknown rule, or a candidate that lacks scores or has two of one case.
    """
    decide: Rule = lookup(RULES, rule, "rule of selection")
    if not candidates:
        raise ValueError("choice of the best model: there is no candidate; train at least one configuration")
    absent = [candidate.name for candidate in candidates if not scores.get(candidate.name)]
    if absent:
        raise ValueError(f"choice of the best model: no validation scores of {', '.join(absent)}")
    values = {candidate.name: _by_organ_and_case(scores[candidate.name], candidate.name) for candidate in candidates}
    validated = {name: {case for _, case in one} for name, one in values.items()}
    cases: set[str] = set()
    incomplete: set[tuple[int, int]] = set()
    ranked = sorted(candidates, key=lambda candidate: len(candidate.members))
    chosen, reasons, table = {}, {}, {name: {} for name in values}
    for organ in organs:
        able = [candidate for candidate in ranked if candidate.covers(organ)]
        if not able:
            continue
        of_able = {one.name: values[one.name] for one in able}
        common, n_any = _common_cases(organ, of_able, validated)
        if len(common) < n_any:
            incomplete.add((len(common), n_any))
        judged = _cases_with(organ, of_able, common)
        if not judged:
            chosen[organ], reasons[organ] = able[0].members, f"{able[0].name}: {organ} was annotated in no validation case to judge it by"
            log.warning("%s; the first model of it is taken.", reasons[organ])
            continue
        cases.update(judged)
        dice = {name: np.array([one[organ, case] for case in judged]) for name, one in of_able.items()}
        for name in dice:
            table[name][organ] = mean_of_known(dice[name])
        winner, reasons[organ] = decide(dice, able)
        chosen[organ] = winner.members
    for counts in sorted(incomplete):
        log.warning("The models are compared on the %d of %d cases that all of them were validated on.", *counts)
    if len(chosen) < len(organs):
        log.warning("No model covers %s: background until one is trained.", ", ".join(organ for organ in organs if organ not in chosen))
    return Choice(chosen, tuple(folds), table, len(cases), reasons, rule)


def best_mean_dice(dice: Mapping[str, np.ndarray], ranked: Sequence[Candidate]) -> tuple[Candidate, str]:
    """The highest mean Dice wins; among equals the one with fewer members, then the one that was given first.

    A candidate without any value (NaN) is right everywhere: no case has the organ, and it predicted none. It beats false alarms.

    Args:
        dice: Candidate name -> ``(cases,)`` Dice of one organ, NaN where absent from both.
        ranked: The candidates, those to prefer among equals first.

    Returns:
        The winner, and a sentence with the numbers and the runner-up.
    """
    means = {candidate.name: mean_of_known(dice[candidate.name]) for candidate in ranked}
    merit = {name: 1.0 if math.isnan(mean) else mean for name, mean in means.items()}
    top = max(merit.values())
    winner = next(candidate for candidate in ranked if top - merit[candidate.name] <= TIE)
    if math.isnan(means[winner.name]):
        return winner, f"{winner.name}: no validation case has this organ, and it predicted none"
    n_cases = int(np.count_nonzero(~np.isnan(dice[winner.name])))
    sentence = f"{winner.name}: mean Dice {means[winner.name]:.4f} over {n_cases} {'case' if n_cases == 1 else 'cases'}"
    others = [candidate for candidate in ranked if candidate is not winner]
    if not others:
        return winner, f"{sentence}; it is the only candidate"
    second = max(others, key=lambda candidate: merit[candidate.name])
    if top - merit[second.name] <= TIE:
        return winner, f"{sentence}; {second.name} is as good, but this one is cheaper"
    return winner, f"{sentence}; next is {second.name} with {means[second.name]:.4f}"


def _by_organ_and_case(scores: Sequence[Score], candidate: str) -> dict[tuple[str, str], float]:
    values: dict[tuple[str, str], float] = {}
    for score in scores:
        if (score.organ, score.case) in values:
            raise ValueError(f"{candidate}: case {score.case} has two scores for {score.organ}; expected each case in one fold only")
        values[score.organ, score.case] = score.dice
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


RULES: dict[str, str | Rule] = {"best_mean_dice": best_mean_dice}
"""How the winner is found."""
