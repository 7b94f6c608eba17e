"""Models and runs on disk as values: which files they have, and what is finished.

A *model folder* holds one configuration trained by one trainer (``results/<dataset>/3d_fullres__Trainer``), a *run* one fold of it
(``fold_0`` ... or ``fold_all``). Nothing else assembles these paths.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..schema import Labels, RunRecord, Score
from ..schema.plan import ENSEMBLE
from .locks import LOCK
from .migrate.artefacts import complete_record
from .serialization import read_json

log = logging.getLogger(__name__)

ALL = "all"
"""Name of the fold that trains on every case and holds none out."""

LATEST_CHECKPOINT, FINAL_CHECKPOINT = "checkpoint_latest.pt", "checkpoint_final.pt"
"""Checkpoint files of a run; a run is trained when the final one exists."""

RECORD = "run.json"


@dataclass(frozen=True)
class Run:
    """One fold of a model on disk.

    Attributes:
        folder: ``<model folder>/fold_<fold>``.
    """

    folder: Path

    @property
    def fold(self) -> str:
        """Name of the fold: ``0`` ... or ``all``."""
        return self.folder.name.removeprefix("fold_")

    @property
    def model(self) -> ModelFolder:
        """The model that it is a fold of."""
        return ModelFolder(self.folder.parent)

    @property
    def record_file(self) -> Path:
        """What the run was started with."""
        return self.folder / RECORD

    @property
    def checkpoint(self) -> Path:
        """The final networks, there once the run is trained."""
        return self.folder / FINAL_CHECKPOINT

    @property
    def latest_checkpoint(self) -> Path:
        """What an interrupted training resumes from."""
        return self.folder / LATEST_CHECKPOINT

    @property
    def history_file(self) -> Path:
        """The learning curves."""
        return self.folder / "history.csv"

    @property
    def validation(self) -> Path:
        """Folder of the predictions of the held-out cases."""
        return self.folder / "validation"

    @property
    def scores_file(self) -> Path:
        """Scores of all held-out cases, there once all were validated."""
        return self.validation / "scores.json"

    @property
    def failures_file(self) -> Path:
        """Held-out cases that failed, with the reason; missing where none did."""
        return self.validation / "failures.json"

    @property
    def timings_file(self) -> Path:
        """Held-out case to seconds from the preprocessed image to the label map on the file's grid."""
        return self.validation / "timings.json"

    def label_map(self, case: str, ending: str) -> Path:
        """The predicted label map of a held-out case."""
        return self.validation / f"{case}{ending}"

    def logits(self, case: str) -> Path:
        """The stored logits of a held-out case."""
        return self.validation / f"{case}.b2nd"

    def trace(self, case: str) -> Path:
        """The way from those logits back to the grid of the case's file."""
        return self.validation / f"{case}.trace.json"

    def case_scores(self, case: str) -> Path:
        """Scores of one held-out case."""
        return self.validation / f"{case}.scores.json"

    @property
    def is_started(self) -> bool:
        """Whether its record is written."""
        return self.record_file.is_file()

    @property
    def is_trained(self) -> bool:
        """Whether its final checkpoint is there."""
        return self.checkpoint.is_file()

    @property
    def is_validated(self) -> bool:
        """Whether its scores are there, perhaps without cases that failed."""
        return self.scores_file.is_file()

    @property
    def is_finished(self) -> bool:
        """Whether it is trained, and validated without a case that failed."""
        return self.is_trained and self.is_validated and not self.failures_file.is_file()

    def record(self) -> RunRecord:
        """What the run was started with.

        Raises:
            ValueError: The file is missing or damaged; the message names it.
        """
        if not self.is_started:
            raise ValueError(f"{self.record_file}: not there, so nothing is known of this training")
        return complete_record(read_json(self.record_file, RunRecord))

    def scores(self) -> list[Score]:
        """Scores of the held-out cases, one a case and organ.

        Raises:
            ValueError: The file is damaged; the message names it.
        """
        return read_json(self.scores_file, list[Score])

    def failures(self) -> dict[str, str]:
        """Held-out case -> reason for those that failed."""
        return read_json(self.failures_file, dict) if self.failures_file.is_file() else {}

    def timings(self) -> dict[str, float]:
        """Held-out case to seconds of its prediction; empty where none was measured."""
        found = read_json(self.timings_file, dict) if self.timings_file.is_file() else {}
        return {case: float(seconds) for case, seconds in found.items() if isinstance(seconds, (int, float))}

    def siblings(self) -> list[Run]:
        """The other folds of its model that are started."""
        return [run for run in self.model.runs() if run.folder != self.folder]

    def put_aside(self) -> None:
        """Renames the folder, so that another run can start in its place."""
        number = next(i for i in range(1, 10_000) if not self.folder.with_name(f"old_{self.folder.name}_{i}").exists())
        kept = self.folder.with_name(f"old_{self.folder.name}_{number}")
        self.folder.rename(kept)
        (kept / LOCK).unlink(missing_ok=True)  # that of this process, which is given back where it was taken
        log.info("The former run is kept as %s", kept)


@dataclass(frozen=True)
class ModelFolder:
    """One configuration trained by one trainer, over all folds.

    Attributes:
        folder: ``results/<dataset>/<configuration>__<trainer>``, with further words where something differs from the plan. Also
            the folder of one fold that was copied elsewhere under another name: a model of that fold alone.
    """

    folder: Path

    @classmethod
    def named(cls, results: Path, configuration: str, trainer: str, words: Iterable[str] = ()) -> ModelFolder:
        """The folder of a configuration and a trainer below ``results/<dataset>``; `words` name what else differs from the plan."""
        return cls(results / "__".join(part.replace(":", ".") for part in (configuration, trainer, *words)))

    @property
    def name(self) -> str:
        """By which users and choices name the model."""
        return self.folder.name

    @property
    def configuration(self) -> str:
        """Name of its configuration; `ENSEMBLE` for a learned ensemble."""
        return self.name.partition("__")[0]

    @property
    def is_ensemble(self) -> bool:
        """Whether it is a learned ensemble of other models."""
        return self.configuration == ENSEMBLE

    def run(self, fold: str) -> Run:
        """One of its folds, whether it is there or not."""
        return Run(self.folder) if self._is_run else Run(self.folder / f"fold_{fold}")

    def runs(self) -> list[Run]:
        """Its folds that are started, sorted by name."""
        return [Run(self.folder)] if self._is_run else [Run(path.parent) for path in sorted(self.folder.glob(f"fold_*/{RECORD}"))]

    def trained_folds(self) -> list[str]:
        """Names of its folds that are trained, sorted."""
        if self._is_run:
            return [run.record().fold for run in self.runs() if run.is_trained]
        return sorted(path.parent.name.removeprefix("fold_") for path in self.folder.glob(f"fold_*/{FINAL_CHECKPOINT}"))

    def validated_folds(self) -> list[str]:
        """Names of its folds that are trained and validated, sorted."""
        return [fold for fold in self.trained_folds() if self.run(fold).is_validated]

    @property
    def _is_run(self) -> bool:
        return (self.folder / RECORD).is_file()

    def labels(self, default: Labels) -> Labels:
        """The organs that its networks segment; `default` where no run is recorded."""
        runs = self.runs()
        return runs[0].record().plan.labels if runs else default


def read_history(path: Path) -> list[dict[str, float]]:
    """The learning curve of a run, ``history.csv``: numbers by column, one row a validation interval; none where there is no file.

    Raises:
        ValueError: It is no table of numbers; the message names it.
    """
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            # "round" was the name in autoseg 0.1.0.
            renamed = {"round": "validation_interval"}
            return [{renamed.get(key, key): _number(value) for key, value in row.items()} for row in csv.DictReader(file)]
    except (ValueError, TypeError, AttributeError, csv.Error) as error:
        reason = f"expected a table of numbers, found this: {error}"
        raise ValueError(f"{path}: damaged: {reason}; put a copy of it back, or move it away: the curve then begins anew") from error


def _number(text: str) -> float:
    """Counts stay counts, so that a table that is read and written again is the same text."""
    return int(text) if text.isdigit() else float(text or "nan")


def model_folders(results: Path) -> list[ModelFolder]:
    """The models below ``results/<dataset>`` with at least one trained fold, sorted by name."""
    return [ModelFolder(folder) for folder in sorted({path.parents[1] for path in results.glob(f"*__*/fold_*/{FINAL_CHECKPOINT}")})]


def started_runs(results: Path) -> list[Run]:
    """Every fold of every model below ``results/<dataset>`` that was started, sorted."""
    return [Run(path.parent) for path in sorted(results.glob(f"*__*/fold_*/{RECORD}"))]


def validated_runs(results: Path) -> list[Run]:
    """Every fold of every model below ``results/<dataset>`` that has scores, sorted."""
    return [Run(path.parents[1]) for path in sorted(results.glob("*__*/fold_*/validation/scores.json"))]
