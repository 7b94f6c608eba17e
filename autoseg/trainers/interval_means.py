"""Means over the steps of a validation interval, kept with the checkpoint: a run interrupted within one continues to the same row."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class IntervalMeans:
    """Sums of the values that the steps of the present validation interval returned.

    Attributes:
        count: Number of steps so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sums: dict[str, Tensor] = {}
        self._without: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor | None]) -> None:
        """Counts a step; the values stay on their device, so that it need not be waited for. None is that of a step that had none."""
        for name, value in values.items():
            if value is None:
                self._without[name] = self._without.get(name, 0) + 1
            else:
                self._sums[name] = self._sums[name] + value if name in self._sums else value
        self.count += 1

    def means(self) -> dict[str, float]:
        """The mean of each value over the steps that had it; NaN where none had."""
        names = dict.fromkeys([*self._sums, *self._without])
        counts = {name: self.count - self._without.get(name, 0) for name in names}
        return {name: float(self._sums[name]) / counts[name] if name in self._sums else math.nan for name in names}

    @property
    def is_finite(self) -> bool:
        """Whether no value has become infinite or NaN, as where a training diverges."""
        return all(math.isfinite(float(value)) for value in self._sums.values())

    def reset(self) -> None:
        """Begins the next interval."""
        self.count, self._sums, self._without = 0, {}, {}

    def states(self) -> dict[str, Any]:
        """All that is needed to go on."""
        return {"sums": dict(self._sums), "count": torch.tensor(self.count), "without": dict(self._without)}

    def load(self, states: Mapping[str, Any], device: torch.device) -> None:
        """Takes over what `states` gave."""
        self.count, self._sums = int(states["count"]), {name: value.to(device) for name, value in states["sums"].items()}
        self._without = dict(states.get("without", {}))  # not in those of earlier versions
