"""What is known when a timetable is made: candidates with their costs, how far each training is, and the time that is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Seconds that a candidate's trainings take beside the training itself.

    Attributes:
        start: Of a process until its first step, with what is measured before a new training.
        again: The same where a training goes on.
        step: Of a training step.
        validation: Of all held-out cases of a fold.
        trial_case: Of a held-out case in a trial.
    """

    start: float = 15.0
    again: float = 10.0
    step: float = 0.5
    validation: float = 60.0
    trial_case: float = 2.0


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """A candidate of a study.

    Attributes:
        name: Of its configuration.
        first_stage: Of a cascade: the entrant whose predictions of all cases it learns from.
    """

    name: str
    costs: Costs = field(default_factory=Costs)
    first_stage: str = ""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a candidate's fold is.

    Attributes:
        seconds: Training time of its final networks; 0 without.
        begun: Training time of a training that is not at its end.
        is_validated: Whether all held-out cases were predicted by those networks.
        has_failed: It will not be tried again.
    """

    seconds: float = 0.0
    begun: float = 0.0
    is_validated: bool = False
    has_failed: bool = False


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training of the timetable.

    Attributes:
        seconds: Of training in all, with what it had before.
        duration: Expected, from now.
        patients: That its trial scores; 0 means that it is validated.
    """

    entrant: str
    fold: str
    seconds: float
    duration: float
    patients: int = 0

    @property
    def key(self) -> tuple[str, str]:
        """Candidate and fold."""
        return self.entrant, self.fold


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What is known when a timetable is made.

    Attributes:
        remaining: Seconds until the deadline.
        entrants: That have not left; a cascade stands behind its first stage.
        folds: That may be trained, the first one first.
        are_fixed: Whether the user named these folds.
        progress: Of candidate and fold; what is missing has not begun.
        tails: Seconds of what follows the trainings, ensembles and choice, by the number of folds: of one, two ...
        lanes: Trainings at a time.
        busy: Seconds until each of the running tasks ends.
        running: Candidates and folds that are being trained.
        held_out: Patients held out by the first fold; 0 where nothing is.
        tried: Candidate to the training times after which a trial scored it.
        rungs: Training times of the trials, where they were decided.
        done: Candidates and folds that had their final training.
        final_seconds: Training time of the final trainings that are done; 0 without.
    """

    remaining: float
    entrants: tuple[Entrant, ...]
    folds: tuple[str, ...] = ("0",)
    are_fixed: bool = False
    progress: Mapping[tuple[str, str], Progress] = field(default_factory=dict)
    tails: tuple[float, ...] = (0.0,)
    lanes: int = 1
    busy: tuple[float, ...] = ()
    running: frozenset[tuple[str, str]] = frozenset()
    held_out: int = 12
    tried: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    rungs: tuple[float, ...] | None = None
    done: frozenset[tuple[str, str]] = frozenset()
    final_seconds: float = 0.0

    def at(self, entrant: str, fold: str) -> Progress:
        """Progress of a candidate's fold."""
        return self.progress.get((entrant, fold), Progress())

    def tail(self, folds: Sequence[str]) -> float:
        """Seconds of what follows the trainings of these folds."""
        return self.tails[min(len(folds), len(self.tails)) - 1]

    def entrant(self, name: str) -> Entrant:
        """The entrant of a name."""
        return next(one for one in self.entrants if one.name == name)


class TooShortError(ValueError):
    """The time is not enough for a single training.

    Attributes:
        needed: Seconds that would be.
        parts: What needs how long, in words.
    """

    def __init__(self, candidate: str, parts: Mapping[str, float]) -> None:
        self.candidate, self.parts, self.needed = candidate, dict(parts), sum(parts.values())
        listed = ", ".join(f"{seconds:.0f} s {words}" for words, seconds in parts.items())
        super().__init__(f"not enough for one training of {candidate}: {listed}; at least {self.needed:.0f} s are needed")
