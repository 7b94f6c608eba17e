"""Training of one fold of an ensemble: the cases that it reads, its network, its validation."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..inference.predictor import Predictor
from ..inference.volume_predictor import VolumePredictor
from ..networks import build_network
from ..preprocessing.planned_cases import preprocess
from ..runtime.case_contents import networks_of, note_contents
from ..runtime.checkpoints import load_checkpoint, save_checkpoint
from ..runtime.locks import exclusive_lock
from ..runtime.runs import ModelFolder, Run
from ..runtime.serialization import write_json
from ..runtime.workspace import Workspace
from ..schema import Budget, Dataset, Score, Split
from ..schema.run_record import RunRecord
from ..schema.settings import EnsembleSettings
from ..trainers.corrected_references import needs_validation, score_corrected
from ..trainers.resume_checks import warn_of_former_contents
from ..trainers.run_options import RunFolders
from ..trainers.trainer import Trainer
from ..trainers.validation import validate_fold
from .design import Design
from .fusion_trainer import CrossFitted, FusionTrainer, average_history, halves, joined, some_patients
from .prediction import FUSED, FUSION, HALVES, META, UNTRAINED, check_members
from .stacked_cases import Stacks, write_joined, write_stacks

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EnsembleTraining:
    """What the training of every fold of an ensemble needs.

    Attributes:
        held_out: Fold to the cases that every member predicted without having been trained on them.
        budget: Of a fold.
    """

    workspace: Workspace
    dataset: Dataset
    design: Design
    model: ModelFolder
    held_out: dict[str, list[str]]
    budget: Budget
    settings: EnsembleSettings
    device: torch.device

    @property
    def data(self) -> Path:
        """The preprocessed cases that it reads."""
        return self.preprocessed(self.design.data)

    @property
    def patients(self) -> dict[str, str]:
        """Case to its patient."""
        return {case.name: case.group or case.name for case in self.dataset.cases}

    def preprocessed(self, data: str) -> Path:
        """A folder of preprocessed cases of the dataset."""
        return self.workspace.preprocessed(self.dataset.name) / data


def train_fold(work: EnsembleTraining, fold: str) -> list[Score]:
    """Trains and validates one fold of an ensemble; does nothing where it is finished."""
    run = work.model.run(fold)
    if run.is_started:
        check_members(run)
    if is_done(run, work.dataset):
        log.info("%s is finished already; nothing to do (start over with --restart).", run.folder)
        warn_of_former_contents(run, work.dataset.cases)
        return score_corrected(run, work.dataset)
    with exclusive_lock(run.folder, "training"):
        split = _prepare(work, fold)
        if run.is_started:
            job = run.record()
            log.info("%s was started before, with %s; it goes on so (start over with --restart).", run.folder, job.budget.why)
        else:
            job = work.design.record(fold, split, budget=work.budget, settings=work.settings)
            _note_made_from(work, fold, split)
            write_json(run.record_file, job)
        folders = RunFolders(run.folder, work.data)
        predictor: VolumePredictor
        if work.design.kind == FUSION:
            predictor = _fit_halves(work, job, folders)
        else:
            network = _untrained(job, folders) if work.design.kind in UNTRAINED else Trainer(job, folders, device=work.device).fit()
            step = 0.5 if work.design.kind == META else 1.0
            networks = [network.to(work.device)]
            predictor = Predictor(networks, job.configuration, job.plan.labels, device=work.device, mirror=False, step=step)
        return validate_fold(predictor, job, folders, work.dataset)


def is_done(run: Run, dataset: Dataset) -> bool:
    """Whether nothing is left to train, and no held-out case to predict, also not again."""
    return run.is_finished and not (run.is_started and needs_validation(run, dataset.cases))


def _note_made_from(work: EnsembleTraining, fold: str, split: Split) -> None:
    """Notes the cases of a fold and the networks of all folds whose predictions it learns from."""
    of_fold = {*split.train, *split.val}
    networks = networks_of(work.model.folder.parent, [member.name for member in work.design.members], work.held_out)
    note_contents(work.model.run(fold).record_file, [case for case in work.dataset.cases if case.name in of_fold], networks)


def _prepare(work: EnsembleTraining, fold: str) -> Split:
    """Writes the cases that a fold reads, and says which it learns from and which it is judged by."""
    design = work.design
    held_out, others = work.held_out[fold], sorted(name for other, names in work.held_out.items() if other != fold for name in names)
    learns = design.kind not in (*UNTRAINED, FUSION)
    learnt = some_patients(others, work.patients, work.settings.share, np.random.default_rng([work.settings.seed, int(fold), 1]))
    used = {name: other for other, names in work.held_out.items() for name in names if other == fold or (learns and name in learnt)}
    readers = {member.configuration.data: member.record for member in (*design.members, design.reference)}
    for record in readers.values() if design.kind == FUSION else [design.reference.record]:
        preprocess(work.workspace, work.dataset, record.plan, record.configuration)
    if design.kind != FUSION:
        stacks = Stacks(design.layout, work.preprocessed(design.reference.configuration.data), design.stored, design.most)
        write_stacks(used, work.model.folder.parent, stacks, work.data)
    elif len(design.sources) > 1:
        write_joined(held_out, [work.preprocessed(source) for source in design.sources], work.data)
    return Split(learnt if learns else (), tuple(held_out))


def _untrained(job: RunRecord, folders: RunFolders) -> nn.Module:
    configuration = job.configuration
    channels, outputs, options = job.plan.in_channels(configuration), job.plan.labels.n_outputs, configuration.network_options
    network = build_network(configuration.network, dim=configuration.dim, in_channels=channels, out_channels=outputs, **options)
    if not Run(folders.run).is_trained:  # a second file of the same weights would be another network to who noted the first
        save_checkpoint(Run(folders.run).checkpoint, {"network": network.state_dict()}, {"fold": job.fold})
    return network.eval()


def _fit_halves(work: EnsembleTraining, job: RunRecord, folders: RunFolders) -> CrossFitted:
    """Fits the head (and last layers) on each half of the fold's held-out cases; each judges the other half, both predict new images."""
    patients, share = work.patients, 1.0 if job.ensemble is None or job.ensemble.settings is None else job.ensemble.settings.share
    parts = halves({name: patients.get(name, name) for name in job.split.val}, np.random.default_rng([job.seed, 0]))
    predictors: dict[str, VolumePredictor] = {}
    runs = [folders.run / half for half in HALVES]
    for run, learnt, judged in zip(runs, parts, reversed(parts), strict=True):
        learnt = some_patients(learnt, patients, share, np.random.default_rng([job.seed, int(job.fold), 1]))
        half = replace(job, split=Split(learnt, judged))
        trainer = FusionTrainer(half, replace(folders, run=run), device=work.device)
        network = trainer.fit()
        predictors |= dict.fromkeys(judged, trainer.predictor(network))
    states = [load_checkpoint(Run(run).checkpoint)[0]["network"] for run in runs]
    average_history(folders.run, runs)
    if not Run(folders.run).is_trained:
        trains_last = job.ensemble is not None and job.ensemble.trains_last
        save_checkpoint(Run(folders.run).checkpoint, joined(states, trains_last=trains_last), {"fold": job.fold, FUSED: network.key})
    return CrossFitted(predictors)
