"""The link between two stages: a segmentation of the first becomes input channels of the second."""

from __future__ import annotations

import numpy as np

from ..model import Labels, Trace
from ..resampling import resample_labels


def on_grid(segmentation: np.ndarray, trace: Trace) -> np.ndarray:
    """Brings a label map of the whole file to the grid of a preprocessed case.

    Args:
        segmentation: Internal values, file axis order, ``(Z, Y, X)`` or ``(Y, X)``.
        trace: Of the preprocessed case.

    Returns:
        ``trace.shape`` int16 internal values.
    """
    volume = segmentation[None] if segmentation.ndim == 2 else segmentation.transpose(trace.transpose)
    cropped = volume[tuple(slice(start, stop) for start, stop in trace.crop)]
    return resample_labels(cropped, trace.shape).astype(np.int16)


def organs_as_channels(segmentation: np.ndarray, labels: Labels) -> np.ndarray:
    """One channel per foreground label: ``(Z, Y, X)`` internal values to ``(B, Z, Y, X)`` float32 zeros and ones."""
    values = np.arange(1, len(labels.base_values) + 1).reshape(-1, 1, 1, 1)
    return (segmentation[None] == values).astype(np.float32)
