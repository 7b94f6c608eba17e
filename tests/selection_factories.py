"""Validated models on disk whose predictions and scores a test decides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from factories import CASES, make_case, make_job, make_plan

from autoseg.data.descriptions import planned_dataset
from autoseg.data.label_subsets import subset_labels, translate_labels
from autoseg.inference.logits import Logits
from autoseg.inference.quantised_logits import save_logits
from autoseg.runtime.runs import ModelFolder, Run
from autoseg.runtime.serialization import write_json
from autoseg.runtime.workspace import Workspace
from autoseg.schema import Candidate, Geometry, Plan, Score, Trace, candidate_members
from autoseg.selection.cross_validation import CrossValidation
from autoseg.selection.evidence import Comparison

DATASET = "Dataset001_Tiny"


def scores(**organs: Sequence[float]) -> list[Score]:
    """``liver=[.9, .8]`` -> a score for each organ in the cases c0, c1 ..."""
    count = {organ: [0 if math.isnan(value) else 1 for value in values] for organ, values in organs.items()}
    return [
        Score(f"c{i}", organ, dice, dice, count[organ][i], count[organ][i])
        for organ, values in organs.items()
        for i, dice in enumerate(values)
    ]


def comparison(values: Mapping[str, Sequence[float]], **changes: object) -> Comparison:
    """The candidates ``{"2d": [...], "3d": [...], "2d + 3d": [...]}``, the simplest first, on the cases c0, c1 ..."""
    candidates = tuple(Candidate(candidate_members(name)) for name in values)
    arrays = {name: np.array(one, float) for name, one in values.items()}
    return Comparison(candidates, arrays, tuple(f"c{i}" for i in range(len(next(iter(arrays.values()))))), **changes)


def truth(case: str, plan: Plan | None = None) -> np.ndarray:
    """The reference of a case in internal values, of all organs or of a plan's."""
    labels = make_case(CASES.index(case))[1]
    return labels if plan is None else translate_labels(labels, plan.stored_labels, plan.labels)


def plan_of(organ: str) -> Plan:
    """A plan of models that segment one organ only."""
    plan = make_plan()
    return replace(plan, labels=subset_labels(plan.labels, (organ,)), data_labels=plan.labels)


def geometry_of(shape: Sequence[int]) -> Geometry:
    """As of the tiny dataset."""
    return Geometry(tuple(shape), (2.0, 1.0, 1.0), (0.0,) * 3, tuple(np.eye(3).ravel()))


def save_prediction(run: Run, case: str, logits: np.ndarray, plan: Plan, *, shape: Sequence[int] | None = None) -> None:
    """Stores logits of a case that was not cropped; `shape` is the file's where the logits have another grid."""
    grid = logits.shape[1:]
    geometry = geometry_of(grid if shape is None else shape)
    spacing = tuple(s * a / b for s, a, b in zip(geometry.spacing, geometry.shape, grid, strict=True))
    trace = Trace(case, geometry, (0, 1, 2), geometry.shape, tuple((0, n) for n in geometry.shape), grid, spacing)
    save_logits(run.validation, case, Logits(logits.astype(np.float32), trace), plan.labels)


def one_hot(label_map: np.ndarray, plan: Plan, confidence: float = 1.0) -> np.ndarray:
    """Logits of a label map in internal values."""
    return np.stack([(label_map == value) * confidence for value in range(plan.labels.n_outputs)])


def record_run(run: Run, plan: Plan, scores: Sequence[Score] | None = None, **changes: object) -> Run:
    """Writes what a run was started with; with scores it is trained and validated."""
    write_json(run.record_file, replace(make_job(plan), **changes))
    if scores is not None:
        write_json(run.scores_file, list(scores))
        run.checkpoint.touch()
    return run


def add_model(home: Path, model: str, plan: Plan, *, quality: int = 0, fold: str = "0", cases: str = "ab") -> Run:
    """A model that is right everywhere, whatever its scores say, and the surer the higher its quality."""
    run = ModelFolder(Workspace(home).results(DATASET) / model).run(fold)
    for case in cases:
        save_prediction(run, case, one_hot(truth(case, plan), plan, 1 + quality), plan)
    return record_run(run, plan, [Score(case, organ, 0.5 + 0.1 * quality, 0.4, 10, 10) for case in cases for organ in plan.labels.names])


def cross_validation_of(home: Path, folds: dict[str, str], **changes: object) -> CrossValidation:
    """The cases of some folds, ``{"0": "ab"}``, of the planned dataset."""
    workspace = Workspace(home)
    cases = {case.name: case for case in planned_dataset(workspace, 1).cases}
    of_folds = {fold: tuple(cases[name] for name in names) for fold, names in folds.items()}
    return CrossValidation(workspace.results(DATASET), make_plan(), of_folds, **changes)
