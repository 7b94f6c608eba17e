"""The learning curve of a run: a table (``history.csv``) and a plot (``progress.png``), rewritten after every validation interval."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

from ..runtime.runs import read_history
from ..runtime.serialization import atomic_write
from .plots import plot_history

log = logging.getLogger(__name__)

INTERVALS_BEFORE_WARNING = 5
EMPTY_DICE = 1e-3


class History:
    """Rows of numbers, one a validation interval.

    Args:
        folder: Of the run; an existing table is continued.
    """

    def __init__(self, folder: Path) -> None:
        self.table, self.plot = folder / "history.csv", folder / "progress.png"
        self.rows = read_history(self.table)
        self._open: dict[str, float] = {}
        self._warned = False

    def begin(self, **values: float) -> None:
        """Starts the row of a validation interval."""
        self._open = dict(values)

    def finish(self, **values: float) -> dict[str, float]:
        """Completes the row, writes table and plot, and returns it."""
        self.rows.append({**self._open, **values})
        self._write()
        return self.rows[-1]

    def cut(self, validation_intervals: int) -> None:
        """Removes the rows after `validation_intervals`: training goes on from a checkpoint of then, or starts anew (0)."""
        self.rows = self.rows[:validation_intervals]

    def warn_if_collapsed(self) -> None:
        """Logs a warning, once, where an organ was found in no held-out case for several validation intervals."""
        recent = self.rows[-INTERVALS_BEFORE_WARNING:]
        if self._warned or len(recent) < INTERVALS_BEFORE_WARNING:
            return
        organs = [key.removeprefix("dice_") for key in recent[-1] if key.startswith("dice_")]
        lost = [organ for organ in organs if all(row[f"dice_{organ}"] < EMPTY_DICE for row in recent)]
        if lost:
            self._warned = True
            log.warning(
                "%s: not found in any held-out case for %d validation intervals. Training goes on; if it stays so, give it more --time, "
                "a smaller --learning-rate, or look at these labels with autoseg_check.",
                ", ".join(lost),
                INTERVALS_BEFORE_WARNING,
            )

    def _write(self) -> None:
        with atomic_write(self.table) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(self.rows[-1]))
            writer.writeheader()
            writer.writerows(self.rows)
        with atomic_write(self.plot) as partial:
            plot_history(self.rows, partial)
