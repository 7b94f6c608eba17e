"""Intensities to the range that networks learn well from; the scheme follows from the channel's name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .model import Intensity

SMALLEST_STD = 1e-8
"""Divisor of an image without contrast."""


def scheme_for(channel_name: str) -> str:
    """Name of the scheme in `SCHEMES` for a channel; what is not a scheme's own name is z-scored, as is usual for MR."""
    name = channel_name.strip().casefold()
    return name if name in SCHEMES else "zscore"


def ct(array: np.ndarray, mask: np.ndarray | None, intensity: Intensity) -> np.ndarray:
    """Clips to the 0.5 and 99.5 percentiles of the dataset's foreground, then subtracts its mean and divides by its deviation.

    Hounsfield units mean the same in every scan, so the statistics are the dataset's; `mask` is not used.
    """
    result = np.clip(array, intensity.percentile_00_5, intensity.percentile_99_5, dtype=np.float32)
    result -= np.float32(intensity.mean)
    result /= np.float32(max(intensity.std, SMALLEST_STD))
    return result


def zscore(array: np.ndarray, mask: np.ndarray | None, intensity: Intensity) -> np.ndarray:
    """Mean 0 and deviation 1 of this image; with a mask computed and applied inside it, the rest stays as it is."""
    result = array.astype(np.float32, order="C")  # the sums below round alike however the file's axes lay in memory
    values = result if mask is None else result[mask]
    if values.size:
        mean, std = values.mean(dtype=np.float64), values.std(dtype=np.float64)
        scaled = (values - np.float32(mean)) / np.float32(max(std, SMALLEST_STD))
        result[... if mask is None else mask] = scaled
    return result


def nonorm(array: np.ndarray, mask: np.ndarray | None, intensity: Intensity) -> np.ndarray:
    """The values as they are, as float32."""
    return array.astype(np.float32)


def rescale_to_0_1(array: np.ndarray, mask: np.ndarray | None, intensity: Intensity) -> np.ndarray:
    """This image's minimum to 0 and maximum to 1."""
    result = array.astype(np.float32)
    result -= result.min()
    result /= max(float(result.max()), SMALLEST_STD)
    return result


def rgb_to_0_1(array: np.ndarray, mask: np.ndarray | None, intensity: Intensity) -> np.ndarray:
    """Bytes 0..255 to 0..1.

    Raises:
        ValueError: A value lies outside 0..255.
    """
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > 255:
        raise ValueError(f"normalisation rgb_to_0_1: expected values in 0..255, found {low:g}..{high:g}; name the channel differently")
    return array.astype(np.float32) / np.float32(255)


Scheme = Callable[[np.ndarray, np.ndarray | None, Intensity], np.ndarray]

SCHEMES: dict[str, Scheme] = {
    "ct": ct,
    "zscore": zscore,
    "nonorm": nonorm,
    "rescale_to_0_1": rescale_to_0_1,
    "rgb_to_0_1": rgb_to_0_1,
}
"""Name to ``function(channel (Z, Y, X), mask (Z, Y, X) of data or None, the dataset's statistics) -> new float32 array``."""
