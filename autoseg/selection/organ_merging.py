"""The effect of merging organs of different candidates into one label map: voxels that two organs claim, and the scores after it.

Where a model alone makes a better map than all organs' candidates together, the choice falls on it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from ..evaluation.counts import nan_mean
from ..evaluation.metrics import higher_is_better_score, value_of
from ..schema import Candidate, Choice, OrganMerging, Score, candidate_name
from .rules import TIE

log = logging.getLogger(__name__)


def summarise_merging(
    choice: Choice, cases: Sequence[tuple[list[Score], int]], scores: Mapping[str, Sequence[Score]]
) -> OrganMerging | None:
    """Compares the scores of merged maps with those of each organ's own candidate, over the same cases.

    Args:
        cases: Scores of each merged map before post-processing, and its voxels that two organs claimed.
        scores: Candidate name to its scores over the cross-validation.
    """
    if not cases:
        return None
    after = {(score.case, score.organ): value_of(score, choice.metric) for of_case, _ in cases for score in of_case}
    before = {
        (score.case, organ): value_of(score, choice.metric)
        for organ, members in choice.organs.items()
        for score in scores.get(candidate_name(members), ())
        if score.organ == organ and (score.case, organ) in after
    }
    keys = {organ: [key for key in before if key[1] == organ] for organ in choice.organs}
    alone, together = ({organ: nan_mean(of[key] for key in some) for organ, some in keys.items() if some} for of in (before, after))
    conflicts = [claimed for _, claimed in cases]
    merging = OrganMerging(float(np.mean(conflicts)), max(conflicts), len(cases), alone, together)
    n_candidates = len(set(choice.organs.values()))
    log.info("Organs of %d candidates in one map: %.0f voxels a case are claimed by two.", n_candidates, merging.conflicts)
    return merging


def better_alone(choice: Choice, candidates: Sequence[Candidate]) -> tuple[Candidate, str] | None:
    """The best model whose own map of all organs is better than that of several candidates, and why it is taken for all of them.

    Each organ's candidate was chosen by its own mask; what two organs claim goes to one of them, and small organs beside large ones may
    lose more than all have gained. By the mean over organs of their mean scores; averages of models are not asked, since by themselves
    they had no support.

    Args:
        candidates: Those that were compared.

    Returns:
        None where the merged map is at least as good, or was not made of all the cases by which the models are known.
    """
    merged = choice.merged
    if merged is None or merged.cases != choice.cases:
        return None

    def mean_of(scores: Mapping[str, float]) -> float:
        return nan_mean(higher_is_better_score(scores[organ], choice.metric) for organ in merged.together)

    table = {one.name: choice.table.get(one.name, {}) for one in candidates}
    able = [one for one in candidates if len(one.members) == 1 and set(merged.together) == set(choice.organs) <= set(table[one.name])]
    if not able:
        return None
    best = max(able, key=lambda one: mean_of(table[one.name]))
    of_best, of_merged = mean_of(table[best.name]), mean_of(merged.together)
    if not of_best > of_merged + TIE:
        return None
    means = " and ".join(f"{abs(value):.4f}" for value in (of_best, of_merged))
    return best, f"{best.name} for all organs: its map, and one of each organ's own choice, have means over organs of {means}"
