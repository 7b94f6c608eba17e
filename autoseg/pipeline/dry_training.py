"""What planning, a training, an ensemble or a whole run would do, as ``--dry-run`` says it; nothing is written."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..planners.configurations import selected_configurations
from ..planners.measured_dataset import FINGERPRINT
from ..planners.plan import describe
from ..preprocessing.preprocess import cases_to_preprocess
from ..presets.experiment import Experiment
from ..runtime.hardware import choose_device
from ..runtime.registry import allows_code
from ..runtime.runs import ModelFolder, Run
from ..runtime.shown_text import duration
from ..runtime.workspace import DESCRIPTION, Workspace, find_workspace
from ..schema import Configuration, Dataset, Plan, Split
from ..schema.settings import EnsembleSettings, PlanSettings, TrainSettings
from ..trainers.cheaper_validation import is_cheaper_interrupted
from ..trainers.corrected_references import needs_validation
from ..trainers.longer import is_trained_on
from ..trainers.run_setup import budget_of, of_sources, split_of
from ..trainers.training_spec import TrainingSpec
from .dry_run import DryRun, would_write
from .ensembles import ensemble_to_train
from .preparing import MadePlan, plan_only
from .running import check_planned, check_unplanned, checked_trainings
from .total_time import TRYING_SECONDS, PlannedCases, describe_total
from .training import RequestedTraining, check_begins, first_stage_folds, requested_training


def dry_plan(which: str | int, settings: PlanSettings | None = None, *, home: str | Path | None = None) -> DryRun:
    """The plan that `plan_and_preprocess` would write with the same arguments, and what it would preprocess.

    Raises:
        ValueError: As of `plan_and_preprocess`.
    """
    made = plan_only(which, settings, home=home)
    workspace = find_workspace(home, dataset=str(which))
    return DryRun(tuple(_plan_lines(made, workspace)), made.left_out, len(made.dataset.cases) + len(made.left_out))


def _plan_lines(made: MadePlan, workspace: Workspace) -> list[str]:
    folder, dataset = workspace.preprocessed(made.dataset.name), made.dataset
    usable = {case.name for case in made.fingerprint.cases}
    cases = tuple(case for case in dataset.cases if case.name in usable)
    lines = [
        describe(made.plan),
        f"{len(cases)} cases of {len({case.group or case.name for case in cases})} patients, {_folds(made.splits)}.",
    ]
    lines += would_write(*(folder / name for name in (DESCRIPTION, FINGERPRINT, "plan.json", "splits.json")))
    for one in made.configurations:
        lines.append(_preprocessing(replace(dataset, cases=cases), made.plan, one, folder / one.data))
    return lines


def _folds(splits: Sequence[Split]) -> str:
    return f"{len(splits)} folds" if splits else "no folds, as one patient cannot be split"


def _preprocessing(dataset: Dataset, plan: Plan, configuration: Configuration, folder: Path) -> str:
    """How many cases of a configuration's data would be preprocessed."""
    waiting = cases_to_preprocess(dataset, plan, configuration, folder)
    if not waiting:
        return f"{configuration.name}: all {len(dataset.cases)} cases are preprocessed already in {folder}."
    return f"{configuration.name}: {len(waiting)} of {len(dataset.cases)} cases would be preprocessed into {folder}."


@allows_code()
def dry_training(
    which: str | int,
    configuration: str,
    fold: str | int,
    settings: TrainSettings | None = None,
    *,
    home: str | Path | None = None,
    preset: str | None = None,
) -> DryRun:
    """What `train` would do with the same arguments.

    Raises:
        ValueError: As of `train`.
    """
    asked = requested_training(which, configuration, fold, settings or TrainSettings(), home=home)
    if asked.is_finished:
        again = needs_validation(asked.run, asked.dataset.cases) if asked.run.is_started else []
        nothing = "; nothing would be done (--restart starts over)"
        if asked.run.is_started and is_cheaper_interrupted(asked.run):
            nothing = "; what cheaper ways of predicting lose would be measured, which was interrupted"
        validated = f"; validated again: {', '.join(again)}" if again else nothing
        return DryRun((f"{asked.run.folder} is finished already{validated}.",))
    check_begins(asked, preset)
    return DryRun(tuple(_training_lines(asked)))


def _training_lines(asked: RequestedTraining) -> list[str]:
    workspace, dataset, spec, run, settings = asked.workspace, asked.dataset, asked.spec, asked.run, asked.settings
    split = of_sources(split_of(workspace, dataset.name, run.fold), dataset, settings, spec.plan.labels)
    usable = set(workspace.usable_cases(dataset.name))
    known = replace(dataset, cases=tuple(case for case in dataset.cases if case.name in usable))
    data = workspace.preprocessed(dataset.name) / spec.configuration.data
    lines = [
        f"{run.model.name}, fold {run.fold}, of {dataset.name}: learns from {len(split.train)} cases, {_held_out(split)}.",
        _preprocessing(known, spec.plan, spec.configuration, data),
    ]
    if stage := spec.configuration.previous_stage:
        model = spec.model(run.model.folder.parent, settings.trainer, stage).folder
        folds = first_stage_folds(workspace, spec, model, sorted({*split.train, *split.val}))
        lines.append(f"{stage}: fold {', '.join(folds)} would be trained first." if folds else f"{stage}: its predictions are there.")
    if settings.pseudo_labels:
        lines.append(f"{len(dataset.unlabelled)} images without label maps would be predicted, to learn from them, too.")
    begun = run.record().budget.why if run.is_started and not settings.restart else ""
    lines.append(f"{_how_long(settings)}, on {choose_device(settings.device)}." if not begun else f"As it was started: {begun}.")
    if not run.is_started or settings.restart:
        planned = PlannedCases.read(workspace, workspace.plan(dataset.name))
        total = describe_total([(settings, spec)], [run.fold], workspace, planned, windows=dataset.windows, limit=TRYING_SECONDS)
        lines.append(f"{total}.")
    if settings.trial is not None:
        lines.append(f"Then {settings.trial} of the held-out patients would be scored, instead of a validation.")
    if is_trained_on(run, settings):
        return [*lines, f"Trained on, to {duration(settings.seconds or 0)} in all: {run.folder}"]
    return [*lines, _becomes(run, restart=settings.restart)]


def _held_out(split: Split) -> str:
    return "which also validate it" if split.val == split.train else f"is validated on {len(split.val)} held-out ones"


def _how_long(settings: TrainSettings) -> str:
    budget = budget_of(settings)
    return f"Training: {budget.why or (duration(budget.amount) if budget.kind == 'time' else f'{budget.amount:g} iterations')}"


def _becomes(run: Run, *, restart: bool) -> str:
    """What happens to the folder of a run."""
    if restart and run.folder.exists():
        return f"Renamed: {run.folder}, to old_{run.folder.name}_...; a new run takes its place"
    if run.is_trained:
        return f"Trained already, to be validated: {run.validation}"
    if run.latest_checkpoint.is_file():
        return f"Goes on from {run.latest_checkpoint}"
    return f"New: {run.folder}"


@allows_code()
def dry_ensemble(which: str | int, settings: EnsembleSettings, *, home: str | Path | None = None) -> DryRun:
    """What `train_ensemble` would do with the same arguments.

    Raises:
        ValueError: As of `train_ensemble`.
    """
    asked = ensemble_to_train(which, settings, home=home)
    design, model = asked.design, asked.model
    lines = [
        f"{model.name}: {settings.kind} of {', '.join(one.name for one in design.members)}; organs: {', '.join(design.organs)}.",
        f"Training of each fold: {asked.budget.why or f'{asked.budget.amount:g} {asked.budget.kind}'}.",
    ]
    for fold in asked.folds:
        run = model.run(fold)
        waits = fold in asked.waiting
        held_out = f" (validated on {len(asked.cases[fold])} cases)" if fold in asked.cases else ""
        lines.append(f"Fold {fold}{held_out}: {_becomes(run, restart=run in asked.replaced) if waits else 'is finished already'}.")
    return DryRun(tuple(lines))


@allows_code()
def dry_run(
    which: str | int,
    plan_settings: PlanSettings | None = None,
    experiment: Experiment | None = None,
    *,
    folds: tuple[str, ...] | None = None,
    home: str | Path | None = None,
) -> DryRun:
    """What `run` would do with the same arguments: the plan, each training with what is there of it, and the choice.

    Raises:
        ValueError: As of `run`.
    """
    plan_settings = plan_settings or PlanSettings()
    several = [TrainSettings()] if experiment is None else list(experiment.trainings)
    workspace = find_workspace(home, dataset=str(which))
    check_unplanned(workspace.dataset_folder(which), several, folds or ())
    check = partial(check_planned, asked=plan_settings.configurations, several=several, folds=folds or (), home=workspace)
    made = plan_only(which, plan_settings, home=home, check=check)
    results = workspace.results(made.plan.dataset)
    names = [
        name
        for name in selected_configurations(plan_settings.configurations, made.plan)
        if made.splits or made.plan.configurations[name].previous_stage is None
    ]
    trainings = checked_trainings(list(itertools.product(names, several)), made.plan, made.dataset)
    folds = folds or tuple(str(number) for number in range(len(made.splits))) or ("all",)
    runs = _runs(trainings, folds, results)
    lines = [*_plan_lines(made, workspace), *(f"{name}, fold {run.fold}: {_state(run, one)}" for name, run, one in runs)]
    if experiment is not None and experiment.ensembles:
        lines.append(f"Then {len(experiment.ensembles)} ensembles of the paper are trained of them, as far as the folds allow.")
    planned = PlannedCases(made.plan, made.splits, {case.name: case for case in made.fingerprint.cases})
    total = describe_total(trainings, folds, workspace, planned, windows=made.dataset.windows, limit=TRYING_SECONDS)
    lines += [f"{total}.", *would_write(results / "choice.json", results / "plan.json")]
    return DryRun(tuple(lines), made.left_out, len(made.dataset.cases) + len(made.left_out))


Planned = tuple[str, Run, TrainSettings]


def _runs(trainings: Sequence[tuple[TrainSettings, TrainingSpec]], folds: Sequence[str], results: Path) -> list[Planned]:
    """Name of the model, fold and settings of every training, in the order in which they are run."""
    models: list[tuple[ModelFolder, TrainSettings]] = [(spec.model(results, one.trainer), one) for one, spec in trainings]
    return [(model.name, model.run(fold), one) for (model, one), fold in itertools.product(models, folds)]


def _state(run: Run, settings: TrainSettings) -> str:
    if run.is_finished and not settings.restart:
        return "is finished already"
    return f"{_how_long(settings)}. {_becomes(run, restart=settings.restart)}"
