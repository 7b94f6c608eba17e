"""The whole night: everything that `autoseg_run --total` does until one deadline. See docs/study.md."""

from __future__ import annotations

import logging
import os
import re
import sys
import textwrap
import time
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from ..planners.configurations import selected_configurations
from ..planners.measured_dataset import MeasuredDataset, keep_fingerprint
from ..runtime.commands import words_of
from ..runtime.hardware import available_memory, choose_device, cpu_count
from ..runtime.locks import exclusive_lock
from ..runtime.registry import allows_code
from ..runtime.serialization import read_json
from ..runtime.workspace import DESCRIPTION, Workspace, find_workspace
from ..schema import Choice
from ..schema.settings import PlanSettings, TrainSettings
from ..study.conductor import Conductor
from ..study.local import LocalExecutor
from ..study.record import STUDY, RecordFile, StudyRecord, read_record
from ..study.scaling import chosen_lanes
from ..study.situation import Situation, TooShortError
from ..study.table import WIDTH, describe_timetable, in_minutes
from ..study.timetable import make_timetable
from ..study.world import tails
from ..trainers.run_setup import check_fold
from ..trainers.training_spec import TrainingSpec, training_spec
from ..trainers.trial_checks import check_names, check_trial
from .choosing import describe_choice
from .preparing import MadePlan, plan_only
from .study_world import StudyWorld

log = logging.getLogger(__name__)

LOCK = ".study.lock"
LOGS = "study_logs"
"""Folder below ``results/<dataset>`` with what each task said."""
OVER_HOURS = 12
"""A deadline by the clock that passed so many hours ago at the most is over; a later one is that of the next night."""
ONE_LANE = "One training at a time is assumed; the study measures first whether several go quicker, each on some of the cores."


@dataclass(frozen=True, kw_only=True)
class Deadline:
    """When a study is done.

    Attributes:
        total: Seconds of running time in all; None where the clock counts.
        until: ``07:00``, or ``2026-12-01 07:00``; None where running time counts.
    """

    total: float | None = None
    until: str | None = None

    def __post_init__(self) -> None:
        if (self.total is None) == (self.until is None):
            raise ValueError("--total and --until: expected one of them")
        if self.total is not None and self.total <= 0:
            raise ValueError(f"--total: expected a time above 0, got {self.total:g} s")
        if self.until is not None:
            clock_time(self.until, datetime.now())


def clock_time(text: str, now: datetime) -> datetime:
    """The next time that a clock shows ``07:00``, or the day and time of ``2026-12-01 07:00``.

    Raises:
        ValueError: It is neither, or that day is over.
    """
    if found := re.fullmatch(r"(\d{1,2}):(\d\d)", text.strip()):
        hour, minute = map(int, found.groups())
        if hour < 24 and minute < 60:
            time_today = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
            return time_today if time_today > now else time_today + timedelta(days=1)
    for form in ("%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"):
        try:
            day = datetime.strptime(text.strip(), form)
        except ValueError:
            continue
        if day <= now - timedelta(hours=OVER_HOURS):
            raise ValueError(f"--until {text}: expected a time to come, now it is {now:%Y-%m-%d %H:%M}")
        return day
    raise ValueError(f"--until: expected the time of a clock (07:00) or a day and a time (2026-12-01 07:00), got {text!r}")


class WallClock:
    """The time of this machine."""

    def now(self) -> float:
        """Seconds since 1970."""
        return time.time()


@allows_code()
def run_until(
    which: str | int,
    deadline: Deadline,
    plan_settings: PlanSettings | None = None,
    train_settings: TrainSettings | None = None,
    *,
    folds: tuple[str, ...] | None = None,
    home: str | Path | None = None,
    failures: MutableMapping[str, str] | None = None,
) -> Choice:
    """Plans, preprocesses, trains, validates and chooses until one deadline; started again, it goes on with the time that is left.

    Every candidate is trained a little first; who is clearly behind on held-out patients leaves, and the others are trained to the end.

    Args:
        which: Dataset id, name or folder.
        deadline: When everything is done.
        plan_settings: See `PlanSettings`; its configurations are the candidates.
        train_settings: See `TrainSettings`; without a budget.
        folds: Names; None means as many as the time is enough for.
        failures: Gets case -> reason for the cases that were left out or could not be validated.

    Returns:
        The choice.

    Raises:
        ValueError: The time is not enough for a single training; the message says how much is.
        RuntimeError: The preparation or the choice failed, or every training did.
    """
    started = time.time()
    settings = _checked(train_settings or TrainSettings())
    workspace = find_workspace(home, dataset=str(which))
    world = _world(workspace, which, plan_settings or PlanSettings(), settings, folds, keep=True)
    results = workspace.results(world.name)
    with exclusive_lock(results, "a study", name=LOCK):
        file = RecordFile(results / STUDY, _record(world, deadline, results / STUDY, started))
        if file.now.is_finished:
            log.info("This study is finished; give it more time to train everything on.")
            return read_json(results / "choice.json", Choice)
        world = replace(world, known=file.now.costs, expected_seconds=_remaining(file.now) / (2 * len(world.specs)))
        world.check_runs()
        lanes = _lanes(world, file)
        world = replace(world, lanes=lanes)
        _check_long_enough(world, file, started)
        file.change(spent=file.now.spent + time.time() - started, costs={one.name: one.costs for one in world.entrants()})
        executor = LocalExecutor(lanes, results / LOGS, show=_shown if lanes == 1 else None)
        Conductor(world, executor, WallClock(), file).run()
    if failures is not None:
        failures.update(_failed_cases(world))
    return read_json(results / "choice.json", Choice)


def describe_run_until(
    which: str | int,
    deadline: Deadline,
    plan_settings: PlanSettings | None = None,
    train_settings: TrainSettings | None = None,
    *,
    folds: tuple[str, ...] | None = None,
    home: str | Path | None = None,
) -> str:
    """The list of what `run_until` would do from now on, with minutes, in 80 columns; nothing is written.

    Raises:
        ValueError: See `run_until`.
    """
    started = time.time()
    settings = _checked(train_settings or TrainSettings())
    workspace = find_workspace(home, dataset=str(which))
    world = _world(workspace, which, plan_settings or PlanSettings(), settings, folds, keep=False)
    path = workspace.results(world.name) / STUDY
    record = _record(world, deadline, path, started)
    world = replace(world, known=record.costs, expected_seconds=_remaining(record) / (2 * len(world.specs)))
    world.check_runs()
    if record.is_finished:
        return "This study is finished."
    world.entrants()  # measures steps, which takes some of the time
    remaining, preparation = _remaining(record, started), world.preparation()
    situation = _situation(world, record, remaining)
    try:
        table = make_timetable(replace(situation, remaining=remaining - preparation.seconds))
    except TooShortError as error:
        raise _with_preparation(error, preparation.seconds, record.total) from None
    tail = world.conclusion(sorted({job.entrant for job in table.finals}), table.folds)
    end = f"{datetime.fromtimestamp(record.until or time.time() + remaining):%H:%M}"
    listed = describe_timetable(table, tail, remaining, end=end, before=[preparation], lanes=situation.lanes)
    return "\n".join([listed, *(textwrap.wrap(ONE_LANE, WIDTH) if not record.lanes and _can_share(world) else [])])


def _checked(settings: TrainSettings) -> TrainSettings:
    """Refuses what a study decides by itself."""
    given = {"--time": settings.seconds, "--epochs": settings.epochs, "--iterations": settings.iterations}
    given |= {"--first-iterations": settings.first_iterations}
    if found := [name for name, value in given.items() if value is not None]:
        raise ValueError(f"{' and '.join(found)}: expected none with --total or --until, which decide how long each training takes")
    if settings.pseudo_labels:
        raise ValueError(
            "--pseudo-labels: expected none with --total; when the choice is made, autoseg_run ID --pseudo-labels goes on from it"
        )
    if settings.restart:
        raise ValueError("--restart: expected none with --total, whose trainings go on; move the results away, or add --tag WORD")
    return settings


def _world(
    workspace: Workspace,
    which: str | int,
    plan_settings: PlanSettings,
    settings: TrainSettings,
    folds: tuple[str, ...] | None,
    *,
    keep: bool,
) -> StudyWorld:
    draft = plan_only(which, plan_settings, home=workspace.home)
    folder = workspace.preprocessed(draft.plan.dataset)
    if keep and not (folder / DESCRIPTION).is_file():  # never planned: not measured again by the first task
        with exclusive_lock(folder, "measuring"):
            keep_fingerprint(folder, MeasuredDataset(draft.dataset, draft.fingerprint, draft.left_out))
    for fold in folds or ():
        if fold != "all":
            check_fold(fold, draft.splits)
    if folds and "all" in folds and len(folds) > 1:
        raise ValueError("--folds: expected numbers, or all alone, with --total")
    specs = _specs(draft, plan_settings, settings)
    plan_settings = replace(plan_settings, configurations=tuple(specs)) if plan_settings.configurations else plan_settings
    return StudyWorld(
        workspace=workspace, draft=draft, plan_settings=plan_settings, settings=settings, specs=specs, asked_folds=tuple(folds or ())
    )


def _specs(draft: MadePlan, plan_settings: PlanSettings, settings: TrainSettings) -> dict[str, TrainingSpec]:
    """The candidates; a cascade's first stage comes with it, and without folds there is no cascade."""
    plan, windows = draft.plan, draft.dataset.windows
    names: list[str] = []
    for name in selected_configurations(plan_settings.configurations, plan):
        stage = plan.configurations[name].previous_stage
        names += [] if stage is None else [stage]
        names += [name] if stage is None or len(draft.splits) > 1 else []
    specs = {name: training_spec(plan, name, settings, windows=windows) for name in dict.fromkeys(names)}
    for spec in specs.values():
        check_names(settings, spec.plan.labels)
        check_trial(spec, settings)
    return specs


def _record(world: StudyWorld, deadline: Deadline, path: Path, now: float) -> StudyRecord:
    """The record of this study: as it was left, or a new one."""
    before = read_record(path)
    asked = {
        "training": " ".join(words_of(world.settings)),
        "configurations": " ".join(world.specs),
        "folds": " ".join(world.asked_folds),
        "deadline": "running time" if deadline.until is None else f"until {deadline.until}",
    }
    until = None if deadline.until is None else clock_time(deadline.until, datetime.fromtimestamp(now)).timestamp()
    if before is not None and before.asked == asked:
        is_over = before.until is not None and not before.is_finished and 0 < now - before.until < OVER_HOURS * 3600
        if is_over:
            log.info(
                "The deadline was %s: what is there is validated and chosen from.", f"{datetime.fromtimestamp(before.until or now):%H:%M}"
            )
            return before
        total = deadline.total if until is None else (before.total if until == before.until else until - now)
        if until == before.until and total is not None and total <= before.total:
            return before
        log.info("This study gets more time, and trains everything on.")
        return replace(before, total=total or before.total, until=until, is_finished=False, done={}, rungs=before.rungs and ())
    total = deadline.total if until is None else until - now
    return StudyRecord(asked=asked, total=total or 0.0, until=until, began=now)


def _remaining(record: StudyRecord, started: float | None = None) -> float:
    """Seconds until the deadline; `started` is when the time began that the record does not count yet."""
    if record.until is not None:
        return record.until - time.time()
    return record.total - record.spent - (0.0 if started is None else time.time() - started)


def _situation(world: StudyWorld, record: StudyRecord, remaining: float) -> Situation:
    entrants = tuple(replace(one, costs=record.costs.get(one.name, one.costs)) for one in world.entrants() if one.name not in record.left)
    return Situation(
        remaining=remaining,
        entrants=entrants,
        folds=world.folds,
        are_fixed=world.are_fixed,
        progress={(one.name, fold): world.progress(one.name, fold) for one in entrants for fold in world.folds},
        tails=tails(world, [one.name for one in entrants]),
        lanes=max(1, record.lanes),
        held_out=world.held_out,
        tried={name: tuple(one.seconds for one in found) for name, found in record.trials.items()},
        rungs=record.rungs,
        done=record.final_keys,
        final_seconds=max(record.done.values(), default=0.0),
    )


def _check_long_enough(world: StudyWorld, file: RecordFile, started: float) -> None:
    """Before anything is preprocessed: whether the time is enough for a single training."""
    if file.now.rungs is not None:
        return
    world.entrants()  # measures steps
    remaining, preparation = _remaining(file.now, started), world.preparation()
    try:
        make_timetable(_situation(world, file.now, remaining - preparation.seconds))
    except TooShortError as error:
        raise _with_preparation(error, preparation.seconds, file.now.total) from None


def _with_preparation(error: TooShortError, seconds: float, total: float) -> ValueError:
    whole = TooShortError(error.candidate, {"of planning and preprocessing": seconds, **error.parts})
    return ValueError(f"{in_minutes(total)}: {whole}")


def _least_trainings(world: StudyWorld) -> int:
    return len(world.specs) * (len(world.folds) if world.are_fixed else 1)


def _can_share(world: StudyWorld) -> bool:
    """Whether trainings side by side, on some of the cores each, may be quicker here."""
    is_cpu = choose_device(world.settings.device).type == "cpu"
    return is_cpu and cpu_count() > 1 and _least_trainings(world) > 1 and hasattr(os, "sched_setaffinity")


def _lanes(world: StudyWorld, file: RecordFile) -> int:
    """Trainings at a time on this machine; measured once."""
    if file.now.lanes:
        return file.now.lanes
    lanes, why = 1, "trainings go one after the other"
    if _can_share(world):
        measure = partial(world.step_cost, list(world.specs)[-1])
        lanes, why = chosen_lanes(measure, trainings=_least_trainings(world), memory=available_memory())
    log.info("%d core%s: %s.", cpu_count(), "" if cpu_count() == 1 else "s", why)
    file.change(lanes=lanes)
    return lanes


def _shown(said: bytes) -> None:
    """What a task says goes on to where messages go."""
    stream = getattr(sys.stderr, "buffer", None)
    if stream is not None and log.isEnabledFor(logging.INFO):
        stream.write(said)
        stream.flush()


def _failed_cases(world: StudyWorld) -> dict[str, str]:
    found = dict(world.workspace.left_out(world.name))
    for spec in world.specs.values():
        model = spec.model(world.workspace.results(world.name), world.settings.trainer)
        for fold in world.folds:
            found.update(model.run(fold).failures())
    return found


__all__: Sequence[str] = ("Deadline", "clock_time", "describe_choice", "describe_run_until", "run_until")
