"""What a study needs to know of a dataset and its models; `pipeline.study_world` is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .halving import TrialScores
from .situation import Costs, Entrant, Job, Progress
from .tasks import Ended, Task


class World(Protocol):
    """The dataset and its models, as a study sees them."""

    @property
    def folds(self) -> tuple[str, ...]:
        """That may be trained."""
        ...

    @property
    def are_fixed(self) -> bool:
        """Whether the user named the folds."""
        ...

    @property
    def held_out(self) -> int:
        """Patients held out by the first fold."""
        ...

    def preparation(self) -> Task:
        """What comes before the first training."""
        ...

    def entrants(self) -> tuple[Entrant, ...]:
        """All candidates, with costs as they are estimated; called after the preparation."""
        ...

    def progress(self, entrant: str, fold: str) -> Progress:
        """How far a training is, by its files."""
        ...

    def trial(self, entrant: str) -> TrialScores | None:
        """Scores of the last trial of the first fold's present networks."""
        ...

    def costs_after(self, entrant: Entrant, job: Job, gained: float, ended: Ended) -> Costs:
        """What the end of a training, which gained so many seconds of training, tells about its costs."""
        ...

    def training(self, job: Job, whole: float) -> Task:
        """The task of a job; `whole` is the training time that each will have in the end."""
        ...

    def conclusion(self, entrants: Sequence[str], folds: Sequence[str]) -> tuple[Task, ...]:
        """What follows the trainings of these candidates and folds: the last task is the choice, those before it may fail."""
        ...


SHORTER = 2.0
"""Seconds by which a training may have a smaller budget than was asked for: what it is rounded to, and what is not worth going on for."""


def missing(world: World, job: Job) -> str:
    """What is not there after a training, whatever its exit status says; empty where its result is there."""
    progress = world.progress(*job.key)
    if progress.seconds < job.seconds - SHORTER:
        return "its network is not there"
    if job.patients:
        return "" if world.trial(job.entrant) is not None else "its scores are not there"
    return "" if progress.is_validated else "its network is not validated"


def tails(world: World, entrants: Sequence[str]) -> tuple[float, ...]:
    """Seconds of what follows the trainings of these candidates, by the number of folds."""
    counts = range(1, len(world.folds) + 1)
    return tuple(sum(task.seconds for task in world.conclusion(entrants, world.folds[:count])) for count in counts)
