"""The one path from a preprocessed case to its logits, for validation and for new images alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from ..schema import Configuration, Labels, Trace
from .candidate_region import candidate_region_mask
from .logits import Logits

Volume = np.ndarray | torch.Tensor

Progress = Callable[[float], None]
"""Is called with the share of the work done since the last call."""


class VolumePredictor(Protocol):
    """Gives the logits of whole preprocessed volumes."""

    def logits(
        self,
        image: Volume,
        *,
        previous: Volume | None = None,
        region: Volume | None = None,
        progress: Progress | None = None,
        source: str = "image",
    ) -> torch.Tensor:
        """Predicts a preprocessed volume.

        Args:
            image: ``(C, Z, Y, X)`` float32, any size.
            previous: Label map of a cascade's first stage, ``(Z, Y, X)`` internal values; where the configuration sees it.
            region: Candidate region, ``(Z, Y, X)`` bool: what lies outside is background; None means everywhere.
            progress: Called with the share of the volume done since the last call.
            source: Name of the case, for messages.

        Returns:
            ``(K, Z, Y, X)`` float16 on the CPU; backed by a temporary file where memory is scarce.
        """
        ...


class SlidingWindow(VolumePredictor, Protocol):
    """A volume predictor that moves a patch over the volume."""

    @property
    def labels(self) -> Labels:
        """The organs of the output channels."""
        ...

    @property
    def mirror(self) -> bool:
        """Whether mirrored copies are averaged."""
        ...

    @property
    def step(self) -> float:
        """Distance of tiles as a share of the patch."""
        ...


@dataclass(frozen=True, eq=False)
class PreprocessedCase:
    """A case on the grid of a configuration.

    Attributes:
        name: For messages.
        image: ``(C, Z, Y, X)`` float32.
        trace: What preprocessing did to it.
        previous: Label map of the previous stage on the same grid, ``(Z, Y, X)`` internal values, or None.
    """

    name: str
    image: np.ndarray
    trace: Trace
    previous: np.ndarray | None = None


def predict_preprocessed(
    predictor: VolumePredictor, configuration: Configuration, case: PreprocessedCase, *, progress: Progress | None = None
) -> Logits:
    """Predicts a preprocessed case inside its candidate region.

    Args:
        predictor: Of the configuration.
        configuration: Its candidate region, and whether the network sees the previous stage's label map.
        case: With the previous stage's label map where the configuration follows one.
        progress: Called with the share done since the last call.
    """
    region = candidate_region_mask(configuration, case.image, case.previous, source=case.name)
    previous = case.previous if configuration.sees_previous else None
    return Logits(predictor.logits(case.image, previous=previous, region=region, progress=progress, source=case.name), case.trace)


def scaled(progress: Progress | None, factor: float) -> Progress | None:
    """Progress of a part of the work: its shares count for `factor` of the whole."""
    return None if progress is None else lambda share: progress(share * factor)
