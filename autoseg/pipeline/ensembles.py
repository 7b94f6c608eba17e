"""Ensembles of trained models, trained on what those models say about cases that they have not seen, as models of their own.

Crespi et al., *Ensemble methods for multi-organ segmentation in CT series*, 2023; Conze et al., Artificial Intelligence in Medicine 117
(2021) for ``multi``, their MOvpUNet. See docs/ensembles.md.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..data.descriptions import check_files, planned_dataset
from ..data.label_subsets import folder_word, subset
from ..ensembling.design import ITERATIONS, KINDS, Design, check_fusable
from ..ensembling.fusion_trainer import CrossFitted, FusionTrainer, average_history, averaged, halves
from ..ensembling.members import Member, base_models, best_of, comparable, held_out, named, shared_folds
from ..ensembling.prediction import FUSED, FUSION, META, fuse
from ..ensembling.stacked_cases import write_joined, write_stacks
from ..evaluation.folders import table
from ..inference.predictor import Predictor
from ..networks import build_network
from ..planners.budget import choose_budget
from ..runtime.checkpoints import load_checkpoint, save_checkpoint
from ..runtime.hardware import choose_device, prepare
from ..runtime.locks import exclusive_lock
from ..runtime.registry import ENSEMBLE, FINAL_CHECKPOINT, UNTRAINED, unknown
from ..runtime.serialization import from_plain, read_json, write_json
from ..runtime.workspace import Workspace, find_workspace
from ..schema import Budget, Dataset, Score, Split
from ..schema.run_record import RunRecord
from ..schema.settings import EnsembleSettings
from ..trainers.job import RunFolders
from ..trainers.resume_checks import is_finished
from ..trainers.trainer import Trainer
from ..trainers.validation import validate_fold
from .preparing import preprocess
from .training import put_aside

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Work:
    """What the training of every fold needs."""

    workspace: Workspace
    dataset: Dataset
    design: Design
    folder: Path
    held_out: dict[str, list[str]]
    device: torch.device

    @property
    def data(self) -> Path:
        return self.preprocessed(self.design.data)

    @property
    def results(self) -> Path:
        return self.folder.parent

    def preprocessed(self, data: str) -> Path:
        return self.workspace.preprocessed(self.dataset.name) / data


def train_ensemble(which: str | int, settings: EnsembleSettings, *, home: str | Path | None = None) -> dict[str, list[Score]]:
    """Trains and validates an ensemble of trained models; goes on where an interrupted one stopped; does nothing where it is finished.

    The result lies beside its members, in ``results/<dataset>/ensemble__<Kind>``, and is chosen, asked for and predicted with like them.

    Args:
        which: Dataset id, name or folder.
        settings: See `EnsembleSettings`.
        home: Home folder.

    Returns:
        Fold to the scores of its held-out cases.

    Raises:
        ValueError: An unknown kind, member, fold or organ; members that lack folds, or that this kind cannot combine.
    """
    if settings.kind not in KINDS:
        raise unknown("kind of ensemble", settings.kind, KINDS)
    budget = _budget(settings)
    workspace = find_workspace(home, dataset=str(which))
    dataset = planned_dataset(workspace, which)
    folder = workspace.model(dataset.name, ENSEMBLE, settings.kind.capitalize(), *_words(dataset, settings))
    former = _former(folder, settings)
    design, folds = _designed(workspace, dataset, folder, settings, former)
    log.info("%s: %s of %s; fold %s.", folder.name, settings.kind, ", ".join(one.name for one in design.members), ", ".join(folds))
    waiting = [fold for fold in folds if (run := folder / f"fold_{fold}") in former or not is_finished(run)]
    needed = waiting if settings.kind in (*UNTRAINED, FUSION) else shared_folds(design.members, least=2)
    cases = {fold: held_out(design.members, fold) for fold in needed} if waiting else {}
    if waiting:
        check_files(dataset)
    device = choose_device(settings.device)
    prepare(device)
    for run in former:  # last, so that what is refused leaves them where they are
        with exclusive_lock(run, "training"):
            put_aside(run)
    work = _Work(workspace, dataset, design, folder, cases, device)
    scores = {fold: _train_fold(work, fold, budget=budget, seed=settings.seed) for fold in folds}
    everything = [score for some in scores.values() for score in some]
    log.info("%s, whole volumes:\n%s", folder.name, table(everything, tolerance_mm=dataset.tolerances))
    return scores


def _words(dataset: Dataset, settings: EnsembleSettings) -> list[str]:
    """What the name of the folder says beside the kind: members and organs that were asked for."""
    words = []
    if settings.members:
        words.append(word_of_members(settings.members))
    if settings.organs:
        words.append(folder_word(subset(dataset.labels, settings.organs)))
    return words


def word_of_members(members: Sequence[str]) -> str:
    """Part of a folder's name that belongs to these members, in any order."""
    names = sorted(set(members))
    return f"{len(names)}models_{hashlib.sha256('|'.join(names).encode()).hexdigest()[:6]}"


def _former(folder: Path, settings: EnsembleSettings) -> list[Path]:
    """Runs that are to be begun anew."""
    there = sorted(folder.glob("fold_*")) if settings.restart else []
    return [path for path in there if not settings.folds or path.name.removeprefix("fold_") in settings.folds]


def _budget(settings: EnsembleSettings) -> Budget:
    """How long a fold is trained: what the user said, or what the kind needs."""
    if settings.kind in UNTRAINED:
        return Budget("iterations", 1, 1, "nothing is learnt")
    if settings.iterations is not None or settings.seconds is not None:
        return choose_budget("cpu", iterations=settings.iterations, seconds=settings.seconds)
    steps = ITERATIONS[settings.kind]
    return replace(choose_budget("cpu", iterations=steps), why=f"{steps} iterations, the default of {settings.kind}")


def _designed(
    workspace: Workspace, dataset: Dataset, folder: Path, settings: EnsembleSettings, former: Sequence[Path]
) -> tuple[Design, list[str]]:
    """The ensemble that is asked for, or that its other folds are (the `former` ones left out), and the folds to train."""
    models, begun = base_models(workspace, dataset.name), _begun(folder, former)
    least = 2 if settings.kind in ("logits", META) else 1
    if begun is not None:
        candidates = named(models, begun.trainer_options["members"])
        log.info("%s: the members are those of its folds that were begun before (others with --restart or --members).", folder.name)
    elif settings.members:
        candidates = named(models, settings.members)
    else:
        candidates = comparable(models, settings.folds, least=least)
    shared = shared_folds(candidates, least=least)
    folds = _wanted_folds(settings.folds, candidates, shared)
    organs = _organs(settings.organs, candidates) if begun is None else begun.plan.labels.names
    best = {}
    if settings.kind == "multi":
        best = {fold: best_of(candidates, organs, _others(shared, fold)) for fold in shared}
    if begun is None:
        candidates = _members(settings, candidates, organs, best, shared)
    if settings.kind == FUSION and begun is None:
        check_fusable(candidates)
        fuse([one.folder for one in candidates], folds[0], subset(dataset.labels, organs), torch.device("cpu"))
    stored = {one.job.plan.stored_labels for one in candidates}
    if len(stored) > 1:
        raise ValueError(
            f"{', '.join(one.name for one in candidates)}: were trained for different labels of {dataset.name}; train them again"
        )
    return Design(settings.kind, tuple(candidates), tuple(organs), _reference(candidates, begun, shared), best), folds


def _begun(folder: Path, former: Sequence[Path]) -> RunRecord | None:
    """A fold of this ensemble that was begun before and stays."""
    records = [record for record in sorted(folder.glob("fold_*/run.json")) if record.parent not in former]
    return read_json(records[0], RunRecord) if records else None


def _others(folds: Sequence[str], fold: str) -> list[str]:
    """The folds by which the members for a fold are chosen: the others, so that its own cases can judge the choice."""
    others = [other for other in folds if other != fold]
    if not others:
        log.warning("Only fold %s is there: the members are chosen by the cases that judge them, which flatters the ensemble.", fold)
    return others or [fold]


def _wanted_folds(asked: Sequence[str], members: Sequence[Member], shared: Sequence[str]) -> list[str]:
    wanted = list(asked or shared)
    missing = [member.command(fold) for member in members for fold in wanted if fold not in member.jobs]
    if missing:
        listed = "\n".join(f"  {command}" for command in missing)
        raise ValueError(f"ensemble: fold {', '.join(wanted)} needs members that were trained and validated on it. Run:\n{listed}")
    return wanted


def _organs(asked: Sequence[str], members: Sequence[Member]) -> tuple[str, ...]:
    """In the order of the dataset."""
    known = {name for member in members for name in member.labels.names}
    for organ in asked:
        if organ not in known:
            raise unknown("organ of the members", organ, known)
    return tuple(name for name in members[0].job.plan.stored_labels.names if name in (asked or known))


def _members(
    settings: EnsembleSettings, candidates: list[Member], organs: Sequence[str], best: dict[str, dict[str, str]], folds: Sequence[str]
) -> list[Member]:
    """Those of the candidates that are needed: all that were named, else the best of each organ."""
    if settings.kind == "multi":
        used = {name for chosen in best.values() for name in chosen.values()}
    elif settings.members:
        used = {member.name for member in candidates if set(organs) & set(member.labels.names)}
    else:
        used = set(best_of(candidates, organs, folds).values())
    return [member for member in candidates if member.name in used]


def _reference(members: Sequence[Member], begun: RunRecord | None, folds: Sequence[str]) -> Member:
    """The member with the finest grid: most voxels of a case that all have; among equals the first."""
    if begun is not None:
        return next(member for member in members if member.name == begun.trainer_options["reference"])
    case = held_out(members, folds[0])[0]
    return max(members, key=lambda member: np.prod(read_json(member.validation(folds[0]) / f"{case}.trace.json", dict)["shape"]))


def _train_fold(work: _Work, fold: str, *, budget: Budget, seed: int) -> list[Score]:
    run = work.folder / f"fold_{fold}"
    if is_finished(run):
        log.info("%s is finished already; nothing to do (begin anew with --restart).", run)
        return from_plain(read_json(run / "validation" / "scores.json", list), list[Score])
    with exclusive_lock(run, "training"):
        cases = _prepare(work, fold)
        job = _job(work, fold, cases, budget=budget, seed=seed)
        folders = RunFolders(run, work.data)
        if work.design.kind == FUSION:
            predictor = _fit_halves(work, job, folders)
        else:
            network = _untrained(job, folders) if work.design.kind in UNTRAINED else Trainer(job, folders, device=work.device).fit()
            how = {"device": work.device, "mirror": False, "step": 0.5 if work.design.kind == META else 1.0}
            predictor = Predictor([network.to(work.device)], job.configuration, job.plan.labels, **how)
        return validate_fold(predictor, job, folders, work.dataset)


def _prepare(work: _Work, fold: str) -> Split:
    """Writes the cases that a fold reads, and says which it learns from and which it is judged by."""
    design = work.design
    own, others = work.held_out[fold], sorted(name for other, names in work.held_out.items() if other != fold for name in names)
    learns = design.kind not in (*UNTRAINED, FUSION)
    used = {name: other for other, names in work.held_out.items() if learns or other == fold for name in names}
    readers = {member.configuration.data: member.job for member in (*design.members, design.reference)}
    for job in readers.values() if design.kind == FUSION else [design.reference.job]:
        preprocess(work.workspace, work.dataset, job.plan, job.configuration)
    if design.kind != FUSION:
        write_stacks(used, work.results, design.layout, work.preprocessed(design.reference.configuration.data), work.data)
    elif len(design.sources) > 1:
        write_joined(own, [work.preprocessed(source) for source in design.sources], work.data)
    return Split(tuple(others) if learns else (), tuple(own))


def _job(work: _Work, fold: str, split: Split, *, budget: Budget, seed: int) -> RunRecord:
    """As its ``run.json`` says if the run was begun before, else as the design does."""
    record = work.folder / f"fold_{fold}" / "run.json"
    if record.is_file():
        job = read_json(record, RunRecord)
        log.info("%s was begun before, with %s; it goes on so (begin anew with --restart).", record.parent, job.budget.why)
        return job
    job = work.design.job(fold, split, budget=budget, seed=seed)
    write_json(record, job)
    return job


def _untrained(job: RunRecord, folders: RunFolders) -> nn.Module:
    configuration = job.configuration
    size = {"in_channels": job.plan.in_channels(configuration), "out_channels": job.plan.labels.n_outputs}
    network = build_network(configuration.network, dim=configuration.dim, **size, **configuration.network_options)
    save_checkpoint(folders.run / FINAL_CHECKPOINT, {"network": network.state_dict()}, {"fold": job.fold})
    return network.eval()


def _fit_halves(work: _Work, job: RunRecord, folders: RunFolders) -> CrossFitted:
    """Fits a head on each half of the fold's held-out cases; each judges the other half, and their mean predicts new images."""
    groups = {case.name: case.group or case.name for case in work.dataset.cases}
    parts = halves({name: groups.get(name, name) for name in job.split.val}, np.random.default_rng([job.seed, 0]))
    predictors, runs = {}, [folders.run / f"half_{number}" for number in range(len(parts))]
    for run, learnt, judged in zip(runs, parts, reversed(parts), strict=True):
        half = replace(job, split=Split(learnt, judged))
        trainer = FusionTrainer(half, replace(folders, run=run), device=work.device)
        network = trainer.fit()
        predictors |= dict.fromkeys(judged, trainer.predictor(network))
    states = [load_checkpoint(run / FINAL_CHECKPOINT)[0]["network"] for run in runs]
    average_history(folders.run, runs)
    save_checkpoint(folders.run / FINAL_CHECKPOINT, {"network": averaged(states)}, {"fold": job.fold, FUSED: network.key})
    return CrossFitted(predictors)
