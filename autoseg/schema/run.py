"""Budget of a training, and the split into training and validation cases."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .names import check_name
from .values import expect


@dataclass(frozen=True)
class Budget:
    """Budget of a training; the learning rate falls to zero exactly at its end.

    Attributes:
        kind: ``iterations`` or ``time``.
        amount: Steps, or seconds.
        validation_intervals: Number of equal parts, each followed by validation, a row of the history and a checkpoint.
        why: One sentence for the user: where the number comes from and how to change it.
    """

    kind: str
    amount: float
    validation_intervals: int
    why: str = ""

    def __post_init__(self) -> None:
        if self.kind not in ("iterations", "time"):
            raise ValueError(f"Budget.kind: expected 'iterations' or 'time', got {self.kind!r}")
        if not (0 < self.amount < math.inf) or self.validation_intervals < 1:
            found = f"{self.amount} and {self.validation_intervals}"
            raise ValueError(f"Budget: expected a positive amount and at least one interval, got {found}")

    def progress(self, iteration: int, seconds: float) -> float:
        """Share of the budget that is used, 0..1, after `iteration` steps and `seconds` of training."""
        return min(1.0, (iteration if self.kind == "iterations" else seconds) / self.amount)


@dataclass(frozen=True)
class Split:
    """Training and validation cases of one fold."""

    train: tuple[str, ...]
    val: tuple[str, ...]

    def __post_init__(self) -> None:
        for case in (*self.train, *self.val):
            check_name(case, "case")
        for side, names in (("train", self.train), ("val", self.val)):
            expect(len(set(names)) == len(names), side, "each case once", names)
