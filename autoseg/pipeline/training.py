"""Training one fold: what it needs first, how long it takes, where it goes on, and how it is validated."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from torch import nn

from ..evaluation.folders import mean_dice, table
from ..inference.predictor import Predictor
from ..machine import choose_device, device_memory
from ..model import Budget, Configuration, Dataset, Plan, Score, Split
from ..naming import FINAL_CHECKPOINT, lookup
from ..planners.budget import choose_budget, fit_batch, fit_patch
from ..planners.trial import fit_memory
from ..records import only_one, read_json, remove_partial, to_plain, write_json
from ..storage import Store
from ..trainers import TRAINERS
from ..trainers.job import RunFolders, TrainingJob, default_options
from ..trainers.previous import cases_without_prediction, prepare_previous
from ..trainers.trainer import Trainer
from ..trainers.validation import validate_fold
from ..workspace import Workspace, find_workspace
from .preparing import preprocess, wanted_configurations
from .settings import TrainSettings

log = logging.getLogger(__name__)


def train(
    which: str | int, configuration: str, fold: str | int, settings: TrainSettings | None = None, *, home: str | Path | None = None
) -> list[Score]:
    """Trains and validates one fold; goes on where an interrupted run stopped; does nothing where it is finished.

    Args:
        which: Dataset id, name or folder.
        configuration: ``2d``, ``3d_fullres``, ``3d_lowres`` or ``3d_cascade``, as planned.
        fold: Number of the fold, or ``all``.
        settings: See `TrainSettings`.
        home: Home folder.

    Returns:
        Scores of the fold's validation cases.

    Raises:
        ValueError: Unknown configuration or fold, or no plan yet; the message gives the command.
    """
    settings = settings or TrainSettings()
    workspace = find_workspace(home, dataset=str(which))
    dataset = workspace.load_dataset(which)
    plan, fold = workspace.plan(dataset.name), str(fold)
    wanted_configurations([configuration], plan)
    lookup(TRAINERS, settings.trainer, "trainer")
    _budget(settings)  # a wrong device or budget is refused before anything long begins
    run = workspace.model(dataset.name, configuration, settings.trainer) / f"fold_{fold}"
    _split(workspace, dataset.name, fold)
    if settings.restart and run.exists():
        with only_one(run, "training"):
            _put_aside(run)
    scores = run / "validation" / "scores.json"
    if (run / FINAL_CHECKPOINT).is_file() and scores.is_file():
        log.info("%s is finished already; nothing to do (begin anew with --restart).", run)
        return read_json(scores, list[Score])
    with only_one(run, "training"):
        preprocess(workspace, dataset, plan, plan.configurations[configuration].data)
        previous = _first_stage(workspace, dataset, plan, configuration, settings)
        trainer = _trainer(workspace, dataset, run, previous, plan=plan, settings=settings)
        remove_partial(workspace.results(dataset.name))
        write_json(workspace.results(dataset.name) / "plan.json", plan)
        write_json(workspace.results(dataset.name) / "dataset.json", dataset)
        network = trainer.fit()
        result = validate_fold(_predictor(network, trainer), trainer.job, trainer.folders, dataset)
    log.info("%s, fold %s, whole volumes:\n%s", run.parent.name, fold, table(result))
    if mean_dice(result) < 0.01:
        log.warning("This network has learned nothing yet: give it more --time, or look at the labels with autoseg_check.")
    return result


def _split(workspace: Workspace, dataset: str, fold: str) -> Split:
    splits = workspace.splits(dataset)
    if fold == "all":
        return Split(workspace.usable_cases(dataset), workspace.usable_cases(dataset))
    if not fold.isdigit() or int(fold) >= len(splits):
        expected = f"0 to {len(splits) - 1} or all" if splits else "all (one patient cannot be split)"
        raise ValueError(f"fold: expected {expected}, got {fold!r}")
    return splits[int(fold)]


def _put_aside(run: Path) -> None:
    kept = next(path for i in range(1, 10_000) if not (path := run.with_name(f"old_{run.name}_{i}")).exists())
    run.rename(kept)
    log.info("The former run is kept as %s", kept)


def _first_stage(workspace: Workspace, dataset: Dataset, plan: Plan, configuration: str, settings: TrainSettings) -> Path | None:
    """Trains what a cascade needs of its first stage, and brings its predictions to the second stage's grid."""
    stage = plan.configurations[configuration].previous_stage
    if stage is None:
        return None
    model, data = workspace.model(dataset.name, stage, settings.trainer), plan.configurations[configuration].data
    names = Store(workspace.preprocessed(dataset.name) / data).names()
    for fold, split in enumerate(workspace.splits(dataset.name)):
        if cases_without_prediction(model, [name for name in split.val if name in names]):
            log.info("%s needs %s's prediction of every case: training its fold %d first, same budget.", configuration, stage, fold)
            train(dataset.folder, stage, fold, _without_restart(settings), home=workspace.home)
    return prepare_previous(model, workspace.preprocessed(dataset.name) / data, model / f"predicted_on_{data}", plan)


def _without_restart(settings: TrainSettings) -> TrainSettings:
    return replace(settings, restart=False, pretrained=None)


def _trainer(workspace: Workspace, dataset: Dataset, run: Path, previous: Path | None, *, plan: Plan, settings: TrainSettings) -> Trainer:
    """The trainer of a run: as its ``run.json`` says if it was begun before, else as the settings and the device ask for."""
    device = choose_device(settings.device)
    record = run / "run.json"
    if record.is_file():
        job = read_json(record, TrainingJob)
        _check_same(record, plan.configurations[job.configuration.name], job.configuration)
        log.info("This run was begun before, with %s; it goes on so (begin anew with --restart).", job.budget.why)
    else:
        configuration = plan.configurations[run.parent.name.partition("__")[0]]
        for sibling in run.parent.glob("fold_*/run.json"):
            _check_same(sibling, configuration, read_json(sibling, TrainingJob).configuration, ("network", "network_options"))
        job = _new_job(plan, configuration, _split(workspace, dataset.name, run.name.removeprefix("fold_")), run, settings=settings)
        write_json(record, job)
    data = workspace.preprocessed(dataset.name) / job.configuration.data
    return lookup(TRAINERS, job.trainer, "trainer")(job, RunFolders(run, data, previous), device=device)


def _check_same(record: Path, planned: Configuration, begun: Configuration, further: tuple[str, ...] = ()) -> None:
    """A run goes on only with data preprocessed as when it began, and joins only folds whose networks can be averaged with its own."""
    for what in ("spacing", "normalization", "mask_normalization", *further):
        now, then = to_plain(getattr(planned, what)), to_plain(getattr(begun, what))
        if now != then:
            raise ValueError(
                f"{record}: this run was begun with {what} {then}, the plan now says {now}; "
                f"plan as before, or begin anew: --restart for a single fold, or move {record.parents[1]} away"
            )


def _new_job(plan: Plan, configuration: Configuration, split: Split, run: Path, *, settings: TrainSettings) -> TrainingJob:
    device = choose_device(settings.device)
    budget = _budget(settings)
    configuration, batch_why = fit_batch(configuration, device.type, batch=settings.batch)
    configuration, cost, memory_why = fit_memory(
        configuration,
        in_channels=plan.in_channels(configuration),
        out_channels=plan.labels.n_outputs,
        device=str(device),
        limit_bytes=device_memory(device),
    )
    configuration, patch_why = fit_patch(configuration, budget, cost.seconds)
    log.info("Training %s, fold %s, on %s: %s.", configuration.name, run.name.removeprefix("fold_"), device, budget.why)
    log.info("%s; %.3g s and %.1f GB a step.", batch_why, cost.seconds, cost.peak_bytes / 1e9)
    for why in filter(None, (memory_why, patch_why)):
        log.info("%s.", why)
    if budget.kind == "iterations":
        log.info("It will take about %s.", _duration(budget.amount * cost.seconds))
    stage = configuration.previous_stage
    return TrainingJob(
        plan=plan,
        configuration=configuration,
        fold=run.name.removeprefix("fold_"),
        split=split,
        budget=budget,
        seed=settings.seed,
        options=default_options(budget, device.type, batch=configuration.batch_size, learning_rate=settings.learning_rate),
        trainer=settings.trainer,
        pretrained=settings.pretrained,
        previous_model=f"{stage}__{run.parent.name.partition('__')[2]}" if stage else None,
    )


def _budget(settings: TrainSettings) -> Budget:
    device = choose_device(settings.device)
    return choose_budget(device.type, epochs=settings.epochs, iterations=settings.iterations, seconds=settings.seconds)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{max(1, minutes)} min"


def _predictor(network: nn.Module, trainer: Trainer) -> Predictor:
    return Predictor([network], trainer.job.configuration, trainer.job.plan.labels, device=trainer.device)
