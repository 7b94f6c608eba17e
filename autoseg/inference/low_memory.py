"""Sliding-window prediction with as little memory as possible: one network at a time, one tile at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..runtime.hardware import release_memory
from ..schema import Configuration, Labels
from .plain_mean import mean_of_folds, probabilities_of
from .predictor import Predictor
from .volume_predictor import Progress, Volume, scaled

SLICES = 8
"""Of a volume whose probabilities are averaged at once."""


def use_low_memory(network: nn.Module) -> nn.Module:
    """Makes a network hold only the activations it must, where it has such a mode; returns it."""
    modules: Iterable[Any] = network.modules()
    for module in modules:
        if hasattr(module, "low_memory"):
            module.low_memory = True
    return network


@dataclass(frozen=True)
class LowMemoryPredictor:
    """As `Predictor` over several folds, whose `loaders` give their networks for each volume, one after the other."""

    loaders: Sequence[Callable[[], nn.Module]]
    configuration: Configuration
    labels: Labels
    device: torch.device
    mirror: bool = True
    step: float | None = None

    def logits(self, volume: Volume, *, progress: Progress | None = None) -> torch.Tensor:
        """As `Predictor.logits`; the mean over folds, of logits or of probabilities, is kept in float16."""
        progress = scaled(progress, 1 / len(self.loaders))
        mean = self._predictor(0).logits(volume, progress=progress)
        release_memory(self.device)
        for fold in range(1, len(self.loaders)):
            logits = self._predictor(fold).logits(volume, progress=progress)
            release_memory(self.device)
            if self.configuration.tiling.mean == "plain":
                probable = probabilities_of(self.labels)
                for slices, part in zip(mean.split(SLICES, 1), logits.split(SLICES, 1), strict=True):
                    slices.copy_(mean_of_folds(slices, part, fold, probable))
                    if volume.limit is not None:
                        volume.limit.release()
                del logits, slices, part
                continue
            for whole, part in zip(mean, logits, strict=True):  # of a channel at a time, so that only one is ever float32
                whole.copy_(torch.lerp(whole.float(), part.float(), 1 / (fold + 1)))
                if volume.limit is not None:
                    volume.limit.release()
            del logits, whole, part  # before the next ones are made
        return mean

    def _predictor(self, fold: int) -> Predictor:
        networks = [use_low_memory(self.loaders[fold]())]
        return Predictor(networks, self.configuration, self.labels, device=self.device, mirror=self.mirror, step=self.step, batch=1)
