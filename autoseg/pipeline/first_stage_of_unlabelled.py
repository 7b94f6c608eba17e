"""What a cascade's first stage finds in images without label maps, on the grid of its second stage, which learns their pseudo-labels."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..data.images import read_case_image
from ..data.label_subsets import translate_labels
from ..inference.cascade import on_grid
from ..inference.ensemble import Ensemble
from ..inference.manifest import models_key
from ..preprocessing.pseudo_labelled_cases import UNLABELLED, unlabelled_folder
from ..preprocessing.storage import Store, write_array
from ..runtime.failures import failure_of
from ..runtime.hardware import choose_device, release_memory
from ..runtime.locks import exclusive_lock, remove_partial_files
from ..runtime.provenance import Stamp, forget, is_current, record, value_id
from ..runtime.runs import ALL, ModelFolder, Run
from ..runtime.workspace import Workspace
from ..schema import Case, Choice
from ..schema.settings import PredictSettings, TrainSettings
from ..trainers.training_spec import TrainingSpec
from .chosen_models import chosen_ensemble
from .model_source import source_of_dataset

log = logging.getLogger(__name__)


def first_stage_folder(workspace: Workspace, spec: TrainingSpec, run: Run, model: str | None) -> Path | None:
    """Where what the first stage finds in these images lies, in its model folder; None where the run has none."""
    if model is None:
        return None
    stage = ModelFolder(run.model.folder.parent / model)
    images = unlabelled_folder(workspace, spec.plan.dataset, spec.configuration)
    return stage.folder / f"{UNLABELLED}_on_{images.name}" / f"fold_{_fold(stage, run)}"


def predict_first_stage(workspace: Workspace, spec: TrainingSpec, run: Run, cases: Sequence[Case], settings: TrainSettings) -> list[Case]:
    """Predicts these images by one network of the first stage, where the configuration is a second one, as its training cases were.

    It is that of the run's fold, which has not seen its held-out cases either; of a run on all cases that of the first fold.

    Returns:
        The cases of which there is a prediction; all of them where there is no first stage.
    """
    if spec.configuration.previous_stage is None:
        return list(cases)
    stage = spec.model(run.model.folder.parent, settings.trainer, spec.configuration.previous_stage)
    out = first_stage_folder(workspace, spec, run, stage.name)
    if out is None:
        raise ValueError(f"{run.folder}: expected a first stage, found none")
    choice = Choice(dict.fromkeys(stage.labels(spec.plan.labels).names, (stage.name,)), (_fold(stage, run),), {}, 0)
    ensemble = chosen_ensemble(source_of_dataset(workspace, spec.plan.dataset), choice, PredictSettings(device=settings.device))
    key = models_key(choice, ensemble.models, ensemble.labels)
    store, failures = Store(unlabelled_folder(workspace, spec.plan.dataset, spec.configuration)), dict[str, str]()
    with exclusive_lock(out, "predicting by the first stage", wait=True):
        remove_partial_files(out)
        stamps = {
            case.name: Stamp({"case": store.content_id(case.name)}, {"models": key, "labels": value_id(spec.plan.labels)}) for case in cases
        }
        waiting = [case for case in cases if not is_current(out / f"{case.name}.b2nd", stamps[case.name])]
        for case in tqdm(waiting, desc=f"{stage.name}: images without label maps", unit="case", disable=not waiting):
            with failure_of(case.name, failures, "is left out of the pseudo-labels"):
                _predict(spec, case, ensemble, store, out / f"{case.name}.b2nd")
                record(out / f"{case.name}.b2nd", stamps[case.name])
    del ensemble
    release_memory(choose_device(settings.device))
    return [case for case in cases if case.name not in failures]


def _fold(stage: ModelFolder, run: Run) -> str:
    """The fold whose network predicts."""
    if run.fold != ALL:
        return run.fold
    return next(fold for fold in stage.trained_folds() if fold != ALL)


def _predict(spec: TrainingSpec, case: Case, ensemble: Ensemble, store: Store, target: Path) -> None:
    forget(target)
    found = ensemble.segment(ensemble.logits(read_case_image(case), case=case.name))
    found = translate_labels(found, ensemble.labels, spec.plan.labels)
    largest = len(spec.plan.labels.base_values) + 1
    write_array(target, on_grid(found, store.load(case.name).trace)[None].astype(np.min_scalar_type(largest)))
