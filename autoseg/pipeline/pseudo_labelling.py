"""Pseudo-labels: the chosen models' predictions of images without label maps, which a training learns from by how sure they are.

Held-out cases stay unseen: a fold learns from the predictions of networks of that fold alone, which were not trained on its held-out cases
either, and never from images of their patients. So its validation is as honest as without pseudo-labels.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..data.descriptions import check_leave
from ..data.images import read_case_image
from ..inference.ensemble import Ensemble
from ..inference.label_confidence import label_confidence
from ..inference.manifest import models_key
from ..preprocessing.planned_cases import preprocess_unlabelled
from ..preprocessing.preprocess import SEED, class_locations, preprocess_case, recipe_of
from ..preprocessing.pseudo_labelled_cases import is_stored, pseudo_label_folder, to_grid, unlabelled_folder, write_pseudo_labels
from ..preprocessing.storage import Store, StoredRecord
from ..runtime.commands import train_command
from ..runtime.failures import failure_of
from ..runtime.hardware import choose_device, release_memory
from ..runtime.locks import exclusive_lock
from ..runtime.provenance import Stamp, case_ids, case_inputs, reading_setting, value_id
from ..runtime.registry import lookup
from ..runtime.runs import ALL, ModelFolder, Run, model_folders
from ..runtime.sealing import is_edited
from ..runtime.workspace import Workspace
from ..schema import Case, Choice, Dataset, PseudoLabels
from ..schema.settings import PredictSettings, TrainSettings
from ..selection.stored_scores import taught_models
from ..trainers import TRAINERS
from ..trainers.losses import check_takes_weights
from ..trainers.run_options import RunFolders, default_options
from ..trainers.run_setup import budget_of, split_of
from ..trainers.training_spec import TrainingSpec
from .choosing import choose_without
from .chosen_models import chosen_ensemble, models_chosen
from .first_stage_of_unlabelled import predict_first_stage
from .model_source import source_of_dataset

log = logging.getLogger(__name__)


def check_pseudo_labels(dataset: Dataset, spec: TrainingSpec, settings: TrainSettings) -> None:
    """Refuses (ValueError) to learn from pseudo-labels where there are no images for them, or trainer or loss cannot."""
    if not settings.pseudo_labels:
        return
    if not dataset.unlabelled:
        raise ValueError(
            f"{dataset.name}: --pseudo-labels: expected images without label maps, found none in the plan; put them into"
            f" {dataset.folder / 'imagesUn'}, named as those in imagesTr, and run autoseg_plan_and_preprocess -d {dataset.name}"
        )
    trainer = lookup(TRAINERS, settings.trainer, "trainer")
    if not trainer.learns_pseudo_labels:
        known = ", ".join(name for name in TRAINERS if lookup(TRAINERS, name, "trainer").learns_pseudo_labels)
        raise ValueError(
            f"--pseudo-labels: expected a trainer that counts some voxels more than others ({known}), found {settings.trainer}"
        )
    suited = default_options(budget_of(settings), "cpu", batch=1, changes=settings.changed_options, suited=trainer.suited_options)
    check_takes_weights(suited.loss, spec.plan.labels)


def pseudo_labels_of(workspace: Workspace, dataset: Dataset, spec: TrainingSpec, run: Run, settings: TrainSettings) -> PseudoLabels | None:
    """Makes what is missing of the pseudo-labels that a run learns from; None where it learns from none.

    A run that was started goes on with the models and images that it began with, and the folds of one model have the same models
    as teachers, each with its own fold's networks.

    Raises:
        ValueError: There is no model with this fold, not one image could be predicted, or a run that was started cannot have its
            pseudo-labels again since models or images were changed.
    """
    recorded = run.record().pseudo_labels if run.is_started else None
    if recorded is None and (run.is_started or not settings.pseudo_labels):
        return None
    check_leave(dataset, workspace.home)
    cases = _cases_of(workspace, dataset, run, recorded)
    teachers = recorded.choice if recorded else teachers_of(workspace, dataset, run)  # first, as they may lack this fold
    failures = preprocess_unlabelled(workspace, replace(dataset, unlabelled=tuple(cases)), spec.plan, spec.configuration)
    cases = predict_first_stage(workspace, spec, run, [case for case in cases if case.name not in failures], settings)
    if recorded and not _missing(workspace, dataset, spec, cases, recorded.models):
        return _checked_cases(run, recorded, cases)
    stage_folds = None if run.fold == ALL else (run.fold,)  # the others know the held-out cases of this fold
    source = source_of_dataset(workspace, dataset.name)
    ensemble = chosen_ensemble(source, teachers, PredictSettings(device=settings.device), stage_folds=stage_folds)
    models = models_key(teachers, ensemble.models, ensemble.labels)
    if recorded and models != recorded.models:
        raise ValueError(
            f"{run.folder}: began with pseudo-labels of other networks of {', '.join(ensemble.models)} than are there now, and not all of"
            " them are stored; start over with --restart"
        )
    made = _make(workspace, dataset, spec, cases, ensemble, models)
    del ensemble
    release_memory(choose_device(settings.device))
    if recorded:
        return _checked_cases(run, recorded, made)
    if not made:
        raise ValueError(f"{dataset.name}: --pseudo-labels: not one of {len(cases)} images without label maps could be predicted")
    return PseudoLabels(models, teachers, {case.name: _identity(case) for case in made})


def with_pseudo_labels(folders: RunFolders, workspace: Workspace, spec: TrainingSpec, pseudo: PseudoLabels | None) -> RunFolders:
    """The folders of a run with those of its pseudo-labels."""
    if pseudo is None:
        return folders
    name, configuration = spec.plan.dataset, spec.configuration
    images = unlabelled_folder(workspace, name, configuration)
    return replace(folders, unlabelled=images, pseudo_labels=pseudo_label_folder(workspace, name, configuration, pseudo.models))


def check_teachers(results: Path, spec: TrainingSpec, run: Run, settings: TrainSettings) -> None:
    """Refuses (ValueError) to learn from pseudo-labels where nothing is trained that could make them, and nothing will be before."""
    if settings.pseudo_labels and spec.configuration.previous_stage is None and not run.siblings():
        _check_anything_trained(results)


def _check_anything_trained(results: Path) -> None:
    if not model_folders(results):
        raise ValueError(f"{results}: --pseudo-labels: nothing is trained yet; train without it first, on the same folds")


def teachers_of(workspace: Workspace, dataset: Dataset, run: Run) -> Choice:
    """The chosen models with the networks of this run's fold alone; those of the model's other folds where some were started.

    They are chosen among those that learnt from label maps alone, so that no model teaches what it was taught, and a run has the same
    teachers wherever it was interrupted. A choice that the user edited is taken as it is.

    Raises:
        ValueError: Nothing is trained yet, or a chosen model lacks the fold.
    """
    results = workspace.results(dataset.name)
    siblings = [record.pseudo_labels for one in run.siblings() if (record := one.record()).pseudo_labels is not None]
    if not siblings:
        _check_anything_trained(results)
    if siblings:
        choice = siblings[0].choice
    elif (taught := taught_models(results)) and not is_edited(results / "choice.json"):
        choice = choose_without(taught, dataset.name, home=workspace.home)
    else:
        choice = models_chosen(source_of_dataset(workspace, dataset.name))
    members = sorted({name for names in choice.organs.values() for name in names})
    for name in members if run.fold != ALL else ():
        if run.fold not in (trained := ModelFolder(results / name).trained_folds()):
            begun = ModelFolder(results / name).runs()
            remedy = f"Run: {train_command(begun[0].record(), fold=run.fold)}" if begun else "Train that fold of it first"
            raise ValueError(
                f"{name}: --pseudo-labels: expected its fold {run.fold} to be trained, as other folds' networks know the held-out cases of"
                f" this one; found {', '.join(trained) or 'none'}. {remedy}"
            )
    folds = {name: choice.member_folds.get(name) or choice.folds if run.fold == ALL else (run.fold,) for name in members}
    of_members = {name: choice.calibration[name] for name in members if name in choice.calibration}
    if not of_members:
        log.warning("The chosen models' probabilities are not calibrated: they count in pseudo-labels as they are.")
    of_choice = choice.folds if run.fold == ALL else (run.fold,)
    choice = replace(choice, folds=of_choice, member_folds=folds, calibration=of_members)
    # What it rests on decides on no voxel.
    return replace(choice, table={}, cases=0, reasons={}, evidence={}, seconds={}, dice_regression={}, merged=None, made_from={})


def _cases_of(workspace: Workspace, dataset: Dataset, run: Run, recorded: PseudoLabels | None) -> list[Case]:
    """The images that a run may learn from: those that it began with, or all but those of patients with held-out cases."""
    if recorded is not None:
        known = {case.name: case for case in dataset.unlabelled}
        if gone := [name for name in recorded.cases if name not in known]:
            raise ValueError(f"{run.folder}: began with images that are not in the plan any more: {', '.join(gone[:5])}; --restart")
        return [known[name] for name in recorded.cases]
    held_out = set(() if run.fold == ALL else split_of(workspace, dataset.name, run.fold).val)
    patients = {case.group or case.name for case in dataset.cases if case.name in held_out}
    cases = [case for case in dataset.unlabelled if (case.group or case.name) not in patients]
    if left_out := len(dataset.unlabelled) - len(cases):
        log.info("%d images without label maps are left out: held-out cases are of the same patients.", left_out)
    return cases


def _checked_cases(run: Run, recorded: PseudoLabels, cases: Iterable[Case]) -> PseudoLabels:
    """What a run began with, if it is all there; else a ValueError."""
    now = {case.name: _identity(case) for case in cases}
    if changed := [name for name, identity in recorded.cases.items() if now.get(name) != identity]:
        names = ", ".join(changed[:5])
        raise ValueError(f"{run.folder}: began with other images without label maps, or with more: {names}; start over with --restart")
    return recorded


def _identity(case: Case) -> str:
    return value_id([*case_ids(case), *reading_setting([case]).items()])


def _stamp(spec: TrainingSpec, case: Case, models: str) -> Stamp:
    """What the pseudo-labels of a case are made from."""
    settings = {"recipe": value_id(recipe_of(spec.plan, spec.configuration)), "models": models}
    return Stamp(case_inputs(case, case_ids(case)), settings | reading_setting([case]))


def _missing(workspace: Workspace, dataset: Dataset, spec: TrainingSpec, cases: Sequence[Case], models: str) -> list[Case]:
    """The cases whose pseudo-labels by these models are not there, or of another image."""
    folder = pseudo_label_folder(workspace, dataset.name, spec.configuration, models)
    store = Store(folder)
    there = {case.name: store.load(case.name).made_from for case in cases if is_stored(folder, case.name)}
    return [case for case in cases if there.get(case.name) != _stamp(spec, case, models)]


def _make(workspace: Workspace, dataset: Dataset, spec: TrainingSpec, cases: Sequence[Case], ensemble: Ensemble, models: str) -> list[Case]:
    """Predicts what is missing; gives the cases that have pseudo-labels now."""
    folder = pseudo_label_folder(workspace, dataset.name, spec.configuration, models)
    failures: dict[str, str] = {}
    with exclusive_lock(folder, "making pseudo-labels", wait=True):
        waiting = _missing(workspace, dataset, spec, cases, models)
        log.info("Pseudo-labels of %d images by %s; %d are to be made.", len(cases), ", ".join(ensemble.models), len(waiting))
        sure = []
        for case in tqdm(waiting, desc="Pseudo-labels", unit="case", disable=not waiting):
            with failure_of(case.name, failures, "is left out of the pseudo-labels"):
                sure.append(_label(spec, case, ensemble, folder, _stamp(spec, case, models)))
        if sure:
            log.info("On the average, a voxel of a pseudo-label counts %.3f.", float(np.mean(sure)))
    return [case for case in cases if case.name not in failures]


def _label(spec: TrainingSpec, case: Case, ensemble: Ensemble, folder: Path, stamp: Stamp) -> float:
    """Stores the pseudo-labels of one case on the grid of its preprocessed image; gives their mean weight."""
    image = read_case_image(case)
    votes = ensemble.choice.vote
    logits, by_fold = ensemble.logits_by_fold(image, case=case.name) if votes else (ensemble.logits(image, case=case.name), None)
    label_map = ensemble.segment(logits, by_fold)
    confidence = label_confidence(ensemble, label_map, logits)
    _, labels, trace = preprocess_case(image, label_map, spec.plan, spec.configuration, case=case.name)
    if labels is None:
        raise ValueError(f"{case.name}: expected a label map on the grid of {spec.configuration.name}, got none")
    weights = to_grid(confidence, trace)
    stored, chosen = spec.plan.stored_labels, ensemble.choice.organs
    annotated = None if all(organ in chosen for organ in stored.names) else tuple(organ for organ in stored.names if organ in chosen)
    locations = class_locations(labels, stored, np.random.default_rng(SEED), annotated=annotated)
    write_pseudo_labels(folder, labels, weights, StoredRecord(trace, stamp, annotated), locations)
    return float(weights.mean())
