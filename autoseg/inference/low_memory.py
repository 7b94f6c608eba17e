"""Prediction with as little memory as can be: one network at a time, one tile at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..runtime.hardware import free_memory
from ..schema import Configuration, Labels
from .predictor import Predictor


def use_low_memory(network: nn.Module) -> nn.Module:
    """The network, told to hold only the activations it must, where it knows how to."""
    for module in network.modules():
        if hasattr(module, "low_memory"):
            module.low_memory = True
    return network


@dataclass(frozen=True)
class LowMemoryPredictor:
    """As `Predictor` over several folds, which are loaded for each volume, one after the other.

    Attributes:
        loaders: One a fold: gives its network, on the device and in evaluation mode.
        configuration: See `Predictor`, as for the others.
        labels: Of the networks' outputs.
        device: Where to compute.
        mirror: Average over mirrored copies.
        step: Distance of neighbouring tiles as a share of the patch.
    """

    loaders: Sequence[Callable[[], nn.Module]]
    configuration: Configuration
    labels: Labels
    device: torch.device
    mirror: bool = True
    step: float = 0.5

    def logits(
        self,
        image: np.ndarray | torch.Tensor,
        *,
        previous: np.ndarray | torch.Tensor | None = None,
        region: np.ndarray | torch.Tensor | None = None,
        progress: Callable[[float], None] | None = None,
        source: str = "image",
    ) -> torch.Tensor:
        """As `Predictor.logits`; the mean over folds is kept in float16."""
        share = None if progress is None else lambda part: progress(part / len(self.loaders))
        mean: torch.Tensor | None = None
        for number, load in enumerate(self.loaders, start=1):
            found = self._of(load).logits(image, previous=previous, region=region, progress=share, source=source)
            free_memory(self.device)
            if mean is None:
                mean = found
            else:
                for whole, part in zip(mean, found, strict=True):  # of a channel at a time, so that only one is ever float32
                    whole.copy_(torch.lerp(whole.float(), part.float(), 1 / number))
        return mean

    def _of(self, load: Callable[[], nn.Module]) -> Predictor:
        options = {"device": self.device, "mirror": self.mirror, "step": self.step, "batch": 1}
        return Predictor([use_low_memory(load())], self.configuration, self.labels, **options)
