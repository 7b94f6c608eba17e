"""A trial: a trained network scored on some held-out patients, quickly, to compare it with others before more time is spent on it.

Each patient gives one case, whole, without mirroring. All models of a fold are scored on the same patients, in the same order; one whose
prediction takes long is scored on the first of them only. Nothing of it counts in the choice, and the run is not finished by it.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from torch import nn
from tqdm import tqdm

from ..inference.volume_predictor import VolumePredictor
from ..preprocessing.storage import Store
from ..runtime.case_contents import checkpoint_id
from ..runtime.failures import failure_of
from ..runtime.runs import Run
from ..runtime.serialization import read_json, write_json
from ..schema import Case, Dataset, Mirroring, Score
from .held_out_prediction import predict_held_out
from .validation_plan import as_validated

if TYPE_CHECKING:
    from .trainer import Trainer

log = logging.getLogger(__name__)

TRIAL = "trial.json"

TIME_SHARE = 0.25
"""Of the training time so far that a trial may take; what it could not score by then is left out, but for the first patients."""

LEAST_PATIENTS = 2

ORDER_SEED = 1729
"""Of the order of patients, which is the same for all models."""


@dataclass(frozen=True)
class Trial:
    """Scores of a trained network on some held-out cases, one a patient.

    Attributes:
        network: `checkpoint_id` of the network.
        trained_seconds: Training time that it had.
        patients: Number of patients that was asked for.
        patient_of: Case that was scored to its patient.
        prediction_seconds: Case to seconds of its prediction, without mirroring.
        case_seconds: Case to seconds of all, with reading, the way back to the file's grid, and scoring.
        mirrors: Number of predictions that a validation with mirroring averages.
    """

    network: str
    trained_seconds: float
    patients: int
    scores: list[Score]
    patient_of: dict[str, str] = field(default_factory=dict)
    prediction_seconds: dict[str, float] = field(default_factory=dict)
    case_seconds: dict[str, float] = field(default_factory=dict)
    mirrors: int = 1


def read_trial(run: Run) -> Trial | None:
    """The trial of a run's present network; None where there is none."""
    path = run.folder / TRIAL
    trial = read_json(path, Trial) if path.is_file() else None
    return trial if trial is not None and run.is_trained and trial.network == checkpoint_id(run.checkpoint) else None


def trial_cases(names: Sequence[str], dataset: Dataset) -> list[Case]:
    """One case of each patient among `names`, in an order that is drawn once and for all."""
    cases = {case.name: case for case in dataset.cases}
    of_patient: dict[str, list[str]] = {}
    for name in sorted(set(names) & set(cases)):
        of_patient.setdefault(cases[name].group or name, []).append(name)
    rng = np.random.default_rng(ORDER_SEED)
    found = [cases[str(rng.choice(of_patient[patient]))] for patient in sorted(of_patient)]
    return [found[place] for place in rng.permutation(len(found))]


def score_trial(trainer: Trainer, network: nn.Module, dataset: Dataset, *, patients: int) -> list[Score]:
    """Scores the trained `network` on up to so many held-out patients, and writes ``trial.json``; does nothing where that was done.

    Raises:
        ValueError: `patients` is less than one.
        RuntimeError: Not one of the cases could be scored.
    """
    if patients < 1:
        raise ValueError(f"--trial: expected at least 1 patient, got {patients}")
    job, folders, run = trainer.job, trainer.folders, Run(trainer.folders.run)
    known = read_trial(run)
    if known is not None and known.patients == patients:
        return known.scores
    store, started = Store(folders.data), time.monotonic()
    cases = [
        case
        for case in trial_cases(job.split.val or job.split.train, dataset)
        if store.has(case.name) and folders.has_previous_of(case.name)
    ]
    quick = _without_mirroring(trainer).predictor(network)
    trial = Trial(
        checkpoint_id(run.checkpoint),
        trainer.seconds or job.budget.amount,
        patients,
        [],
        mirrors=2 ** len(as_validated(job).mirroring.axes),
    )
    failures: dict[str, str] = {}
    for case in tqdm(
        cases[:patients], desc=f"Trial of {job.configuration.name} fold {job.fold}", unit="case", disable=not trainer.progress
    ):
        if len(trial.patient_of) >= LEAST_PATIENTS and time.monotonic() - started > TIME_SHARE * job.budget.amount:
            break
        with failure_of(case.name, failures, "could not be scored"):
            trial = _with_case(trial, case, quick, trainer)
    if not trial.scores:
        raise RuntimeError(
            f"{run.folder}: not one held-out case could be scored; the first reason: {next(iter(failures.values()), 'there is none')}"
        )
    write_json(run.folder / TRIAL, trial)
    return trial.scores


def _without_mirroring(trainer: Trainer) -> Trainer:
    quick = copy.copy(trainer)
    quick.job = replace(trainer.job, configuration=replace(as_validated(trainer.job), mirroring=Mirroring()))
    return quick


def _with_case(trial: Trial, case: Case, predictor: VolumePredictor, trainer: Trainer) -> Trial:
    """The trial with the scores of one case more."""
    started = time.perf_counter()
    found = predict_held_out(case, predictor, trainer.job, trainer.folders)
    return replace(
        trial,
        scores=[*trial.scores, *found.scores],
        patient_of={**trial.patient_of, case.name: case.group or case.name},
        prediction_seconds={**trial.prediction_seconds, case.name: round(found.seconds, 3)},
        case_seconds={**trial.case_seconds, case.name: round(time.perf_counter() - started, 3)},
    )
