"""Scores of every candidate over the cross-validation: of single models as they were stored, of averages from the kept probabilities.

What has to be computed is kept in ``results/<dataset>/candidates/<metric>/fold_<k>/<case>.json`` together with the content ids of the
files that it was made from: a second choice, by another rule or with one model more, computes only what is new. The validation folders of
finished runs are never written to.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..data.images import read_label
from ..data.label_subsets import safe_file_name, subset_labels, translate_labels
from ..data.labels import to_internal_values
from ..evaluation.case_scores import score_case
from ..evaluation.counts import confusion, dice, iou, organ_counts
from ..evaluation.masks import TOLERANCE_MM
from ..evaluation.metrics import find_metric, has_value, metric_function
from ..inference.averages import Averages, average_all
from ..inference.quantised_logits import load_logits
from ..preprocessing.orientation import reorient
from ..runtime.migrate.artefacts import state_of_0_1_0_fits
from ..runtime.provenance import label_id, recorded_ids
from ..runtime.runs import ModelFolder
from ..runtime.serialization import read_json, write_json
from ..runtime.worker_pool import run_cases
from ..schema import Candidate, Case, Labels, Plan, Score
from .stored_scores import stored_scores, validation_folder

log = logging.getLogger(__name__)

FOLDER = "candidates"

MANY = 200_000_000
"""Voxels of models' predictions to go through, all cases and models together, from which starting further processes pays."""

BASE_BYTES, BYTES_A_VOXEL = 450 * 2**20, 20
"""Peak memory of a process, and for each voxel of a case's label map: as measured with ten models; more models hold little more."""


@dataclass(frozen=True)
class SelectionTask:
    """What candidates are judged by.

    Attributes:
        results: ``results/<dataset>``.
        plan: Of the dataset.
        cases: Fold to its cases.
        metric: Name of the metric.
        tolerances: Organ to the tolerance in mm; others have `TOLERANCE_MM`.
    """

    results: Path
    plan: Plan
    cases: Mapping[str, Sequence[Case]]
    metric: str = "dice"
    tolerances: Mapping[str, float] = field(default_factory=dict)

    @property
    def metrics(self) -> tuple[str, ...]:
        """What has to be computed beside Dice and IoU."""
        return () if self.metric in ("dice", "iou") else (self.metric,)


@dataclass(frozen=True)
class Record:
    """Content of a case's file: `made_from` says from which contents, `scores` has what was computed from them.

    Attributes:
        made_from: Model (empty: the label map, its organs and the tolerances) to the content ids of its files.
        scores: Candidate name to its scores.
    """

    made_from: dict[str, str] = field(default_factory=dict)
    scores: dict[str, list[Score]] = field(default_factory=dict)


def scores_of_models(task: SelectionTask, models: Sequence[str]) -> dict[str, list[Score]]:
    """Scores of single models; where the stored ones lack the metric (older runs), it is computed from the stored label maps.

    Raises:
        ValueError: A label map that is needed is not there any more.
    """
    found: dict[str, list[Score]] = {name: [] for name in models}
    lacking: list[Candidate] = []
    for name in models:
        for fold, some in task.cases.items():
            wanted = {case.name for case in some}
            found[name] += [score for score in stored_scores(task.results, name, fold) if score.case in wanted]
        if not all(has_value(score, task.metric) for score in found[name]):
            lacking.append(Candidate((name,)))
    if lacking:
        log.info("Computing %s of %s from the stored label maps.", task.metric, ", ".join(one.name for one in lacking))
        computed = _scores(task, lacking, "Scoring models")
        judged = {name: {(score.case, score.organ) for score in some} for name, some in found.items()}
        found |= {name: [score for score in some if (score.case, score.organ) in judged[name]] for name, some in computed.items()}
    return found


def scores_of_averages(task: SelectionTask, averages: Sequence[Candidate]) -> dict[str, list[Score]]:
    """Scores of averages; each model's probabilities of a case are read once for all of them.

    Raises:
        ValueError: A case cannot be scored, as its files are damaged or do not belong together.
    """
    return _scores(task, averages, "Averaging models") if averages else {}


def _scores(task: SelectionTask, candidates: Sequence[Candidate], what: str) -> dict[str, list[Score]]:
    jobs, found, voxels = {}, {candidate.name: [] for candidate in candidates}, 0
    parts: dict[str, Record] = {}
    ids = _ids(task, candidates)
    for fold, some in task.cases.items():
        for case in some:
            name, state = f"fold {fold}, {case.name}", _state(task, candidates, fold, case, ids)
            known = _known(_record_path(task, fold, case), state)
            missing = [candidate for candidate in candidates if candidate.name not in known.scores]
            if missing:
                jobs[name] = (task, fold, case, missing, Record(state, known.scores))
                voxels += _size(task, fold, case, missing)
            parts[name] = known
    memory = memory_for(task, [(fold, case) for _, fold, case, *_ in jobs.values()])
    computed = run_all(score_candidates, jobs, what=what, voxels=voxels, memory=memory)
    for name, record in parts.items():
        for candidate, scores in found.items():
            scores += record.scores.get(candidate) or computed.get(name, {}).get(candidate, [])
    return found


def run_all(function: Callable[..., Any], jobs: Mapping[str, tuple[Any, ...]], *, what: str, voxels: int, memory: int) -> dict[str, Any]:
    """`workers.run_cases` for work that is worth nothing unless every case succeeds; in this process where there is little to do.

    Args:
        function: As there.
        jobs: As there.
        what: Title of the progress bar and of the error.
        voxels: That all jobs go through together.
        memory: Bytes to plan for in a process.

    Raises:
        ValueError: A case failed; the message names the first that did.
    """
    found, failures = run_cases(function, jobs, workers=None if voxels > MANY else 0, title=what, memory_per_job=memory)
    if failures:
        name, reason = next(iter(failures.items()))
        raise ValueError(f"{what}: {len(failures)} of {len(jobs)} cases failed; the first: {name}: {reason}")
    return found


def score_candidates(task: SelectionTask, fold: str, case: Case, candidates: Sequence[Candidate], record: Record) -> dict[str, list[Score]]:
    """Scores candidates on a case and adds them to its file; runs in a process of its own where there is much to do."""
    image = read_label(case.label)
    reference = to_internal_values(image.array, task.plan.labels, source=str(case.label))
    found: dict[str, list[Score]] = {}
    groups: dict[tuple[str, ...], list[Candidate]] = {}
    for candidate in candidates:
        if len(candidate.members) == 1:
            found[candidate.name] = _score_stored(task, fold, case, candidate.name, reference)
        else:
            groups.setdefault(candidate.organs or task.plan.labels.names, []).append(candidate)
    for organs, some in groups.items():
        labels = subset_labels(task.plan.labels, organs)
        found |= _score_averages(task, fold, case, some, (translate_labels(reference, task.plan.labels, labels), labels))
    write_json(_record_path(task, fold, case), Record(record.made_from, {**record.scores, **found}))
    return found


def _score_stored(task: SelectionTask, fold: str, case: Case, model: str, reference: np.ndarray) -> list[Score]:
    path = validation_folder(task.results, model, fold) / f"{case.name}{task.plan.file_ending}"
    if not path.is_file():
        raise ValueError(f"{path}: missing, and {task.metric} is not among the stored scores; choose by dice, or validate this fold again")
    labels = ModelFolder(task.results / model).labels(task.plan.labels)
    image = read_label(path)
    prediction = to_internal_values(image.array, labels, source=str(path))
    return score_case(
        case.name,
        prediction,
        translate_labels(reference, task.plan.labels, labels),
        labels,
        metrics=task.metrics,
        organs=case.annotated,
        spacing_mm=image.geometry.spacing,
        tolerance_mm=task.tolerances,
    )


def _score_averages(
    task: SelectionTask, fold: str, case: Case, averages: Sequence[Candidate], truth: tuple[np.ndarray, Labels]
) -> dict[str, list[Score]]:
    reference, labels = truth
    members = dict.fromkeys(name for candidate in averages for name in candidate.members)
    models = {name: load_logits(validation_folder(task.results, name, fold), case.name) for name in members}
    together = average_all(models, [candidate.members for candidate in averages], labels)
    trace = next(iter(models.values())).trace
    reference = np.ascontiguousarray(reorient(reference[None], trace.transpose, trace.flips)[0])
    if reference.shape != together.agreed.shape:
        raise ValueError(f"case {case.name}: {case.label}: expected shape {trace.geometry.shape}, as in validation, found another one")
    if find_metric(task.metric).needs == "overlap":
        return _from_counts(task, case, averages, together, (reference, labels))
    dim = trace.geometry.dim
    spacing = [trace.geometry.spacing[axis] for axis in trace.transpose]
    flat = reference.reshape(reference.shape[-dim:])
    how = {"metrics": task.metrics, "organs": case.annotated, "spacing_mm": spacing, "tolerance_mm": task.tolerances}
    return {
        candidate.name: score_case(case.name, together.label_map(candidate.members).reshape(flat.shape), flat, labels, **how)
        for candidate in averages
    }


def _from_counts(
    task: SelectionTask, case: Case, averages: Sequence[Candidate], together: Averages, truth: tuple[np.ndarray, Labels]
) -> dict[str, list[Score]]:
    """Scores that need only counts: what all averages have in common is counted once, the rest at the disputed voxels."""
    reference, labels = truth
    ignore = labels.internal_ignore
    n_values = max(len(labels.base_values), ignore or 0) + 1
    disputed = reference.reshape(-1)[together.disputed]
    common = confusion(together.agreed, reference, n_values, ignore=ignore)
    common -= confusion(np.zeros_like(disputed), disputed, n_values, ignore=ignore)
    function = metric_function(find_metric(task.metric))
    found: dict[str, list[Score]] = {}
    for candidate in averages:
        counts = common + confusion(together.disputed_labels[candidate.members], disputed, n_values, ignore=ignore)
        scores = []
        for organ, members in zip(labels.names, labels.internal_members, strict=True):
            if case.annotated is None or organ in case.annotated:
                overlap = organ_counts(counts, members)
                other = {name: float(function(overlap)) for name in task.metrics}
                scores.append(Score(case.name, organ, dice(overlap), iou(overlap), overlap.n_prediction, overlap.n_reference, other))
        found[candidate.name] = scores
    return found


def _record_path(task: SelectionTask, fold: str, case: Case) -> Path:
    return task.results / FOLDER / safe_file_name(task.metric) / f"fold_{fold}" / f"{case.name}.json"


def _known(path: Path, state: Mapping[str, str]) -> Record:
    """What was computed before from the same contents."""
    if not path.is_file():
        return Record()
    record = read_json(path, Record)
    same = {name for name, made_from in record.made_from.items() if name in state and _is_same(made_from, state[name])}
    if "" not in same:
        return Record()
    return Record(record.made_from, {name: scores for name, scores in record.scores.items() if set(name.split(" + ")) <= same})


def _is_same(made_from: str, state: str) -> bool:
    return made_from == state or state_of_0_1_0_fits(made_from, state)


def _state(task: SelectionTask, candidates: Sequence[Candidate], fold: str, case: Case, ids: Mapping[Path, str]) -> dict[str, str]:
    """Model (empty: the label) to what identifies the contents that its scores are made from."""
    tolerances = " ".join(f"{organ}={task.tolerances.get(organ, TOLERANCE_MM)}" for organ in task.plan.labels.names)
    state = {"": f"{label_id(case)} {'all' if case.annotated is None else ' '.join(case.annotated)} {tolerances}"}
    for name in _members(candidates):
        state[name] = " ".join(ids.get(path, "-") for path in _files(task, name, fold, case))
    return state


def _ids(task: SelectionTask, candidates: Sequence[Candidate]) -> dict[Path, str]:
    """Content ids of all predictions that candidates are scored from, as far as they are there."""
    cases = [(fold, case) for fold, some in task.cases.items() for case in some]
    files = [path for name in _members(candidates) for fold, case in cases for path in _files(task, name, fold, case) if path.is_file()]
    return recorded_ids(files, what="Identifying predictions")


def _members(candidates: Sequence[Candidate]) -> list[str]:
    return list(dict.fromkeys(name for candidate in candidates for name in candidate.members))


def _files(task: SelectionTask, model: str, fold: str, case: Case) -> tuple[Path, Path]:
    """What a model left of a case in validation: its probabilities and its label map."""
    folder = validation_folder(task.results, model, fold)
    return folder / f"{case.name}.b2nd", folder / f"{case.name}{task.plan.file_ending}"


def _size(task: SelectionTask, fold: str, case: Case, candidates: Sequence[Candidate]) -> int:
    """Voxels that a case has in all predictions that are looked at."""
    models = {name for candidate in candidates for name in candidate.members}
    return len(models) * file_voxels(task, fold, case)


def memory_for(task: SelectionTask, cases: Sequence[tuple[str, Case]]) -> int:
    """Bytes to plan for in a process that works on the largest of some cases, given with their folds."""
    return BASE_BYTES + BYTES_A_VOXEL * max((file_voxels(task, fold, case) for fold, case in cases), default=0)


def file_voxels(task: SelectionTask, fold: str, case: Case) -> int:
    """Voxels of a case's label map, from any trace that was kept of it; 0 where none was."""
    paths = task.results.glob(f"*/fold_{fold}/validation/{case.name}.trace.json")
    path = next(iter(paths), None)
    return int(np.prod(read_json(path, dict)["shape_before_crop"])) if path else 0
