"""The effect of merging organs of different candidates into one label map: voxels that two organs claim, and the scores after it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from ..evaluation.counts import nan_mean
from ..evaluation.metrics import value_of
from ..schema import Choice, OrganMerging, Score, candidate_name

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
