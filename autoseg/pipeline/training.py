"""Training one fold: what it needs first, how long it takes, where it goes on, and how it is validated."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ..data.ct_windows import Window
from ..data.descriptions import check_files, check_leave, copy_planned_dataset, planned_dataset
from ..evaluation.folders import mean_dice, table
from ..planners.measured_dataset import FINGERPRINT
from ..preprocessing.planned_cases import preprocess
from ..preprocessing.storage import Store
from ..presets.explanation import explain
from ..runtime.case_contents import changed_validation_cases, note_contents
from ..runtime.hardware import choose_device, release_memory
from ..runtime.locks import exclusive_lock, remove_partial_files
from ..runtime.registry import allows_code, lookup, named_in
from ..runtime.runs import ModelFolder, Run, read_history, started_runs
from ..runtime.sealing import is_edited
from ..runtime.serialization import write_json
from ..runtime.workspace import Workspace, find_workspace
from ..schema import Dataset, Plan, PseudoLabels, Score
from ..schema.settings import TrainSettings
from ..trainers import TRAINERS
from ..trainers.cascade.out_of_fold import cases_without_prediction, folds_that_validate, prepare_previous
from ..trainers.cascade.planned_region import record_candidate_region
from ..trainers.case_sampling import with_case_facts
from ..trainers.cheaper_validation import is_cheaper_interrupted, validate_cheaper
from ..trainers.corrected_references import needs_validation, score_corrected
from ..trainers.fine_tuning import check_pretrained, find_pretrained
from ..trainers.learning_checks import not_learnt
from ..trainers.longer import check_longer, is_trained_on, with_requested_time
from ..trainers.option_names import check_option_names
from ..trainers.resume_checks import (
    check_folds,
    check_resumable,
    check_same_model,
    warn_if_options_differ,
    warn_of_former_contents,
)
from ..trainers.run_options import RunFolders
from ..trainers.run_setup import budget_of, new_record, of_sources, split_of, with_validation
from ..trainers.time_estimates import stored_sizes
from ..trainers.trainer import Trainer
from ..trainers.training_spec import TrainingSpec, is_of_cascade, of_stage, training_spec
from ..trainers.trial import score_trial
from ..trainers.trial_checks import check_trial, checked_training_options
from ..trainers.validation import validate_fold
from .first_stage_of_unlabelled import first_stage_folder
from .pseudo_labelling import check_pseudo_labels, check_teachers, pseudo_labels_of, with_pseudo_labels
from .total_time import LEAST_MEASURED, TRYING_SECONDS, PlannedCases, describe_total

log = logging.getLogger(__name__)


@allows_code()
def train(
    which: str | int,
    configuration: str,
    fold: str | int,
    settings: TrainSettings | None = None,
    *,
    home: str | Path | None = None,
    failures: MutableMapping[str, str] | None = None,
    preset: str | None = None,
) -> list[Score]:
    """Trains and validates one fold; goes on where an interrupted run stopped; does nothing where it is finished.

    Args:
        which: Dataset id, name or folder.
        configuration: ``2d``, ``3d_fullres``, ``3d_lowres`` or ``3d_cascade``, as planned.
        fold: Number of the fold, or ``all``.
        failures: Gets case -> reason for the cases that could not be prepared or validated, without which the fold is not finished: they
            are tried again the next time. They are logged in any case, and those of validation lie in ``validation/failures.json``.
        preset: Name of the paper's preset that the settings come from, of which the log says what runs.

    Returns:
        Scores of the fold's validation cases.

    Raises:
        NothingValidatedError: Of these not one could be validated.
        ValueError: Unknown configuration or fold, or no plan yet; the message gives the command.
    """
    asked = requested_training(which, configuration, fold, settings or TrainSettings(), home=home)
    workspace, dataset, spec, run, settings = asked.workspace, asked.dataset, asked.spec, asked.run, asked.settings
    if asked.is_finished and not _is_validated_again(run, dataset):
        return _finished(run, dataset, spec, settings, home=workspace.home)
    check_begins(asked, preset)
    by_plan = partial(_named_by_plan, asked.plan_file, settings)
    if settings.restart and run.folder.exists():
        with exclusive_lock(run.folder, "training"):
            run.put_aside()
    failures = {} if failures is None else failures
    if not run.is_started:
        _tell_total(asked, settings)
    with exclusive_lock(run.folder, "training"), named_in(run.record_file) if run.is_started else by_plan():
        result = _fit_and_validate(workspace, dataset, spec, run, settings=settings, failures=failures)
    if settings.trial is not None:
        log.info("%s, fold %s: Dice %.4f of %d held-out cases, without mirroring.", *_of_trial(run, result))
        return result
    release_memory(choose_device(settings.device))
    _tell_scores(run, dataset, result)
    return result


def _tell_total(asked: RequestedTraining, settings: TrainSettings) -> None:
    """What is to come, before it is spent; of a few iterations nothing, as measuring a step would take longer."""
    budget, spec, workspace = budget_of(settings), asked.spec, asked.workspace
    if budget.kind != "time" and budget.amount < LEAST_MEASURED and spec.configuration.previous_stage is None:
        return
    limit = None if budget.kind == "time" else TRYING_SECONDS
    planned, windows = PlannedCases.read(workspace, workspace.plan(asked.dataset.name)), asked.dataset.windows
    log.info("%s.", describe_total([(settings, spec)], [asked.run.fold], workspace, planned, windows=windows, limit=limit))


@dataclass(frozen=True)
class RequestedTraining:
    """A training as a user asked for it, checked as far as the plan and the settings tell.

    Attributes:
        spec: Plan and configuration after network, organs, window and trainer were applied to them.
        run: The fold, started before or not.
        settings: Of this stage of a cascade, with the checkpoint that is meant.
    """

    workspace: Workspace
    dataset: Dataset
    spec: TrainingSpec
    run: Run
    settings: TrainSettings

    @property
    def plan_file(self) -> Path:
        """The plan that the training follows."""
        return self.workspace.preprocessed(self.dataset.name) / "plan.json"

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to train; cases may have to be validated again."""
        return self.run.is_finished and not self.settings.restart and not is_trained_on(self.run, self.settings)


def requested_training(
    which: str | int, configuration: str, fold: str | int, settings: TrainSettings, *, home: str | Path | None = None
) -> RequestedTraining:
    """What a training would be; nothing is written.

    Raises:
        ValueError: It cannot be had: an unknown configuration, fold or name, no plan, or another model of that name.
    """
    workspace = find_workspace(home, dataset=str(which))
    dataset = planned_dataset(workspace, which)
    fold = str(int(fold)) if str(fold).isdecimal() else str(fold)
    by_plan = partial(_named_by_plan, workspace.preprocessed(dataset.name) / "plan.json", settings)
    with by_plan():
        spec = training_spec(workspace.plan(dataset.name), configuration, settings, windows=dataset.windows)
    settings = _checked(of_stage(settings, spec), workspace, spec, fold)
    of_sources(split_of(workspace, dataset.name, fold), dataset, settings, spec.plan.labels)
    check_pseudo_labels(dataset, spec, settings)
    run = spec.model(workspace.results(dataset.name), settings.trainer).run(fold)
    with by_plan():
        spec = as_siblings(spec, run, settings, workspace.plan(dataset.name), windows=dataset.windows)
    check_same_model(run, spec.plan, spec.configuration, settings)
    check_longer(settings, run)
    return RequestedTraining(workspace, dataset, spec, run, settings)


def check_begins(asked: RequestedTraining, preset: str | None = None) -> None:
    """Refuses (ValueError) a training that cannot begin or go on; the log says what of a paper's `preset` runs."""
    workspace, dataset, spec, run, settings = asked.workspace, asked.dataset, asked.spec, asked.run, asked.settings
    if settings.restart or not run.is_started:
        check_teachers(workspace.results(dataset.name), spec, run, settings)
        with _named_by_plan(asked.plan_file, settings):
            check_trial(spec, settings)
    explain(preset, [as_started(spec, run, settings)], windows=dataset.windows)
    check_files(dataset, workspace.home)
    _check_goes_on(run, spec, workspace, dataset, restart=settings.restart)


def _check_goes_on(run: Run, spec: TrainingSpec, workspace: Workspace, dataset: Dataset, *, restart: bool) -> None:
    """Before anything else, as preprocessing for another plan would replace the data of a run that was started."""
    check_resumable(run, spec.plan, spec.configuration, cases=dataset.cases, restart=restart)
    others = [one for one in started_runs(run.model.folder.parent) if not (restart and one == run)]
    check_folds(others, workspace.splits(dataset.name), workspace.preprocessed(dataset.name) / "splits.json")


def _named_by_plan(plan_file: Path, settings: TrainSettings) -> AbstractContextManager[None]:
    """Names the plan in messages about a network, unless the settings name the network or its options."""
    return named_in(plan_file) if settings.network is None and not settings.network_options else nullcontext()


def _tell_scores(run: Run, dataset: Dataset, result: list[Score]) -> None:
    log.info("%s, fold %s, whole volumes:\n%s", run.model.name, run.fold, table(result, tolerance_mm=dataset.tolerances))
    last = (read_history(run.history_file) or [{}])[-1]
    budget = run.record().budget if run.is_started else None
    steps, seconds = int(last.get("iteration", 0)), last.get("seconds", math.nan)
    for line in not_learnt(result, steps=steps, seconds=seconds, budget=budget):
        log.warning("%s", line)


def _of_trial(run: Run, scores: list[Score]) -> tuple[str, str, float, int]:
    return run.model.name, run.fold, mean_dice(scores), len({score.case for score in scores})


def as_siblings(spec: TrainingSpec, run: Run, settings: TrainSettings, plan: Plan, *, windows: Mapping[str, Window] | None) -> TrainingSpec:
    """The spec with what a model's other folds have, where nobody asked for anything: what earlier versions did, beside them and on resume.

    These gave every network two outputs, and trainers had other defaults (`Trainer.options_of_siblings`). `plan` is the dataset's.
    """
    begun = run.siblings() if settings.restart else run.model.runs()
    if not begun:
        return spec
    first = begun[0].record().configuration
    options = lookup(TRAINERS, settings.trainer, "trainer").options_of_siblings(settings.trainer_options, first)
    if options != settings.trainer_options:
        spec = training_spec(plan, first.name, replace(settings, trainer_options=options), windows=windows)
    if settings.sigmoid is not None:
        return spec
    return replace(spec, configuration=replace(spec.configuration, sigmoid=first.sigmoid))


def as_started(spec: TrainingSpec, run: Run, settings: TrainSettings) -> tuple[TrainSettings, TrainingSpec]:
    """Settings and plan that will run: of a run that was started before, those that it was started with."""
    if settings.restart or not run.is_started:
        return settings, spec
    record = run.record()
    return record.settings or settings, replace(spec, plan=record.plan, configuration=record.configuration)


def _is_validated_again(run: Run, dataset: Dataset) -> bool:
    """Whether cases of a finished run must be predicted again, or cheaper ways of predicting them measured yet; said in the log."""
    again = needs_validation(run, dataset.cases) if run.is_started else []
    if again:
        log.warning("%s: validated again, as nothing is there of the present networks' predictions of %s", run.folder, ", ".join(again))
    elif run.is_started and is_cheaper_interrupted(run):
        log.info("%s: what cheaper ways of predicting lose is measured, which was interrupted.", run.folder)
        return True
    return bool(again)


def _finished(run: Run, dataset: Dataset, spec: TrainingSpec, settings: TrainSettings, *, home: Path) -> list[Score]:
    """The scores of a finished run, those of corrected cases made again."""
    if run.is_started:
        run.record()  # a damaged one is an error, and not "finished already"
    log.info("%s is finished already; nothing to do (start over with --restart).", run.folder)
    if not run.is_started:
        return run.scores()
    warn_if_options_differ(run, spec.configuration, settings)
    warn_of_former_contents(run, dataset.cases)
    if changed_validation_cases(run, dataset.cases):  # whose label maps are read
        check_leave(dataset, home)
    return score_corrected(run, dataset)


def _fit_and_validate(
    workspace: Workspace, dataset: Dataset, spec: TrainingSpec, run: Run, *, settings: TrainSettings, failures: MutableMapping[str, str]
) -> list[Score]:
    """What a run does in its locked folder; its networks are gone afterwards, as what comes next in this process may need their memory."""
    failed = preprocess(workspace, dataset, spec.plan, spec.configuration)
    previous = _first_stage(workspace, dataset, spec, run, settings)
    pseudo = pseudo_labels_of(workspace, dataset, spec, run, settings)
    # Folds that are started at the same time must agree on patch, network and region.
    with exclusive_lock(run.model.folder, "beginning another fold", wait=True):
        trainer = _trainer(workspace, dataset, spec, run, (previous, pseudo), settings=settings)
    remove_partial_files(workspace.results(dataset.name))
    copy = workspace.results(dataset.name) / "plan.json"
    if is_edited(copy):
        log.warning("%s: was edited, so it is kept; autoseg_find_best_configuration %s --overwrite replaces it.", copy, dataset.name)
    else:
        write_json(copy, workspace.plan(dataset.name))
    copy_planned_dataset(workspace, dataset.name)
    is_longer = is_trained_on(run, settings)
    network = trainer.fit(longer=is_longer)
    if is_longer:  # last: until then the run is what it was
        write_json(run.record_file, trainer.job)
    if settings.trial is not None:
        return score_trial(trainer, network, dataset, patients=settings.trial)
    _plan_validation(trainer)
    try:
        scores = validate_fold(trainer.predictor(network), trainer.job, trainer.folders, dataset)
        validate_cheaper(trainer, network, dataset)
        return scores
    finally:
        failures.update(run.failures() | failed)


def _plan_validation(trainer: Trainer) -> None:
    """Plans validation again, by what it costs now, and records what differs."""
    split = trainer.job.split
    planned = with_validation(trainer, stored_sizes(trainer.folders.data, split.val or split.train))
    if planned != trainer.job:
        write_json(trainer.folders.files.record_file, planned)
    trainer.job = planned


def _checked(settings: TrainSettings, workspace: Workspace, spec: TrainingSpec, fold: str) -> TrainSettings:
    """Refuses what a user got wrong before anything long begins; hands back the settings with the checkpoint that is meant."""
    plan, stage = spec.plan, spec.configuration.previous_stage
    if settings.sigmoid and not spec.configuration.sigmoid and plan.labels.n_outputs > 1:  # one region has one output anyway
        log.warning("--sigmoid: one output is for a model of one organ; this one has %d.", plan.labels.n_outputs)
    checked_training_options(settings)
    check_option_names(settings.changed_options)
    split_of(workspace, plan.dataset, fold)
    if stage is not None and not workspace.splits(plan.dataset):
        raise ValueError(
            f"{spec.configuration.name}: learns from {stage}'s predictions of cases that {stage} was not trained on, and the cases of "
            f"one patient cannot be split into such folds; train another configuration ({', '.join(without_stages(plan))})"
        )
    if settings.first_iterations is not None and not is_of_cascade(spec):
        name = spec.configuration.name
        log.warning("--first-iterations %d changes nothing here: %s is no stage of a cascade.", settings.first_iterations, name)
    return replace(settings, pretrained=find_pretrained(settings.pretrained))


def without_stages(plan: Plan) -> list[str]:
    """Configurations that need no other one's predictions."""
    return [name for name, one in plan.configurations.items() if one.previous_stage is None]


def _first_stage(workspace: Workspace, dataset: Dataset, spec: TrainingSpec, run: Run, settings: TrainSettings) -> Path | None:
    """Trains what a cascade needs of its first stage, and brings its predictions of the run's cases to the second stage's grid."""
    plan, configuration, stage = spec.plan, spec.configuration, spec.configuration.previous_stage
    if stage is None:
        return None
    model = spec.model(run.model.folder.parent, settings.trainer, stage).folder
    data = workspace.preprocessed(dataset.name) / configuration.data
    split, store = split_of(workspace, dataset.name, run.fold), Store(data)
    names = [name for name in sorted({*split.train, *split.val}) if store.has(name)]
    for fold in first_stage_folds(workspace, spec, model, names):
        log.info("%s needs %s's prediction of every case: training its fold %s first.", configuration.name, stage, fold)
        # Folds of the cascade that are started at once need the same: one trains it, the others wait and find it finished.
        with exclusive_lock(model, f"training fold {fold} of {stage} first", wait=True, name=f".first_stage_{fold}.lock"):
            with exclusive_lock(ModelFolder(model).run(fold).folder, "training", wait=True):
                pass  # somebody may be training it for itself
            train(dataset.name, stage, fold, of_first_stage(settings), home=workspace.home)
    return prepare_previous(model, folds_that_validate(workspace.splits(dataset.name)), names, data, plan)


def of_first_stage(settings: TrainSettings) -> TrainSettings:
    """The settings with which a cascade trains its first stage."""
    return replace(settings, restart=False, pretrained=None, pseudo_labels=False, longer=False, trial=None)


def first_stage_folds(workspace: Workspace, spec: TrainingSpec, model: Path, names: Sequence[str]) -> list[str]:
    """The folds of a cascade's first stage, in the folder `model`, that must be trained before its second can learn from some cases."""
    folds = folds_that_validate(workspace.splits(spec.plan.dataset))
    return sorted({folds[name] for name in cases_without_prediction(model, folds, names) if name in folds}, key=int)


def _trainer(
    workspace: Workspace,
    dataset: Dataset,
    spec: TrainingSpec,
    run: Run,
    learnt_from: tuple[Path | None, PseudoLabels | None],
    *,
    settings: TrainSettings,
) -> Trainer:
    """The trainer of a run: as its ``run.json`` says if it was started before, else as the settings and the device ask for.

    `learnt_from`: segmentations of the previous stage, and pseudo-labels.
    """
    device, (previous, pseudo) = choose_device(settings.device), learnt_from
    if run.is_started:
        record = run.record()
        before, record = record, with_requested_time(record, run, settings)
        if record is before:
            log.info("This run was started before, with %s; it goes on so (start over with --restart).", record.budget.why)
        else:
            log.info("This run was started before, with %s; it goes on with %s.", before.budget.why, record.budget.why)
        if record is not before and not run.is_trained:
            write_json(run.record_file, record)
        warn_if_options_differ(run, spec.configuration, settings)
    else:
        split = of_sources(split_of(workspace, spec.plan.dataset, run.fold), dataset, settings, spec.plan.labels)
        data = workspace.preprocessed(spec.plan.dataset) / spec.configuration.data
        record = new_record(spec, split, run, previous, settings=settings, held_out=stored_sizes(data, split.val or split.train))
        record = replace(record, pseudo_labels=pseudo)
        record = with_case_facts(record, dataset, workspace.preprocessed(spec.plan.dataset) / FINGERPRINT)
    folders = RunFolders(run.folder, workspace.preprocessed(spec.plan.dataset) / record.configuration.data, previous)
    folders = with_pseudo_labels(folders, workspace, spec, record.pseudo_labels)
    folders = replace(folders, unlabelled_previous=first_stage_folder(workspace, spec, run, record.previous_model))
    trainer_class = lookup(TRAINERS, record.trainer, "trainer")
    if not run.is_started:
        record = trainer_class.fit_to_data(record, folders)
        record_candidate_region(workspace, spec, record, run.model.folder)
    trainer = trainer_class(record, folders, device=device)
    if not run.is_started:
        check_pretrained(trainer.network, record.pretrained, trainer.new_head())
        of_fold = {*record.split.train, *record.split.val}
        note_contents(run.record_file, [case for case in dataset.cases if case.name in of_fold])
        write_json(run.record_file, record)
    return trainer
