"""Training one fold: what it needs first, how long it takes, where it goes on, and how it is validated."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from torch import nn

from ..evaluation.folders import mean_dice, table
from ..inference.predictor import Predictor
from ..machine import choose_device, device_memory, free_memory
from ..model import Budget, Configuration, Dataset, Plan, Score, Split
from ..naming import lookup
from ..planners.budget import choose_budget, fit_batch, fit_memory, fit_time
from ..records import only_one, read_json, remove_partial, write_json
from ..storage import Store
from ..trainers import TRAINERS
from ..trainers.job import RunFolders, TrainingJob, default_options
from ..trainers.previous import cases_without_prediction, folds_that_validate, prepare_previous
from ..trainers.trainer import Trainer
from ..trainers.trial import measure_step
from ..trainers.validation import validate_fold
from ..workspace import Workspace, find_workspace
from .begun import check_begun, check_pretrained, find_pretrained, is_finished, patch_of_siblings
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
    plan = workspace.plan(dataset.name)
    fold = str(int(fold)) if str(fold).isdecimal() else str(fold)
    settings = _checked(settings, workspace, plan, configuration, fold)
    run = workspace.model(dataset.name, configuration, settings.trainer) / f"fold_{fold}"
    if is_finished(run) and not settings.restart:
        log.info("%s is finished already; nothing to do (begin anew with --restart).", run)
        return read_json(run / "validation" / "scores.json", list[Score])
    # Before anything else, as preprocessing for another plan would replace the data of what was begun.
    check_begun(run, plan, plan.configurations[configuration], restart=settings.restart)
    if settings.restart and run.exists():
        with only_one(run, "training"):
            _put_aside(run)
    with only_one(run, "training"):
        preprocess(workspace, dataset, plan, plan.configurations[configuration].data)
        previous = _first_stage(workspace, dataset, plan, run, settings)
        trainer = _trainer(workspace, dataset, run, previous, plan=plan, settings=settings)
        remove_partial(workspace.results(dataset.name))
        write_json(workspace.results(dataset.name) / "plan.json", plan)
        write_json(workspace.results(dataset.name) / "dataset.json", dataset)
        network = trainer.fit()
        result = validate_fold(_predictor(network, trainer), trainer.job, trainer.folders, dataset)
    device = trainer.device
    del network, trainer  # what comes next in this process may need their memory
    free_memory(device)
    log.info("%s, fold %s, whole volumes:\n%s", run.parent.name, fold, table(result))
    if mean_dice(result) < 0.01:
        log.warning("This network has learned nothing yet: give it more --time, or look at the labels with autoseg_check.")
    return result


def _checked(settings: TrainSettings, workspace: Workspace, plan: Plan, configuration: str, fold: str) -> TrainSettings:
    """Refuses what a user got wrong before anything long begins; hands back the settings with the checkpoint that is meant."""
    wanted_configurations([configuration], plan)
    lookup(TRAINERS, settings.trainer, "trainer")
    _budget(settings)
    _split(workspace, plan.dataset, fold)
    stage = plan.configurations[configuration].previous_stage
    if stage is not None and not workspace.splits(plan.dataset):
        raise ValueError(
            f"{configuration}: learns from {stage}'s predictions of cases that {stage} was not trained on, and the cases of one patient "
            f"cannot be split into such folds; train another configuration ({', '.join(without_stages(plan))})"
        )
    return replace(settings, pretrained=find_pretrained(settings.pretrained))


def without_stages(plan: Plan) -> list[str]:
    """Configurations that need no other one's predictions."""
    return [name for name, one in plan.configurations.items() if one.previous_stage is None]


def _split(workspace: Workspace, dataset: str, fold: str) -> Split:
    splits = workspace.splits(dataset)
    if fold == "all":
        return Split(workspace.usable_cases(dataset), workspace.usable_cases(dataset))
    if not fold.isdecimal() or int(fold) >= len(splits):
        expected = f"0 to {len(splits) - 1} or all" if splits else "all (one patient cannot be split)"
        raise ValueError(f"fold: expected {expected}, got {fold!r}")
    return splits[int(fold)]


def _put_aside(run: Path) -> None:
    kept = next(path for i in range(1, 10_000) if not (path := run.with_name(f"old_{run.name}_{i}")).exists())
    run.rename(kept)
    log.info("The former run is kept as %s", kept)


def _first_stage(workspace: Workspace, dataset: Dataset, plan: Plan, run: Path, settings: TrainSettings) -> Path | None:
    """Trains what a cascade needs of its first stage, and brings its predictions of the run's cases to the second stage's grid."""
    configuration = plan.configurations[run.parent.name.partition("__")[0]]
    stage = configuration.previous_stage
    if stage is None:
        return None
    model, data = workspace.model(dataset.name, stage, settings.trainer), workspace.preprocessed(dataset.name) / configuration.data
    split, store = _split(workspace, dataset.name, run.name.removeprefix("fold_")), Store(data)
    names = [name for name in sorted({*split.train, *split.val}) if store.has(name)]
    folds = folds_that_validate(workspace.splits(dataset.name))
    for fold in sorted({folds[name] for name in cases_without_prediction(model, folds, names) if name in folds}, key=int):
        log.info("%s needs %s's prediction of every case: training its fold %s first, same budget.", configuration.name, stage, fold)
        train(dataset.folder, stage, fold, _without_restart(settings), home=workspace.home)
    return prepare_previous(model, folds, names, data, plan)


def _without_restart(settings: TrainSettings) -> TrainSettings:
    return replace(settings, restart=False, pretrained=None)


def _trainer(workspace: Workspace, dataset: Dataset, run: Path, previous: Path | None, *, plan: Plan, settings: TrainSettings) -> Trainer:
    """The trainer of a run: as its ``run.json`` says if it was begun before, else as the settings and the device ask for."""
    device = choose_device(settings.device)
    record = run / "run.json"
    if record.is_file():
        job = read_json(record, TrainingJob)
        log.info("This run was begun before, with %s; it goes on so (begin anew with --restart).", job.budget.why)
    else:
        configuration = plan.configurations[run.parent.name.partition("__")[0]]
        job = _new_job(plan, configuration, _split(workspace, dataset.name, run.name.removeprefix("fold_")), run, settings=settings)
    data = workspace.preprocessed(dataset.name) / job.configuration.data
    trainer = lookup(TRAINERS, job.trainer, "trainer")(job, RunFolders(run, data, previous), device=device)
    if not record.is_file():
        check_pretrained(trainer.network, job.pretrained)
        write_json(record, job)
    return trainer


def _like_siblings(configuration: Configuration, patch: tuple[int, ...] | None, run: Path) -> Configuration:
    """The configuration with the patch of the model's other folds, where there are any."""
    if patch is None or patch == configuration.patch_size:
        return configuration
    now, planned = ("x".join(map(str, sizes)) for sizes in (patch, configuration.patch_size))
    log.warning(
        "Patch %s as in the folds of this model that were begun before, not %s; to change it, move %s away.", now, planned, run.parent
    )
    return replace(configuration, patch_size=patch)


def _new_job(plan: Plan, configuration: Configuration, split: Split, run: Path, *, settings: TrainSettings) -> TrainingJob:
    device = choose_device(settings.device)
    budget = _budget(settings)
    configuration, batch_why = fit_batch(configuration, device.type, batch=settings.batch)
    siblings_patch = patch_of_siblings(run)
    configuration = _like_siblings(configuration, siblings_patch, run)
    stage = configuration.previous_stage
    job = TrainingJob(
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
    free_memory(device)  # a training before this one may have left some
    configuration, cost, memory_why = fit_memory(
        configuration, lambda one: measure_step(replace(job, configuration=one), str(device)), limit_bytes=device_memory(device)
    )
    if siblings_patch is None:
        configuration, patch_why = fit_time(configuration, budget, cost.seconds)
    elif configuration.patch_size == siblings_patch:
        patch_why = ""
    else:
        raise ValueError(f"{run}: patch {siblings_patch} of the model's other folds does not fit on {device}; move {run.parent} away")
    log.info("Training %s, fold %s, on %s: %s.", configuration.name, run.name.removeprefix("fold_"), device, budget.why)
    log.info("%s; %.3g s and %.1f GB a step.", batch_why, cost.seconds, cost.peak_bytes / 1e9)
    for why in filter(None, (memory_why, patch_why)):
        log.info("%s.", why)
    if budget.kind == "iterations":
        log.info("It will take about %s.", _duration(budget.amount * cost.seconds))
    options = default_options(budget, device.type, batch=configuration.batch_size, learning_rate=settings.learning_rate)
    return replace(job, configuration=configuration, options=options)


def _budget(settings: TrainSettings) -> Budget:
    device = choose_device(settings.device)
    return choose_budget(device.type, epochs=settings.epochs, iterations=settings.iterations, seconds=settings.seconds)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{max(1, minutes)} min"


def _predictor(network: nn.Module, trainer: Trainer) -> Predictor:
    return Predictor([network], trainer.job.configuration, trainer.job.plan.labels, device=trainer.device)
