"""Carries a study out: starts what comes next, notes how it ended, and plans again with what is known by then.

What has been done is known by its files, and the rest by the record: killed at any moment and started again, a study goes on with the time
that is left.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import cast

from .halving import LEAST_PATIENTS, TrialScores, leaving
from .record import RecordFile
from .situation import Entrant, Job, Progress, Situation
from .table import describe_timetable, in_minutes
from .tasks import Clock, Ended, Executor, Task
from .timetable import (
    FEWEST_SECONDS,
    Timetable,
    final_jobs,
    leaves_time,
    make_timetable,
    trial_jobs,
    trial_patients,
    worthwhile_rest,
)
from .world import World, missing, tails

log = logging.getLogger(__name__)

TICK_SECONDS = 10.0
"""The time that was used is written so often."""
LATE = 0.03
"""Share of the whole time by which a study may be late before running validations are ended, or an ensemble is left out, for the choice."""


@dataclass(frozen=True, kw_only=True)
class _Running:
    job: Job
    task: Task
    began: float
    had: float


class Conductor:
    """One study.

    Args:
        world: What there is to train.
        executor: Carries out tasks.
        clock: For the deadline.
        record: Of the study, as it was left.
    """

    def __init__(self, world: World, executor: Executor, clock: Clock, record: RecordFile) -> None:
        self.world, self.executor, self.clock, self.record = world, executor, clock, record
        self._running: dict[str, _Running] = {}
        self._spent_before, self._began = record.now.spent, clock.now()
        self._entrants: tuple[Entrant, ...] = ()
        self._round = 0
        self._told: set[tuple[str, str]] = set()

    # Time

    @property
    def spent(self) -> float:
        """Seconds of running time so far."""
        return self._spent_before + max(0.0, self.clock.now() - self._began)

    @property
    def remaining(self) -> float:
        """Seconds until the deadline; negative after it."""
        record = self.record.now
        return record.total - self.spent if record.until is None else record.until - self.clock.now()

    # The story

    def run(self) -> None:
        """Does everything that is left, and the choice.

        Raises:
            RuntimeError: The preparation or the choice failed, or not one training is of use.
            TooShortError: The time is not enough for anything.
        """
        try:
            preparation = self.world.preparation()
            self._alone(preparation, must=True)
            self._entrants = self.world.entrants()
            self._train()
            self._conclude()
        finally:
            self.executor.stop()
            self.record.change(spent=self.spent)

    def _alone(self, task: Task, *, must: bool, job: Job | None = None) -> bool:
        """Carries out a task, that of a job, while nothing else runs; whether that went well."""
        log.info("%s.", task.name)
        self.executor.start(task)
        while not (ended := self._wait()):
            pass
        reason = self._failure(ended[0], job)
        if reason:
            self.record.change(failed={**self.record.now.failed, task.name: reason})
            if must:
                raise RuntimeError(f"{task.name}: failed: {reason}; the same command tries again")
            log.error("%s: failed, and is left out: %s", task.name, reason)
        return not reason

    def _failure(self, ended: Ended, job: Job | None) -> str:
        """Why a task failed, by its exit status, and that of a job by what is there; empty where it did not."""
        said = ended.reason or f"exit status {ended.status}"
        lacks = "" if job is None or not ended.is_well else missing(self.world, job)
        return f"{lacks} ({said})" if lacks else "" if ended.is_well else said

    def _wait(self, seconds: float = TICK_SECONDS) -> list[Ended]:
        ended = self.executor.wait(seconds)
        self.record.change(spent=self.spent)
        return ended

    def _train(self) -> None:
        """Trials, decisions and final trainings, until nothing is left to start."""
        while True:
            free = self.executor.lanes - len(self._running)
            for job in self._next()[:free] if free else []:
                self._start(job)
            if not self._running:
                if self._begins_another_round():
                    continue
                return
            for ended in self._wait():
                self._note(ended)
            if self._is_too_late():
                log.warning("Time is up: %s ended now; the same autoseg_train finishes it.", " and ".join(self._running))
                self.executor.stop()
                self._running.clear()
                return

    def _conclude(self) -> None:
        self._save_something()
        names, folds = self._validated(), self._validated_folds()
        for task in self.world.conclusion(names, folds)[:-1]:
            slack = LATE * self.record.now.total  # it was planned to end with the deadline, to the second
            if self.remaining + slack >= task.seconds + self._tail([], folds):
                self._alone(task, must=False)
            else:
                log.info("%s: left out, as it takes about %s.", task.name, in_minutes(task.seconds))
        self._alone(self.world.conclusion(names, folds)[-1], must=True)
        self.record.change(is_finished=True)
        late = -self.remaining
        log.info("Done at %s, %s %s the deadline.", _hour(self.clock.now()), in_minutes(abs(late)), "after" if late > 0 else "before")

    # What comes next

    def situation(self) -> Situation:
        """What is known now."""
        record, now = self.record.now, self.clock.now()
        entrants = self._present()
        keys = [(one.name, fold) for one in entrants for fold in self.world.folds]
        progress = {key: self._progress(*key) for key in keys}
        busy = [max(0.0, one.task.seconds - (now - one.began)) for one in self._running.values()]
        final = max(record.done.values(), default=0.0)
        return Situation(
            remaining=self.remaining,
            entrants=entrants,
            folds=self.world.folds,
            are_fixed=self.world.are_fixed,
            progress=progress,
            tails=tails(self.world, [one.name for one in entrants]),
            lanes=self.executor.lanes,
            busy=tuple(busy),
            running=frozenset(one.job.key for one in self._running.values()),
            held_out=self.world.held_out,
            tried={name: tuple(one.seconds for one in found) for name, found in record.trials.items()},
            rungs=record.rungs,
            done=record.final_keys,
            final_seconds=final,
        )

    def timetable(self) -> Timetable:
        """Everything from now on, if nobody leaves."""
        return make_timetable(self.situation())

    def _present(self) -> tuple[Entrant, ...]:
        """Candidates that have not left, with measured costs."""
        record = self.record.now
        return tuple(replace(one, costs=record.costs.get(one.name, one.costs)) for one in self._entrants if one.name not in record.left)

    def _progress(self, entrant: str, fold: str) -> Progress:
        found = self.world.progress(entrant, fold)
        return replace(found, has_failed=_failure_key(entrant, fold) in self.record.now.failed)

    def _tail(self, names: Sequence[str], folds: Sequence[str]) -> float:
        tasks = self.world.conclusion(names, folds)
        return sum(task.seconds for task in tasks if names or task is tasks[-1])

    def _next(self) -> list[Job]:
        """Jobs that can be started now, the first ones first."""
        if self.record.now.rungs is None:
            self._decide()
        situation = self.situation()
        if not situation.entrants:
            return []
        for seconds in situation.rungs or ():
            if len(situation.entrants) < 2 and any(situation.tried.get(one.name) for one in situation.entrants):
                break  # nothing to compare, and its costs are known
            jobs = trial_jobs(situation, situation.entrants, seconds, self._patients(situation, seconds))
            if jobs and not leaves_time(situation, jobs):
                log.info("No trial after %s of training: the time is needed to validate what there is.", in_minutes(seconds))
                self.record.change(rungs=tuple(one for one in situation.rungs or () if one < seconds))
                break
            if jobs or any(one.job.patients for one in self._running.values()):
                return jobs
            if self._judge(seconds):
                return self._next()
        if self._makes_room(situation):
            return self._next()
        return self._finals(situation)

    def _patients(self, situation: Situation, seconds: float) -> int:
        """Of a trial: as many as for the candidates before, and found by the costs known then."""
        key, known = f"{seconds:.0f}", self.record.now.patients
        if key not in known:
            self.record.change(patients={**known, key: trial_patients(situation, seconds)})
        return self.record.now.patients[key]

    def _decide(self) -> None:
        """What takes part, on which folds, with which trials; said to the user."""
        table = self.timetable()
        self.record.change(rungs=table.rungs, left={**self.record.now.left, **table.left_out})
        end, lanes = _hour(self.record.now.until or self.clock.now() + self.remaining), self.executor.lanes
        log.info("%s", describe_timetable(table, self._tail_tasks(table), self.remaining, end=end, lanes=lanes))

    def _tail_tasks(self, table: Timetable) -> tuple[Task, ...]:
        return self.world.conclusion(sorted({job.entrant for job in table.finals}), table.folds)

    def _judge(self, seconds: float) -> bool:
        """Lets the candidates go that cannot win any more after a rung; whether any does."""
        record = self.record.now
        present = [one.name for one in self._present()]
        trials = {name: found for name in present if (found := record.trials.get(name))}
        if any(found[-1].seconds > seconds + 1 for found in trials.values()) or f"{seconds:.0f}" in record.judged:
            return False
        self.record.change(judged=(*record.judged, f"{seconds:.0f}"))
        gone = leaving(trials, max(seconds, self.timetable().seconds))
        for one in self._present():
            if one.first_stage in gone:
                gone[one.name] = f"its first stage {one.first_stage} leaves"
        for name, reason in gone.items():
            log.info("%s leaves after %s of training: %s.", name, in_minutes(seconds), reason)
        self.record.change(left={**record.left, **gone})
        if trials and not gone and self.world.held_out >= LEAST_PATIENTS:
            log.info("After %s of training none is clearly behind: %s.", in_minutes(seconds), _means(trials))
        return bool(gone)

    def _makes_room(self, situation: Situation) -> bool:
        """Lets the weakest go where trials showed that there is no time for all candidates on the folds that the user named."""
        if not situation.are_fixed or situation.done or situation.running or len(situation.entrants) < 2:
            return False
        given_up = make_timetable(replace(situation, rungs=())).given_up
        if not given_up:
            return False
        record = self.record.now
        weakest = min(reversed(situation.entrants), key=lambda one: _last_mean(record.trials.get(one.name, []))).name
        gone = [one.name for one in situation.entrants if weakest in (one.name, one.first_stage)]
        reason = f"steps and validation take more than estimated, and fold {' and '.join(given_up)} would be left out for it"
        log.info("%s leaves: %s.", " and ".join(gone), reason)
        self.record.change(left={**record.left, **dict.fromkeys(gone, reason)})
        return True

    def _finals(self, situation: Situation) -> list[Job]:
        table = make_timetable(replace(situation, rungs=()))
        jobs = []
        for job in final_jobs(situation, situation.entrants, table.folds, table.seconds):
            stage = situation.entrant(job.entrant).first_stage
            if stage and not all((stage, fold) in situation.done for fold in situation.folds):
                continue
            if self._is_of_use(job, situation):
                jobs.append(job)
        if not (jobs or self._running or self._validated()):
            self._save_something()
        return jobs

    def _is_of_use(self, job: Job, situation: Situation) -> bool:
        """Whether there is time for a final training."""
        had = situation.at(*job.key)
        least = had.seconds if had.seconds else FEWEST_SECONDS
        if (
            job.seconds >= least
            and job.duration <= situation.remaining - situation.tail(situation.folds[:1]) + LATE * self.record.now.total
        ):
            return True
        if job.key not in self._told:
            self._told.add(job.key)
            log.info("No time is left for %s, fold %s.", *job.key)
        return False

    def _begins_another_round(self) -> bool:
        """Trains everything on where so much time is left in the end, as what failed did not use its own, that it is worth it."""
        situation = self.situation()
        entrants = [one for one in situation.entrants if all(situation.at(one.name, fold).is_validated for fold in self._validated_folds())]
        seconds = worthwhile_rest(situation, entrants, self._validated_folds()) if entrants and self._validated_folds() else 0.0
        if not seconds or self._round > 3:
            return False
        self._round += 1
        log.info("%s are left: everything is trained on to %s.", in_minutes(self.remaining), in_minutes(seconds))
        keep = {key: one for key, one in self.record.now.done.items() if key.rpartition("/")[0] not in {one.name for one in entrants}}
        self.record.change(done=keep)
        return True

    # Starting and ending

    def _start(self, job: Job) -> None:
        task = self.world.training(job, max(job.seconds, self._whole(job)))
        task = replace(task, seconds=job.duration)
        had = self._progress(*job.key)
        self._running[task.name] = _Running(job=job, task=task, began=self.clock.now(), had=max(had.seconds, had.begun))
        log.info("%s: about %s; %s are left.", task.name, in_minutes(job.duration), in_minutes(self.remaining))
        self.executor.start(task)

    def _whole(self, job: Job) -> float:
        return self.timetable().seconds if job.patients else job.seconds

    def _note(self, ended: Ended) -> None:
        running = self._running.pop(ended.task.name)
        job, record = running.job, self.record.now
        if reason := self._failure(ended, job):
            self._note_failure(job, ended.task, reason)
            return
        entrant = next(one for one in self._present() if one.name == job.entrant)
        gained = max(0.0, job.seconds - running.had)
        costs = {**record.costs, job.entrant: self.world.costs_after(entrant, job, gained, ended)}
        if job.patients:
            trial = cast(TrialScores, self.world.trial(job.entrant))
            found = [*record.trials.get(job.entrant, []), replace(trial, seconds=job.seconds)]
            self.record.change(costs=costs, trials={**record.trials, job.entrant: found})
        else:
            self.record.change(costs=costs, done={**record.done, "/".join(job.key): job.seconds})

    def _note_failure(self, job: Job, task: Task, reason: str) -> None:
        record = self.record.now
        self.record.change(failed={**record.failed, _failure_key(*job.key): reason})
        if job.patients:
            log.error("%s: failed, so %s takes no further part: %s", task.name, job.entrant, reason)
            self.record.change(left={**record.left, job.entrant: f"its trial failed: {reason}"})
        else:
            log.error("%s: failed; the rest goes on: %s", task.name, reason)

    # The end

    def _validated(self) -> list[str]:
        """Candidates with a fold whose present networks are validated."""
        return [one.name for one in self._entrants if any(self.world.progress(one.name, fold).is_validated for fold in self.world.folds)]

    def _validated_folds(self) -> tuple[str, ...]:
        names = [one.name for one in self._present()]
        return tuple(fold for fold in self.world.folds if any(self.world.progress(name, fold).is_validated for name in names))

    def _is_too_late(self) -> bool:
        """Whether what runs would make the choice late, and there is something to choose from without it."""
        late = self.remaining - self._tail([], self.world.folds) < -LATE * self.record.now.total
        return bool(late and self._running and self._validated())

    def _save_something(self) -> None:
        """Where nothing is validated, as trainings failed or time is over: the best network that there is."""
        if self._validated():
            return
        fold = self.world.folds[0]
        trained = [one for one in self._entrants if self.world.progress(one.name, fold).seconds]
        trained.sort(key=lambda one: _last_mean(self.record.now.trials.get(one.name, [])), reverse=True)
        for one in trained:
            seconds = self.world.progress(one.name, fold).seconds
            job = Job(entrant=one.name, fold=fold, seconds=seconds, duration=one.costs.again + one.costs.validation)
            if self._alone(self.world.training(job, seconds), must=False, job=job):
                return
        reasons = "; ".join(f"{name}: {reason}" for name, reason in {**self.record.now.failed, **self.record.now.left}.items())
        raise RuntimeError(f"not one training could be finished and validated: {reasons or 'the time was over'}")


def _failure_key(entrant: str, fold: str) -> str:
    return f"{entrant}, fold {fold}"


def _last_mean(trials: Sequence[TrialScores]) -> float:
    return 1.0 - float(trials[-1].errors(sorted(trials[-1].dice)).mean()) if trials else 0.0


def _means(trials: dict[str, list[TrialScores]]) -> str:
    return ", ".join(f"{name} {_last_mean(found):.3f}" for name, found in trials.items())


def _hour(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds):%H:%M}"
