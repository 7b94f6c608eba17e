"""A dataset and its models as a study sees them: estimates, files on disk, and the commands of its tasks."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from ..planners.budget import MIN_BATCH_SIZE, PROBING_SHARE, choose_budget, fit_batch, fit_time_budget
from ..preprocessing.storage import Store
from ..runtime.case_contents import predicted_by_others
from ..runtime.commands import words_of
from ..runtime.hardware import StepCost, choose_device, cpu_count
from ..runtime.locks import exclusive_lock
from ..runtime.runs import Run, read_history
from ..runtime.workspace import Workspace
from ..schema import Configuration, Split
from ..schema.settings import PlanSettings, TrainSettings
from ..study.halving import TrialScores
from ..study.situation import Costs, Entrant, Job, Progress
from ..study.table import describe_job
from ..study.tasks import Ended, Resources, Task
from ..trainers.cheaper_validation import TIME_SHARE
from ..trainers.step_cost import step_elements
from ..trainers.time_estimates import case_size, predicted_preprocessing, predicted_step
from ..trainers.training_spec import TrainingSpec
from ..trainers.trial import read_trial
from ..trainers.validation_plan import LEAST_VALIDATION, VALIDATION_SHARE, predicted_validation
from .preparing import MadePlan

log = logging.getLogger(__name__)

PROCESS_SECONDS = 8.0
"""Until a command has loaded what it needs, and verified the files of its cases."""
PROBING_SECONDS = 15.0
"""Of trying steps before a training begins, at the most a tenth of it."""
WAIT_SECONDS = 60
"""For so long a former process of a training may save its state."""
MOST_PROBING = 60.0
"""Of measuring a step of a candidate before anything is planned."""
VERIFY_SECONDS = 0.02
"""Of a case that is preprocessed already."""
CHOICE_SECONDS, CHOICE_CASE, CHOICE_VOXEL = 10.0, 0.1, 6e-7
"""Of the choice: at first, for each held-out case, and for each of its voxels, organs' worth of candidates apart."""
STORING = 1.15 + TIME_SHARE
"""What a validation takes more than a trial of as many cases: it stores predictions, measures distances, and tries cheaper ways."""
ENSEMBLE_SECONDS, ENSEMBLE_CASE = 25.0, 0.5
"""Of a learned ensemble: for each fold, and for each held-out case and member."""
ENSEMBLE_SHARE = 0.05
"""Of the whole time that a learned ensemble may take."""


@dataclass(frozen=True, kw_only=True)
class StudyWorld:
    """What there is to train; see `study.conductor.World`.

    Attributes:
        plan_settings: Of the plan, with the configurations that were asked for.
        settings: Of each training.
        specs: Candidate to what its training follows, first stages before their cascades.
        asked_folds: By the user; none means as many as the time is enough for.
        known: Candidate to costs that were measured before.
        expected_seconds: About what each training will get.
        lanes: Trainings at a time.
    """

    workspace: Workspace
    draft: MadePlan
    plan_settings: PlanSettings
    settings: TrainSettings
    specs: Mapping[str, TrainingSpec]
    asked_folds: tuple[str, ...] = ()
    known: Mapping[str, Costs] = field(default_factory=dict)
    expected_seconds: float = math.inf
    lanes: int = 1

    @property
    def name(self) -> str:
        """Of the dataset."""
        return self.draft.plan.dataset

    @cached_property
    def folds(self) -> tuple[str, ...]:
        """That may be trained."""
        return self.asked_folds or tuple(str(fold) for fold in range(len(self.draft.splits))) or ("all",)

    @property
    def are_fixed(self) -> bool:
        """Whether the user named the folds, and not all of them."""
        return bool(self.asked_folds) and len(set(self.asked_folds)) < len(self.draft.splits)

    @cached_property
    def held_out(self) -> int:
        """Patients held out by the first fold."""
        cases = {case.name: case for case in self.draft.dataset.cases}
        return 0 if self.folds[0] == "all" else len({cases[name].group or name for name in self._split(self.folds[0]).val})

    # Estimates

    def entrants(self) -> tuple[Entrant, ...]:
        """The candidates, with costs as they are measured and estimated before anything is trained."""
        return tuple(
            Entrant(name=name, costs=self._costs[name], first_stage=spec.configuration.previous_stage or "")
            for name, spec in self.specs.items()
        )

    @cached_property
    def _costs(self) -> dict[str, Costs]:
        return {name: self.known.get(name) or self._estimated(spec) for name, spec in self.specs.items()}

    def step_cost(self, name: str) -> StepCost | None:
        """Cost of a training step of a candidate, measured now."""
        limit = PROBING_SHARE * 2 * self.expected_seconds / 3  # of all candidates, and of two at once, in all a tenth of the study
        return predicted_step(self.settings, self.specs[name], limit=min(MOST_PROBING, limit))

    def _estimated(self, spec: TrainingSpec) -> Costs:
        cost = self.step_cost(spec.configuration.name) or StepCost(1.0, 0)
        configuration, cost = self._fitted(spec.configuration, cost)
        measured = {case.name: case for case in self.draft.fingerprint.cases}
        names = self._split(self.folds[0]).val
        cases = [case_size(spec.plan, configuration, measured[name]) for name in names if name in measured]
        outputs = spec.plan.labels.n_outputs
        whole = predicted_validation(configuration, cases, cost, outputs=outputs)
        plain = replace(configuration, mirroring=replace(configuration.mirroring, axes=()))
        least = predicted_validation(plain, cases, cost, outputs=outputs)
        # What takes longer will be planned with fewer mirrored copies (`trainers.validation_plan`).
        whole = min(whole, max(least, VALIDATION_SHARE * self.expected_seconds, LEAST_VALIDATION))
        return Costs(
            start=PROCESS_SECONDS + PROBING_SECONDS,
            again=PROCESS_SECONDS,
            step=cost.seconds,
            validation=5.0 + STORING * whole,
            trial_case=least / max(1, len(cases)),
        )

    def _fitted(self, configuration: Configuration, cost: StepCost) -> tuple[Configuration, StepCost]:
        """What batch, features and patch will be once they are fitted to the time, and what a step and a tile cost, by its elements."""
        settings = self.settings
        device, keep_patch = choose_device(settings.device).type, bool(settings.patch)
        planned, _ = fit_batch(configuration, device, batch=settings.batch, keep_patch=keep_patch)

        def of_elements(one: Configuration) -> StepCost:
            share = step_elements(one) / step_elements(planned)
            return replace(cost, seconds=share * cost.seconds, tile_seconds=share * planned.batch_size / one.batch_size * cost.tile_seconds)

        if math.isinf(self.expected_seconds):
            return planned, cost
        fitted, _, _ = fit_time_budget(
            *(planned, choose_budget(device, seconds=self.expected_seconds), cost, of_elements),
            may_narrow=settings.pretrained is None and "features" not in settings.network_options,
            keep_patch=keep_patch,
            min_batch=settings.batch or MIN_BATCH_SIZE,
        )
        return fitted, of_elements(fitted)

    def costs_after(self, entrant: Entrant, job: Job, gained: float, ended: Ended) -> Costs:
        """What the end of a training, which gained so many seconds of training, tells about its costs."""
        run, costs, beside = self._run(job.entrant, job.fold), entrant.costs, max(1.0, ended.seconds - gained)
        is_new = job.seconds - gained < 1
        rows = read_history(run.history_file)
        if rows and rows[-1]["iteration"]:
            costs = replace(costs, step=rows[-1]["seconds"] / rows[-1]["iteration"])
        trial = read_trial(run)
        if not job.patients:
            return replace(costs, validation=max(1.0, beside - (costs.start if is_new else costs.again)))
        if trial is None:
            return costs
        scoring, count = sum(trial.case_seconds.values()), len(trial.case_seconds)
        start = max(1.0, beside - scoring)
        full = sum(trial.case_seconds[case] + (trial.mirrors - 1) * trial.prediction_seconds[case] for case in trial.case_seconds) / count
        validation = STORING * full * len(self._split(job.fold).val)
        again = max(1.0, start - min(PROBING_SECONDS, PROBING_SHARE * job.seconds)) if is_new else start
        timed = {"start": start if is_new else costs.start, "again": again}
        return replace(costs, trial_case=scoring / count, validation=validation, **timed)

    # On disk

    def progress(self, entrant: str, fold: str) -> Progress:
        """How far a training is, by its files."""
        run = self._run(entrant, fold)
        if not run.is_started:
            return Progress()
        rows = read_history(run.history_file) if run.latest_checkpoint.is_file() or not run.is_trained else []
        begun = rows[-1].get("seconds", 0.0) if rows else 0.0
        if not run.is_trained:
            return Progress(begun=begun)
        budget = run.record().budget
        is_validated = run.is_validated and not predicted_by_others(run, {score.case for score in run.scores()})
        return Progress(seconds=budget.amount, begun=begun, is_validated=is_validated)

    def trial(self, entrant: str) -> TrialScores | None:
        """Scores of the last trial of the first fold's present networks, as Dice by patient and organ."""
        trial = read_trial(self._run(entrant, self.folds[0]))
        if trial is None:
            return None
        dice: dict[str, dict[str, float]] = {patient: {} for patient in trial.patient_of.values()}
        for score in trial.scores:
            dice[trial.patient_of[score.case]][score.organ] = score.dice
        return TrialScores(trial.trained_seconds, dice)

    def check_runs(self) -> None:
        """Refuses (ValueError) runs of a budget in iterations, which cannot share a deadline."""
        for name in self.specs:
            for fold in self.folds:
                run = self._run(name, fold)
                if run.is_started and (budget := run.record().budget).kind != "time":
                    raise ValueError(
                        f"{run.folder}: expected a run with a budget in time, found {budget.why or budget.kind}; "
                        "keep it apart from this study with --tag WORD, or move it away"
                    )

    # Tasks

    def preparation(self) -> Task:
        """Planning and preprocessing."""
        seconds = PROCESS_SECONDS + sum(self._preprocessing(spec) for spec in self._by_data.values())
        command = ("plan_and_preprocess", "-d", self.name, *words_of(self.plan_settings), *self._further_plan_words(), *self._home)
        return Task(name="plan and preprocess", command=command, seconds=seconds, resources=Resources(cores=cpu_count()))

    def training(self, job: Job, whole: float) -> Task:
        """The task of a job; a process that an interrupted study left, and that still saves its state, is waited for."""
        self._wait_for(self._run(job.entrant, job.fold))
        trial = ("--trial", str(job.patients)) if job.patients else ()
        times = ("--time", f"{job.seconds:.1f}s", "--fit-to", f"{max(whole, job.seconds):.1f}s", "--longer")
        command = ("train", self.name, job.entrant, job.fold, *self._train_words, *times, *trial, *self._home)
        return Task(
            name=describe_job(job), command=command, needs=("plan and preprocess",), resources=self._resources, seconds=job.duration
        )

    def _wait_for(self, run: Run) -> None:
        for _ in range(WAIT_SECONDS if run.folder.is_dir() else 0):
            try:
                with exclusive_lock(run.folder, "a study"):
                    return
            except ValueError:  # if it stays so, the task says who trains it
                time.sleep(1)

    def conclusion(self, entrants: Sequence[str], folds: Sequence[str]) -> tuple[Task, ...]:
        """A learned ensemble, where several models share several folds, and the choice."""
        held_out = [name for fold in folds for name in self._split(fold).val]
        tasks, is_small = [], False
        if len(entrants) > 1 and len(folds) > 1:
            models = [self.specs[name].model(self.workspace.results(self.name), self.settings.trainer).name for name in entrants]
            command = ("train_ensemble", self.name, "--kind", "logits", "--members", *models, "--folds", *folds, *self._device, *self._home)
            seconds = len(folds) * ENSEMBLE_SECONDS + len(held_out) * len(entrants) * ENSEMBLE_CASE
            is_small = seconds <= ENSEMBLE_SHARE * 2 * len(self.specs) * self.expected_seconds
        if is_small:
            tasks.append(
                Task(name=f"a learned ensemble of {' and '.join(entrants)}", command=command, seconds=seconds, resources=self._resources)
            )
        overwrite = ("--overwrite",) if self.plan_settings.overwrite else ()
        choice = ("find_best_configuration", self.name, *overwrite, "--quiet", *self._home)  # who asked for the study shows it
        tasks.append(Task(name="the choice", command=choice, seconds=self._choice_seconds(max(1, len(entrants)), held_out)))
        return tuple(tasks)

    def _choice_seconds(self, models: int, held_out: Sequence[str]) -> float:
        """Of reading and averaging stored predictions: each average of two or three models is scored on each held-out case."""
        averages = models + sum(math.comb(models, count) for count in (2, 3))
        voxels = {case.name: math.prod(case.shape) for case in self.draft.fingerprint.cases}
        outputs = self.draft.plan.labels.n_outputs
        of_cases = sum(CHOICE_CASE + CHOICE_VOXEL * voxels.get(name, 0) * (averages + outputs) for name in held_out)
        return CHOICE_SECONDS + of_cases / max(1, cpu_count())

    @cached_property
    def _by_data(self) -> dict[str, TrainingSpec]:
        """One training for each folder of preprocessed data."""
        return {spec.configuration.data: spec for spec in reversed(list(self.specs.values()))}

    def _preprocessing(self, spec: TrainingSpec) -> float:
        plan, data = self.draft.plan, spec.configuration.data
        store = Store(self.workspace.preprocessed(self.name) / data)
        missing = [case for case in self.draft.fingerprint.cases if not store.has(case.name)]
        known = len(self.draft.fingerprint.cases) - len(missing)
        return VERIFY_SECONDS * known + predicted_preprocessing(
            plan, plan.configurations[data], missing, workers=self.plan_settings.workers
        )

    @property
    def _resources(self) -> Resources:
        is_gpu = choose_device(self.settings.device).type == "cuda"
        return Resources(cores=max(1, cpu_count() // self.lanes), gpus=int(is_gpu))

    def _split(self, fold: str) -> Split:
        if fold == "all":
            everything = tuple(case.name for case in self.draft.fingerprint.cases)
            return Split(everything, everything)
        return self.draft.splits[int(fold)]

    def _run(self, entrant: str, fold: str) -> Run:
        return self.specs[entrant].model(self.workspace.results(self.name), self.settings.trainer).run(fold)

    @property
    def _home(self) -> tuple[str, ...]:
        return "--home", str(self.workspace.home)

    @property
    def _device(self) -> tuple[str, ...]:
        return () if self.settings.device == "auto" else ("--device", self.settings.device)

    @cached_property
    def _train_words(self) -> tuple[str, ...]:
        settings = replace(self.settings, seconds=None, fitted_seconds=None, longer=False, trial=None)
        return (*words_of(settings), *_leave(settings.allow_code))

    def _further_plan_words(self) -> tuple[str, ...]:
        """Switches of planning that change nothing in the plan."""
        one = self.plan_settings
        words = ["--allow-external"] * one.allow_external + ["--trust-files"] * one.trust_files
        words += [] if one.workers is None else ["--workers", str(one.workers)]
        return (*words, *_leave(one.allow_code))


def _leave(modules: Sequence[str]) -> list[str]:
    return [word for module in modules for word in ("--allow-code", module)]
