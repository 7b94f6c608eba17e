"""What a run makes of its validation loss: a learning rate that falls on plateaus, and an early end."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass

from ..schema.training_options import TrainingOptions
from .schedules import PLATEAU

log = logging.getLogger(__name__)

THRESHOLD = 1e-4
"""Least relative fall of the smoothed loss that counts as an improvement, as in torch's ``ReduceLROnPlateau``."""


@dataclass
class Plateau:
    """Reductions on plateaus of the smoothed validation loss, and early stopping (Crespi et al. 2023).

    The validation losses are smoothed by an exponential moving average. Each time it has found no new minimum for `plateau_patience`
    validation intervals, the rate is multiplied by `plateau_factor`; after `early_stopping` of them training ends.

    Args:
        options: Of the run; with another schedule than ``plateau`` the rate is left alone.

    Attributes:
        factor: For the learning rate, 1 at first.
        average: Smoothed validation loss so far; None before the first one.
        best: Its minimum.
        waited: Validation intervals since that, and `reduced_after`, how many of them the last reduction came after.
    """

    options: TrainingOptions
    factor: float = 1.0
    average: float | None = None
    best: float = math.inf
    waited: int = 0
    reduced_after: int = 0

    @property
    def has_ended(self) -> bool:
        """Whether training ends before its budget is used up."""
        return 0 < self.options.early_stopping <= self.waited

    def add(self, loss: float) -> None:
        """Takes the loss of one validation interval; NaN, of one that was not scored for want of time, changes nothing."""
        if math.isnan(loss):
            return
        keep = self.options.plateau_smoothing
        self.average = loss if self.average is None else keep * self.average + (1 - keep) * loss
        if self.average < self.best - THRESHOLD * abs(self.best if math.isfinite(self.best) else 0):
            self.best, self.waited, self.reduced_after = self.average, 0, 0
            return
        self.waited += 1
        if self.options.schedule == PLATEAU and self.waited - self.reduced_after >= self.options.plateau_patience:
            self.factor, self.reduced_after = self.factor * self.options.plateau_factor, self.waited
            log.info("No better validation loss for %d validation intervals: learning rate times %g.", self.waited, self.factor)
        if self.has_ended:
            log.info("No better validation loss for %d validation intervals: training ends here (early_stopping).", self.waited)

    def states(self) -> dict[str, float | int | None]:
        """What a checkpoint keeps of it."""
        names = ("factor", "average", "best", "waited", "reduced_after")
        return {name: getattr(self, name) for name in names}

    def load(self, states: Mapping[str, float | int | None]) -> None:
        """Takes over what `states` gave."""
        for name, value in states.items():
            setattr(self, name, value)
