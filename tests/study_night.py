"""Nights of studies in no time: a clock that jumps from one end of a task to the next, and candidates with learning curves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from autoseg.study.conductor import Conductor
from autoseg.study.halving import TrialScores
from autoseg.study.record import RecordFile, StudyRecord
from autoseg.study.situation import Costs, Entrant, Job, Progress
from autoseg.study.tasks import Ended, Resources, Task


class Killed(BaseException):
    """Stands for the end of the process."""


@dataclass
class Clock:
    time: float = 1_000_000.0

    def now(self) -> float:
        return self.time


@dataclass(frozen=True)
class Curve:
    """A candidate: the error of its mean Dice after `t` seconds is ``floor + (1 - floor) * (1 + t / slow) ** -pace``.

    `costs` are true; `estimate` is the factor by which they are estimated wrong before they are measured.
    """

    floor: float = 0.1
    slow: float = 60.0
    pace: float = 0.6
    costs: Costs = field(default_factory=lambda: Costs(start=20, again=8, step=0.3, validation=60, trial_case=1.0))
    estimate: float = 1.0
    first_stage: str = ""

    def dice(self, seconds: float) -> float:
        return 1 - (self.floor + (1 - self.floor) * (1 + seconds / self.slow) ** -self.pace)


class Night:
    """A world, its executor and its disk, which outlives a killed study.

    Tasks with a word of `failing` in their command end with status 2; trainings that are `hollow`, by their job, with status 1, and nothing
    is there.
    """

    def __init__(
        self,
        curves: dict[str, Curve],
        *,
        folds: Sequence[str] = ("0",),
        are_fixed: bool = True,
        lanes: int = 1,
        patients: int = 12,
        seed: int = 0,
        failing: Sequence[str] = (),
        hollow: Callable[[Job], bool] = lambda job: False,
        spread: float = 0.04,
        luck: float = 0.005,
    ) -> None:
        self.curves, self.folds, self.are_fixed, self.lanes, self.held_out = curves, tuple(folds), are_fixed, lanes, patients
        self.clock, self.failing, self.hollow = Clock(), tuple(failing), hollow
        rng = np.random.default_rng(seed)
        common = rng.normal(0, spread, patients)
        self.patients = {name: common + rng.normal(0, spread / 2, patients) for name in curves}
        self.luck = {name: rng.normal(0, luck, 99) for name in curves}
        self.trained: dict[tuple[str, str], float] = {}
        self.begun: dict[tuple[str, str], float] = {}
        self.validated: dict[tuple[str, str], float] = {}
        self.trials: dict[str, TrialScores] = {}
        self.running: list[tuple[Task, Job | None, float, float]] = []
        self.log: list[str] = []
        self.choices: list[float] = []
        self.deaths: list[int] = []
        self.waits = 0
        self.prepared = False
        self.ensemble_seconds = 0.0
        self.preparation_seconds, self.choice_seconds, self.choice_estimate = 45.0, 30.0, 30.0

    # The world

    def preparation(self) -> Task:
        return Task(name="plan and preprocess", command=("plan",), seconds=30.0)

    def entrants(self) -> tuple[Entrant, ...]:
        def guessed(curve: Curve) -> Costs:
            return Costs(**{key: value * curve.estimate for key, value in dataclasses.asdict(curve.costs).items()})

        return tuple(Entrant(name=name, costs=guessed(curve), first_stage=curve.first_stage) for name, curve in self.curves.items())

    def progress(self, entrant: str, fold: str) -> Progress:
        seconds = self.trained.get((entrant, fold), 0.0)
        begun = self.begun.get((entrant, fold), 0.0)
        return Progress(seconds=seconds, begun=begun, is_validated=bool(seconds) and self.validated.get((entrant, fold)) == seconds)

    def trial(self, entrant: str) -> TrialScores | None:
        return self.trials.get(entrant)

    def costs_after(self, entrant: Entrant, job: Job, gained: float, ended: Ended) -> Costs:
        true, beside = self.curves[job.entrant].costs, ended.seconds - gained
        if job.patients:
            return dataclasses.replace(entrant.costs, trial_case=true.trial_case, again=true.again, validation=1.1 * true.validation)
        return dataclasses.replace(entrant.costs, validation=beside - true.again)

    def training(self, job: Job, whole: float) -> Task:
        words = f"train {job.entrant} {job.fold} {job.seconds:.0f} {job.patients}"
        return Task(name=words, command=("train", job.entrant, job.fold, f"{job.seconds}", f"{job.patients}"), resources=Resources(cores=2))

    def conclusion(self, entrants: Sequence[str], folds: Sequence[str]) -> tuple[Task, ...]:
        choice = Task(name="choice", command=("choose",), seconds=self.choice_estimate)
        if len(entrants) < 2 or not self.ensemble_seconds:
            return (choice,)
        return Task(name="ensemble", command=("ensemble",), seconds=self.ensemble_seconds), choice

    # The executor

    def start(self, task: Task) -> None:
        assert len(self.running) < self.lanes
        self.log.append(" ".join(task.command))
        job, seconds = None, self.choice_seconds
        if task.command[0] == "plan":
            seconds = 3.0 if self.prepared else self.preparation_seconds
        elif task.command[0] == "ensemble":
            seconds = task.seconds
        elif task.command[0] == "train":
            _, name, fold, wanted, patients = task.command
            job = Job(entrant=name, fold=fold, seconds=float(wanted), duration=0, patients=int(patients))
            costs, had = self.curves[name].costs, max(self.trained.get(job.key, 0.0), self.begun.get(job.key, 0.0))
            seconds = (costs.again if had else costs.start) + max(0.0, job.seconds - had)
            seconds += job.patients * costs.trial_case if job.patients else costs.validation
        self.running.append((task, job, self.clock.now(), self.clock.now() + seconds))

    def wait(self, seconds: float) -> list[Ended]:
        self.waits += 1
        if self.waits in self.deaths:
            self._die()
        end = min([one[3] for one in self.running], default=self.clock.now())
        self.clock.time = min(end, self.clock.now() + seconds)
        over = [one for one in self.running if one[3] <= self.clock.now()]
        self.running = [one for one in self.running if one not in over]
        return [self._end(*one) for one in over]

    def stop(self) -> None:
        for _, job, began, _ in self.running:
            if job is not None:
                self._keep(job, began)
        self.running = []

    def _keep(self, job: Job, began: float) -> None:
        """What a training that is ended keeps: what it has trained, up to a checkpoint every half a minute."""
        had = max(self.trained.get(job.key, 0.0), self.begun.get(job.key, 0.0))
        gained = max(0.0, self.clock.now() - began - self.curves[job.entrant].costs.again - 30)
        reached = min(job.seconds, had + gained)
        self.begun[job.key] = max(self.begun.get(job.key, 0.0), reached)

    def _die(self) -> None:
        self.stop()
        raise Killed

    def _end(self, task: Task, job: Job | None, began: float, end: float) -> Ended:
        seconds = end - began
        if any(word in " ".join(task.command) for word in self.failing):
            return Ended(task=task, seconds=seconds, status=2, reason="it broke")
        if job is not None and self.hollow(job):
            return Ended(task=task, seconds=seconds, status=1, reason="MemoryError")
        if task.command[0] == "plan":
            self.prepared = True
        if task.command[0] == "choose":
            self.choices.append(self.clock.now())
        if job is not None:
            self.trained[job.key] = max(job.seconds, self.trained.get(job.key, 0.0))
            self.begun.pop(job.key, None)
            if job.patients:
                self.trials[job.entrant] = self._scores(job)
            else:
                self.validated[job.key] = self.trained[job.key]
        return Ended(task=task, seconds=seconds)

    def _scores(self, job: Job) -> TrialScores:
        number = len([line for line in self.log if line.startswith(f"train {job.entrant} ")])
        mean = self.curves[job.entrant].dice(job.seconds) + self.luck[job.entrant][number]
        values = np.clip(mean + self.patients[job.entrant][: job.patients], 0, 1)
        return TrialScores(job.seconds, {f"p{index}": {"organ": float(value)} for index, value in enumerate(values)})

    # A study

    def run(self, total: float, *, until: float | None = None, record: RecordFile | None = None, outage: float = 0.0) -> RecordFile:
        """Runs a study to its end, started again after each death, after an outage."""
        file = record or MemoryRecord(StudyRecord(asked={}, total=total, until=until, began=self.clock.now()))
        while True:
            try:
                Conductor(self, self, self.clock, file).run()
                return file
            except Killed:
                file = MemoryRecord(file.now)
                self.clock.time += outage

    def final_folds(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for (name, fold), seconds in sorted(self.validated.items()):
            if seconds == self.trained[name, fold]:
                found.setdefault(name, []).append(fold)
        return found


class MemoryRecord(RecordFile):
    """A record that is not written."""

    def __init__(self, record: StudyRecord) -> None:
        super().__init__(Path("study.json"), record)

    def change(self, **values: object) -> None:
        self.now = dataclasses.replace(self.now, **values)
