"""The cheapest models and the cheapest way of predicting whose Dice on held-out cases is within a hundredth of the best (``--fast``)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace

from ..evaluation.metrics import higher_is_better_score
from ..schema import Choice, candidate_members, candidate_name
from ..schema.cheaper_prediction import LARGER_STEPS, WAYS, DiceLoss

MOST_LOST = 0.01
"""Dice, of an organ by another candidate and of a model by another way, that is given for speed ..."""
MOST_LOST_ORGAN = 0.03
"""... and of each organ by another way: of many organs a small one may be lost without the mean showing it."""


def fast_choice(choice: Choice, trained: Collection[str]) -> Choice:
    """The choice with the cheapest candidates in place of the best, and one network of each model.

    A candidate may stand in for the chosen one of an organ where its mean on the same held-out cases lies inside the chosen one's 95 %
    interval, or is better, and its Dice is lower by at most `MOST_LOST`. Of two ways the one of fewer seconds is taken: a single candidate
    for all organs, or the cheapest for each.

    Args:
        choice: Of the best models.
        trained: Names of the models that are there.
    """
    able = {organ: _stand_ins(choice, organ, trained) for organ in choice.organs}
    cheapest = {organ: min(names, key=lambda name: choice.seconds.get(name, math.inf)) for organ, names in able.items()}
    shared = set.intersection(*map(set, able.values())) if able else set()
    if shared:
        one = min(sorted(shared), key=lambda name: choice.seconds.get(name, math.inf))
        if choice.seconds.get(one, math.inf) <= sum(choice.seconds.get(name, math.inf) for name in set(cheapest.values())):
            cheapest = dict.fromkeys(cheapest, one)
    organs = {organ: candidate_members(name) for organ, name in cheapest.items()}
    members = dict.fromkeys(name for some in organs.values() for name in some)
    folds = {name: (choice.member_folds.get(name) or choice.folds)[:1] for name in members}
    return replace(choice, organs=organs, member_folds=folds)


def _stand_ins(choice: Choice, organ: str, trained: Collection[str]) -> list[str]:
    """Names of the candidates that may segment an organ, the chosen one first."""
    chosen, evidence = candidate_name(choice.organs[organ]), choice.evidence.get(organ)
    if evidence is None or chosen not in evidence.compared or chosen not in choice.seconds:
        return [chosen]
    best = evidence.compared[chosen]
    worst_end = min(higher_is_better_score(end, choice.metric) for end in (best.low, best.high))
    found = [chosen]
    for name, one in evidence.compared.items():
        inside = higher_is_better_score(one.mean, choice.metric) >= worst_end
        lost = candidate_loss(choice, organ, name)
        if name != chosen and inside and lost <= MOST_LOST and name in choice.seconds and set(candidate_members(name)) <= set(trained):
            found.append(name)
    return found


def candidate_loss(choice: Choice, organ: str, name: str) -> float:
    """Dice that an organ loses by another candidate than the best one, in the mean over held-out cases; NaN where that is not known."""
    best = choice.evidence[organ].candidate if organ in choice.evidence else name
    means = [choice.table.get(one, {}).get(organ, math.nan) for one in (best, name)]
    return 0.0 if name == best else means[0] - means[1]


def fast_way(known: Mapping[str, DiceLoss]) -> str | None:
    """The cheapest way by which a model loses at most `MOST_LOST`, and no organ more than `MOST_LOST_ORGAN`.

    Larger steps where nobody measured any; None where each loses more.
    """
    if not known:
        return LARGER_STEPS
    return next((way for way in reversed(WAYS) if way in known and _is_little(known[way])), None)


def _is_little(loss: DiceLoss) -> bool:
    organs = [value for value in loss.organs.values() if not math.isnan(value)]
    return loss.mean <= MOST_LOST and max(organs, default=0.0) <= MOST_LOST_ORGAN
