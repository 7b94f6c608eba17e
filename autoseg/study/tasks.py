"""A task of a study as a value, and what an executor is: local processes here, a cluster's scheduler elsewhere."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..schema.values import check_least, expect


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a task occupies while it runs.

    Attributes:
        cores: Of a processor.
        gpus: Whole ones.
        memory_bytes: Of main memory, at the most; 0 where nobody knows.
    """

    cores: int = 1
    gpus: int = 0
    memory_bytes: int = 0

    def __post_init__(self) -> None:
        check_least("cores", self.cores, 1)
        check_least("gpus", self.gpus)
        check_least("memory_bytes", self.memory_bytes)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A command that does one part of a study; started again, it goes on where it was.

    Attributes:
        name: What it does in words; no two tasks of a study have the same.
        command: Arguments of ``autoseg``: ``("train", "3", "2d", "0", "--time", "120s")``.
        needs: Names of the tasks that must have ended well before.
        resources: What it occupies.
        seconds: How long it is expected to take.
    """

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    resources: Resources = field(default_factory=Resources)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        expect(bool(self.name), "task: name", "words", self.name)
        expect(bool(self.command), f"{self.name}: command", "arguments of autoseg", self.command)
        check_least(f"{self.name}: seconds", self.seconds)

    @property
    def shown_command(self) -> str:
        """The command as a user types it."""
        return f"autoseg_{shlex.join(self.command)}"


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a task ended.

    Attributes:
        seconds: That it took.
        status: Exit status: 0 is well; 1 is well but for single cases, which the command has named, if what it makes is there.
        reason: The last line that it said; nothing where all is well.
    """

    task: Task
    seconds: float
    status: int = 0
    reason: str = ""

    @property
    def is_well(self) -> bool:
        """Whether it says that its result is there, perhaps without single cases; a training's is looked for (`world.missing`)."""
        return self.status in (0, 1)


class Executor(Protocol):
    """Carries out tasks, several at a time."""

    @property
    def lanes(self) -> int:
        """How many tasks it carries out at a time."""
        ...

    def start(self, task: Task) -> None:
        """Begins a task; no more of them than lanes are given to it."""
        ...

    def wait(self, seconds: float) -> list[Ended]:
        """Waits until a task has ended, at the most so long; gives those that have."""
        ...

    def stop(self) -> None:
        """Asks all tasks to save what they have and to end, and waits until they have; nothing is given by `wait` of them."""
        ...


class Clock(Protocol):
    """The time, as a study sees it."""

    def now(self) -> float:
        """Seconds since 1970, as the clock on the wall."""
        ...


def check_tasks(tasks: Sequence[Task]) -> None:
    """Raises a ValueError where two tasks have one name, or one needs a task that does not stand before it."""
    before: set[str] = set()
    for task in tasks:
        expect(task.name not in before, "tasks", "a name for each", task.name)
        expect(set(task.needs) <= before, f"{task.name}: needs", f"names of tasks before it ({', '.join(sorted(before))})", task.needs)
        before.add(task.name)
