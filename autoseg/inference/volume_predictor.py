"""The one path from a preprocessed case to its logits, for validation and for new images alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from ..schema import Configuration, Trace
from .candidate_region_mask import candidate_region_mask
from .logits import Logits
from .memory_limit import MemoryLimit

Progress = Callable[[float], None]
"""Is called with the share of the work done since the last call."""


@dataclass(frozen=True, eq=False)
class Volume:
    """A preprocessed case as a predictor sees it.

    Attributes:
        image: ``(C, Z, Y, X)`` float32, any size.
        previous: Label map of the previous stage on the same grid, ``(Z, Y, X)`` internal values, or None.
        region: Candidate region, ``(Z, Y, X)`` bool: what lies outside is background; None means everywhere.
        case: Its name, for messages.
        limit: Of the memory that its prediction takes; None: what the computer has.
    """

    image: np.ndarray
    previous: np.ndarray | None = None
    region: np.ndarray | None = None
    case: str = "image"
    limit: MemoryLimit | None = None


class VolumePredictor(Protocol):
    """Gives the logits of whole preprocessed volumes."""

    def logits(self, volume: Volume, *, progress: Progress | None = None) -> torch.Tensor:
        """Logits ``(K, Z, Y, X)`` float16 on the CPU, backed by a temporary file where memory is scarce."""
        ...


def predict_preprocessed(
    predictor: VolumePredictor, configuration: Configuration, volume: Volume, trace: Trace, *, progress: Progress | None = None
) -> Logits:
    """Predicts a preprocessed case inside its candidate region; with the previous stage's label map where the configuration follows one."""
    region = candidate_region_mask(configuration, volume.image, volume.previous, source=volume.case)
    previous = volume.previous if configuration.sees_previous else None
    array = predictor.logits(replace(volume, region=region, previous=previous), progress=progress)
    logits = Logits(array, trace) if configuration.slice_axis == 0 else _in_planned_order(array, trace, configuration.slice_axis)
    return logits if volume.limit is None else volume.limit.readable(logits)


def _in_planned_order(logits: torch.Tensor, trace: Trace, axis: int) -> Logits:
    """Logits whose slices follow each other along the planned order's `axis`, as those of all other models: that axis back in its place."""
    places = [int(place) for place in np.argsort([axis, *(other for other in range(3) if other != axis)])]
    moved: dict[str, Any] = {name: tuple(getattr(trace, name)[place] for place in places) for name in _BY_AXIS}
    flips = tuple(sorted(places.index(flip) for flip in trace.flips))
    return Logits(logits.permute(0, *(place + 1 for place in places)), replace(trace, **moved, flips=flips))


_BY_AXIS = ("transpose", "shape_before_crop", "crop", "shape", "spacing")
"""What a `Trace` holds for each axis."""


def scaled(progress: Progress | None, factor: float) -> Progress | None:
    """Progress of a part of the work: its shares count for `factor` of the whole."""
    return None if progress is None else lambda share: progress(share * factor)
