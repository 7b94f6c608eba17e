"""The list of what a study does, with minutes, in 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from .situation import Job
from .tasks import Task
from .timetable import Timetable, makespan

WIDTH = 80


def in_minutes(seconds: float) -> str:
    """A duration in the two units that suit it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if seconds < 600:
        return f"{seconds / 60:.1f} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def describe_job(job: Job) -> str:
    """What a training does, in words."""
    if job.patients:
        return f"{job.entrant}, fold {job.fold}: a trial on {job.patients} patients after {in_minutes(job.seconds)} of training"
    return f"{job.entrant}, fold {job.fold}: trained to {in_minutes(job.seconds)} in all, and validated"


def describe_timetable(
    table: Timetable, tail: Sequence[Task], remaining: float, *, end: str, before: Sequence[Task] = (), lanes: int = 1
) -> str:
    """A line a task with its minutes, and the total.

    Args:
        tail: What follows the trainings.
        remaining: Seconds until the deadline.
        end: The deadline by the clock.
        before: What comes before the trainings.
        lanes: Trainings at a time.
    """
    rows = [(task.seconds, task.name) for task in before]
    rows += [(job.duration, describe_job(job)) for job in table.jobs]
    rows += [(task.seconds, task.name) for task in tail]
    lines = [f"{'minutes':>7}  task", *(line for seconds, words in rows for line in _row(seconds, words))]
    total = sum(task.seconds for task in (*before, *tail)) + makespan([job.duration for job in table.jobs], lanes)
    at_once = f", {lanes} trainings at a time" if lanes > 1 else ""
    lines.append(f"{total / 60:7.1f}  in all{at_once}, of {remaining / 60:.1f} until {end}")
    if table.is_compared:
        text = "A candidate that is clearly behind after a trial leaves, and the others get its minutes."
        lines += textwrap.wrap(text, WIDTH)
    elif table.trials:
        lines += textwrap.wrap("The trials measure only how long validation takes.", WIDTH)
    if table.left_out:
        lines += [line for name, why in table.left_out.items() for line in textwrap.wrap(f"Left out: {name}: {why}.", WIDTH)]
    if table.given_up:
        text = f"Left out: fold {', '.join(table.given_up)}: the time is not enough to learn anything on so many folds."
        lines += textwrap.wrap(text, WIDTH)
    return "\n".join(lines)


def _row(seconds: float, words: str) -> list[str]:
    first, *more = textwrap.wrap(words, WIDTH - 9)
    return [f"{seconds / 60:7.1f}  {first}", *(f"{'':9}{line}" for line in more)]
