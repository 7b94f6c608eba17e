"""What becomes of the organs when the label maps of different candidates are made one: conflicts counted, and the scores after it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..evaluation.case_scores import score_case
from ..evaluation.counts import nan_mean
from ..evaluation.metrics import value_of
from ..inference.apply_selection import apply_selection
from ..schema import Case, Choice, OrganMerging, Score
from .candidate_scores import SelectionTask, file_voxels, memory_for, run_all
from .held_out import HeldOut, check_same_grid, reference_of

log = logging.getLogger(__name__)


def merged_choice(task: SelectionTask, choice: Choice, scores: Mapping[str, Sequence[Score]]) -> Choice:
    """The choice with what merging does to its organs on the cross-validation; unchanged where they come from one candidate, or overlap.

    Cases in which a member's probabilities are gone are left out. Post-processing comes after merging and is not a part of this.

    Args:
        task: By what candidates were judged.
        choice: Already calibrated, since the more confident organ wins a voxel.
        scores: Candidate name to its scores over the cross-validation.

    Raises:
        ValueError: A case cannot be merged, as its files are damaged or do not belong together.
    """
    candidates = set(choice.organs.values())
    if len(candidates) < 2 or task.plan.labels.regions:
        return choice
    held_out = HeldOut(task.results, task.plan, replace(choice, postprocessing={}))
    todo = [(fold, case) for fold, some in task.cases.items() if fold != "all" for case in some]
    jobs = {f"fold {fold}, {case.name}": (task, held_out, fold, case) for fold, case in todo}
    voxels = sum(file_voxels(task, fold, case) for fold, case in todo) * len(candidates)
    found = run_all(merge_case, jobs, what="Merging organs", voxels=voxels, memory=memory_for(task, todo))
    known = [outcome for outcome in found.values() if outcome is not None]
    if not known:
        return choice
    conflicts = [n for _, n in known]
    after = {(score.case, score.organ): value_of(score, task.metric) for some, _ in known for score in some}
    before = {(score.case, organ): value_of(score, task.metric) for organ, score in _own(choice, scores) if (score.case, organ) in after}
    pairs = {organ: [key for key in before if key[1] == organ] for organ in choice.organs}
    means = [{organ: nan_mean(of[key] for key in keys) for organ, keys in pairs.items() if keys} for of in (before, after)]
    merged = OrganMerging(float(np.mean(conflicts)), max(conflicts), len(known), *means)
    log.info("Organs of %d candidates in one map: %.0f voxels a case are claimed by two.", len(candidates), merged.conflicts)
    return replace(choice, merged=merged)


def merge_case(task: SelectionTask, held_out: HeldOut, fold: str, case: Case) -> tuple[list[Score], int] | None:
    """Scores of a case's merged map and the voxels that two organs claimed; None where a member's probabilities are gone."""
    predictions = held_out.kept(fold, case.name)
    if any(name not in predictions for name in held_out.own):
        return None
    found, conflicts = apply_selection(predictions, held_out.choice, held_out.own, task.plan.labels)
    reference, spacing = reference_of(case, task.plan.labels)
    check_same_grid(case, found, reference)
    how = {"metrics": task.metrics, "organs": case.annotated, "spacing_mm": spacing, "tolerance_mm": task.tolerances}
    return score_case(case.name, found, reference, task.plan.labels, **how), conflicts


def _own(choice: Choice, scores: Mapping[str, Sequence[Score]]) -> list[tuple[str, Score]]:
    """Every chosen organ with the scores of its candidate before merging."""
    chosen = {organ: " + ".join(members) for organ, members in choice.organs.items()}
    return [(organ, score) for organ, name in chosen.items() for score in scores.get(name, ()) if score.organ == organ]
