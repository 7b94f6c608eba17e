"""Cascades: the segmentation of the first stage becomes input channels of the second."""

from __future__ import annotations

import numpy as np
import torch

from ..preprocessing.cropping import slices_of
from ..preprocessing.orientation import reorient
from ..preprocessing.resampling import resample_labels
from ..schema import Labels, Trace


def on_grid(segmentation: np.ndarray, trace: Trace) -> np.ndarray:
    """Brings a label map of the whole file, ``(Z, Y, X)`` or ``(Y, X)`` in its axis order, to the grid of a preprocessed case, int16."""
    volume = reorient(segmentation[None], trace.transpose, trace.flips)[0]
    spacing = tuple(trace.geometry.spacing[axis] for axis in trace.transpose)
    cropped = volume[slices_of(trace.crop)]
    return resample_labels(cropped, trace.shape, spacing=spacing, new_spacing=trace.spacing).astype(np.int16)


def organs_as_channels(segmentation: torch.Tensor, labels: Labels) -> torch.Tensor:
    """One channel per foreground label: ``(B, *spatial)`` internal values to ``(B, V, *spatial)`` float32 zeros and ones."""
    values = torch.arange(1, len(labels.base_values) + 1, dtype=segmentation.dtype, device=segmentation.device)
    return (segmentation[:, None] == values.reshape(-1, *[1] * (segmentation.ndim - 1))).float()
