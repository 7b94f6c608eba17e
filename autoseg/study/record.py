"""What a study remembers: its deadline, the time it has used, who left, and what was measured (``results/<dataset>/study.json``)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from ..runtime.serialization import read_json, write_json
from ..schema.conventions import FORMAT
from ..schema.values import check_least
from .halving import TrialScores
from .situation import Costs

STUDY = "study.json"


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """The state of a study, rewritten after each task and every few seconds between.

    Attributes:
        asked: What it was started with, but for the time; another one is another study.
        total: Seconds of running time in all; of a deadline by the clock those from its beginning until then.
        until: The deadline, seconds since 1970; None where running time counts.
        spent: Seconds that it has run so far.
        began: When it was first started, seconds since 1970.
        rungs: Training times of its trials; None before they were decided.
        patients: Training time of a trial, in seconds, to the number of patients that it scores of each candidate.
        lanes: Trainings at a time; 0 before that was measured.
        costs: Candidate to what was measured of it.
        trials: Candidate to its scores.
        judged: Training times, in seconds, after which it was decided who leaves.
        left: Candidates that left, were left out or failed, with the reason.
        failed: Name of a task to the reason why it failed.
        done: ``candidate/fold`` of the final trainings that were done, to their training time.
        is_finished: Whether the choice was made.
    """

    file_format: ClassVar[int] = FORMAT

    asked: dict[str, str]
    total: float
    until: float | None = None
    spent: float = 0.0
    began: float = 0.0
    rungs: tuple[float, ...] | None = None
    patients: dict[str, int] = field(default_factory=dict)
    lanes: int = 0
    costs: dict[str, Costs] = field(default_factory=dict)
    trials: dict[str, list[TrialScores]] = field(default_factory=dict)
    judged: tuple[str, ...] = ()
    left: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    done: dict[str, float] = field(default_factory=dict)
    is_finished: bool = False

    def __post_init__(self) -> None:
        check_least("study: total", self.total, above=True)
        check_least("study: spent", self.spent)

    @property
    def final_keys(self) -> frozenset[tuple[str, str]]:
        """Candidates and folds that had their final training."""
        return frozenset((key.rpartition("/")[0], key.rpartition("/")[2]) for key in self.done)


class RecordFile:
    """The record of a study on disk.

    Args:
        path: Of the file.
        record: To begin with.
    """

    def __init__(self, path: Path, record: StudyRecord) -> None:
        self.path, self.now = path, record

    def change(self, **values: object) -> None:
        """Writes the record with other values."""
        self.now = replace(self.now, **values)  # type: ignore[arg-type]
        write_json(self.path, self.now)


def read_record(path: Path) -> StudyRecord | None:
    """The record of a former study; None without one.

    Raises:
        ValueError: The file is damaged; the message names it.
    """
    return read_json(path, StudyRecord) if path.is_file() else None
