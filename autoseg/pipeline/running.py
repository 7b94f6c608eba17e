"""Everything in one go, for a dataset of one's own."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..data.ct_windows import Window
from ..data.dataset_json import read_info
from ..data.descriptions import planned_dataset
from ..data.label_names import parse_labels
from ..evaluation.metrics import find_metric
from ..planners.configurations import selected_configurations
from ..preprocessing.preprocess import knows_spacing
from ..presets.experiment import Experiment
from ..presets.explanation import explain
from ..presets.paper_preset import PaperPreset, words_about
from ..runtime.registry import allows_code
from ..runtime.runs import ALL
from ..runtime.workspace import Workspace, find_workspace
from ..schema import Choice, Dataset, Plan, Split
from ..schema.settings import PlanSettings, TrainSettings
from ..selection.stored_scores import taught_models
from ..trainers.resume_checks import check_same_data
from ..trainers.run_setup import check_fold, of_sources
from ..trainers.training_spec import of_stage, training_spec
from ..trainers.trial_checks import check_names, check_trial
from ..trainers.validation import NothingValidatedError
from .choosing import describe_choice, find_best_configuration
from .paper_ensembles import describe_ensembles, train_paper_ensembles
from .preparing import plan_and_preprocess
from .pseudo_labelling import check_pseudo_labels
from .total_time import PlannedCases, Training, describe_total
from .training import as_siblings, as_started, train

log = logging.getLogger(__name__)

Pair = tuple[str, TrainSettings]
"""A configuration and how it is trained."""


@allows_code()
def run(
    which: str | int,
    plan_settings: PlanSettings | None = None,
    train_settings: TrainSettings | Sequence[TrainSettings] | None = None,
    *,
    folds: tuple[str, ...] | None = None,
    home: str | Path | None = None,
    failures: MutableMapping[str, str] | None = None,
    experiment: Experiment | None = None,
) -> Choice:
    """Plans, preprocesses, trains every configuration on every fold, and chooses; started again, it goes on where it was.

    With pseudo-labels each model is trained on the label maps alone first. The chosen ones teach, and the choice is made again among all.

    Args:
        which: Dataset id, name or folder.
        plan_settings: See `PlanSettings`; its configurations are the ones that are trained.
        train_settings: See `TrainSettings`; a budget counts for each training. Of several each is trained.
        folds: Names; None means all.
        failures: Gets case -> reason for the cases that were left out, or failed in training or in the choice; they stop no others.
        experiment: A paper's, whose trainings replace `train_settings`; the log says what of it runs, and the choice is the paper's.

    Returns:
        The choice.
    """
    plan_settings = plan_settings or PlanSettings()
    several = [train_settings] if train_settings is None or isinstance(train_settings, TrainSettings) else train_settings
    several = [one or TrainSettings() for one in several] if experiment is None else list(experiment.trainings)
    paper = None if experiment is None else experiment.paper
    if paper is not None and any(one.pseudo_labels for one in several):
        raise ValueError("--pseudo-labels: is no part of a paper's experiment; expected --preset without it (autoseg_train has it)")
    workspace = find_workspace(home, dataset=str(which))
    check_unplanned(workspace.dataset_folder(which), several, folds or ())
    check = partial(check_planned, asked=plan_settings.configurations, several=several, folds=folds or (), home=workspace)
    plan = plan_and_preprocess(which, plan_settings, home=home, check=check)
    failures = {} if failures is None else failures
    failures.update(workspace.left_out(plan.dataset))
    folds = folds or tuple(str(fold) for fold in range(len(workspace.splits(plan.dataset)))) or ("all",)
    configurations = selected_configurations(plan_settings.configurations, plan)
    if not workspace.splits(plan.dataset):
        configurations = _without_second_stages(configurations, plan)
    dataset, results = planned_dataset(workspace, which), workspace.results(plan.dataset)
    pairs = list(itertools.product(configurations, several))
    taught = [pair for pair in pairs if pair[1].pseudo_labels]
    pairs = [(name, replace(settings, pseudo_labels=False)) for name, settings in pairs]
    trainings = checked_trainings([*pairs, *taught], plan, dataset)
    more = "" if experiment is None else _explain_experiment(experiment, trainings, folds, results, windows=dataset.windows)
    planned = PlannedCases.read(workspace, plan)
    log.info("%s.%s", describe_total(trainings, folds, workspace, planned, windows=dataset.windows), more)
    how = _choice_of(paper, plan)
    _train_all(which, pairs, folds, home=workspace.home, failures=failures)
    if experiment is not None and experiment.ensembles:
        train_paper_ensembles(which, experiment, configurations, home=workspace.home, failures=failures)
    choose = partial(find_best_configuration, which, home=workspace.home, overwrite=plan_settings.overwrite, failures=failures)
    if taught:
        if not taught_models(results):  # else a former run came so far
            log.info("Chosen without pseudo-labels:\n%s", describe_choice(choose(**how)))
        _train_all(which, taught, folds, home=workspace.home, failures=failures)
    return choose(**how)  # may import what settings allow


def _explain_experiment(
    experiment: Experiment, trainings: Sequence[Training], folds: Sequence[str], results: Path, *, windows: Mapping[str, Window] | None
) -> str:
    """Says what of the paper runs; gives what follows the trainings, for the line of their total time."""
    models = [(settings, spec, spec.model(results, settings.trainer)) for settings, spec in trainings]
    begun = [as_started(spec, model.run(fold), settings) for settings, spec, model in models for fold in folds]
    explain(experiment.preset, begun, windows=windows, experiment=experiment)
    of_models = [{*folds, *model.trained_folds()} - {ALL} for _, _, model in models]
    return describe_ensembles(experiment.ensembles, min(map(len, of_models), default=0))


def _without_second_stages(configurations: Sequence[str], plan: Plan) -> list[str]:
    """What can be trained on a single patient, which the log says."""
    skipped = [name for name in configurations if plan.configurations[name].previous_stage is not None]
    log.info("One patient cannot be split into folds: trained on all cases%s.", f", without {', '.join(skipped)}" if skipped else "")
    return [name for name in configurations if name not in skipped]


def _choice_of(paper: PaperPreset | None, plan: Plan) -> dict[str, Any]:
    """Arguments of a paper's choice: no post-processing where organs overlap, and by Dice where nobody knows the spacing."""
    how = {} if paper is None else dict(paper.choice)
    metric = how.get("metric", "dice")
    if not knows_spacing(plan) and find_metric(metric).needs != "overlap":
        log.info("Otherwise than in the paper: models are chosen by dice, as %s needs a spacing, which nobody knows.", metric)
        how["metric"] = "dice"
    if words := " ".join(how.pop("postprocess", ())):
        if plan.labels.regions:
            log.info("Otherwise than in the paper: no post-processing (%s), as organs of this dataset overlap.", words)
        elif useful := words_about(plan.labels, words.split()):
            log.info("Models are chosen, and scored in the paper's table, with post-processing: %s.", " ".join(useful))
            how["postprocess"] = useful
    return how


def check_unplanned(folder: Path, trainings: Sequence[TrainSettings], folds: Sequence[str]) -> None:
    """Raises a ValueError for an organ, name, option or fold that no plan would make right, before a dataset is measured for it."""
    labels = parse_labels(read_info(folder), folder / "dataset.json")
    for settings in trainings:
        check_names(settings, labels)
    for fold in folds:
        if not (fold.isdecimal() or fold == "all"):
            raise ValueError(f"--folds: expected numbers of folds, or all, got {fold!r}")


def check_planned(
    plan: Plan,
    dataset: Dataset,
    splits: Sequence[Split],
    *,
    asked: Sequence[str] | None,
    several: Sequence[TrainSettings],
    folds: Sequence[str],
    home: Workspace,
) -> None:
    """Raises a ValueError where a training, fold or source cannot be had with this plan, before it is written.

    Args:
        asked: Configurations, as in `PlanSettings`.
        folds: Names; none means all.
        home: Whose models are there already, of which other folds must fit.
    """
    chosen = [splits[check_fold(fold, splits)] for fold in folds if fold != "all"]
    configurations = selected_configurations(asked, plan)
    if not splits:
        configurations = [name for name in configurations if plan.configurations[name].previous_stage is None]
    for settings, spec in checked_trainings(list(itertools.product(configurations, several)), plan, dataset):
        for split in chosen or splits:
            of_sources(split, dataset, settings, spec.plan.labels)
        model = spec.model(home.results(plan.dataset), settings.trainer)
        for run in map(model.run, folds or [str(number) for number in range(len(splits))] or ["all"]):
            if settings.restart or not run.is_finished:
                like = as_siblings(spec, run, settings, plan, windows=dataset.windows)
                check_same_data(run, like.plan, like.configuration, restart=settings.restart)


def checked_trainings(pairs: Sequence[Pair], plan: Plan, dataset: Dataset) -> list[Training]:
    """What each training will be; a ValueError where one cannot begin: a mistake in the last must not show after days."""
    trainings = [(settings, training_spec(plan, name, settings, windows=dataset.windows)) for name, settings in pairs]
    trainings = [(of_stage(settings, spec), spec) for settings, spec in trainings]
    for settings, spec in trainings:
        check_trial(spec, settings)
        check_pseudo_labels(dataset, spec, settings)
    return trainings


def _train_all(which: str | int, pairs: Sequence[Pair], folds: Sequence[str], *, home: Path, failures: MutableMapping[str, str]) -> None:
    for (configuration, settings), fold in itertools.product(pairs, folds):
        try:
            train(which, configuration, fold, settings, home=home, failures=failures)
        except NothingValidatedError as error:  # the choice is made by the other folds
            log.error("%s", error)
