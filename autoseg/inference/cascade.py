"""The link between two stages: a segmentation of the first becomes input channels of the second."""

from __future__ import annotations

import numpy as np

from ..model import Labels, Trace
from ..preprocessing import arrange, slices_of
from ..resampling import resample_labels


def on_grid(segmentation: np.ndarray, trace: Trace) -> np.ndarray:
    """Brings a label map of the whole file to the grid of a preprocessed case.

    Args:
        segmentation: Internal values, file axis order, ``(Z, Y, X)`` or ``(Y, X)``.
        trace: Of the preprocessed case.

    Returns:
        ``trace.shape`` int16 internal values.
    """
    volume = arrange(segmentation[None], trace.transpose)[0]
    spacing = tuple(trace.geometry.spacing[axis] for axis in trace.transpose)
    cropped = volume[slices_of(trace.crop)]
    return resample_labels(cropped, trace.shape, spacing=spacing, new_spacing=trace.spacing).astype(np.int16)



def organs_as_channels(segmentation: np.ndarray, labels: Labels) -> np.ndarray:
    """One channel per foreground label: ``(Z, Y, X)`` internal values to ``(B, Z, Y, X)`` float32 zeros and ones."""
    values = np.arange(1, len(labels.base_values) + 1).reshape(-1, 1, 1, 1)
    return (segmentation[None] == values).astype(np.float32)
