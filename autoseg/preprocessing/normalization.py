"""Intensity normalisation; the default scheme follows from the channel's name."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from ..runtime.registry import lookup, unknown_name_error
from ..schema import Intensity

SMALLEST_STD = 1e-8
"""Divisor of an image without contrast."""


def default_scheme(channel_name: str) -> str:
    """Name of the scheme in `SCHEMES` for a channel: its own name if it is that of a scheme, else ``zscore``, as is usual for MR."""
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
    """Bytes 0..255 to 0..1; a ValueError where a value lies outside."""
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > 255:
        raise ValueError(f"normalisation rgb_to_0_1: expected values in 0..255, found {low:g}..{high:g}; name the channel differently")
    return array.astype(np.float32) / np.float32(255)


def window(array: np.ndarray, mask: np.ndarray | None, intensity: Intensity, *, width: float, level: float) -> np.ndarray:
    """The window of a CT viewer: ``level - width / 2`` and all below to 0, ``level + width / 2`` and all above to 1, linear between.

    `window8` rounds them to 8 bits, as Crespi et al. 2023 do; here the values in between are kept.

    Raises:
        ValueError: The width is not positive.
    """
    if width <= 0:
        raise ValueError(f"normalisation window: expected a width above 0 HU, got {width:g}")
    result = np.clip(array, level - width / 2, level + width / 2, dtype=np.float32)
    result -= np.float32(level - width / 2)
    result /= np.float32(width)
    return result


def window8(array: np.ndarray, mask: np.ndarray | None, intensity: Intensity, *, width: float, level: float) -> np.ndarray:
    """As `window`, rounded to the 256 grey values of an 8-bit image (Crespi et al. 2023), which are then divided by 255."""
    return np.round(window(array, mask, intensity, width=width, level=level) * np.float32(255)) / np.float32(255)


def clip(array: np.ndarray, mask: np.ndarray | None, intensity: Intensity, *, low: float, high: float) -> np.ndarray:
    """Clips to a fixed range, then mean 0 and deviation 1 of this image (with a mask inside it).

    Fang & Yan, IEEE TMI 39 (2020), with -200 and 200 HU; the paper leaves open whether image or dataset has mean 0, and an image needs
    no statistics that depend on the range.

    Raises:
        ValueError: The range is empty.
    """
    if low >= high:
        raise ValueError(f"normalisation clip: expected a low end below the high one, got {low:g} and {high:g}")
    return zscore(np.clip(array, low, high, dtype=np.float32), mask, intensity)


def scale(array: np.ndarray, mask: np.ndarray | None, intensity: Intensity, *, by: float) -> np.ndarray:
    """Divides by a positive number (else a ValueError) and clips to -1 .. 1; Thaler et al. 2021 take 2048 for CT."""
    if by <= 0:
        raise ValueError(f"normalisation scale: expected a divisor above 0, got {by:g}")
    return np.clip(array.astype(np.float32) / np.float32(by), -1, 1, dtype=np.float32)


Scheme = Callable[[np.ndarray, np.ndarray | None, Intensity], np.ndarray]

SCHEMES: dict[str, Scheme] = {function.__name__: function for function in (ct, zscore, nonorm, rescale_to_0_1, rgb_to_0_1)}
"""Name to ``function(channel (Z, Y, X), mask (Z, Y, X) of data or None, the dataset's statistics) -> new float32 array``."""

PARAMETRIC: dict[str, tuple[Callable[..., np.ndarray], tuple[str, ...]]] = {
    "window": (window, ("width", "level")),
    "window8": (window8, ("width", "level")),
    "clip": (clip, ("low", "high")),
    "scale": (scale, ("by",)),
}
"""Schemes for CT whose name carries numbers in Hounsfield units (``window:400:40``): the function and what its numbers are."""


def find_scheme(name: str) -> Scheme:
    """The scheme called `name`: of `SCHEMES`, one of `PARAMETRIC` with its numbers, or ``module:function``.

    Raises:
        ValueError: There is none, or its numbers make no sense; the message lists the valid ones.
    """
    head, _, rest = name.partition(":")
    if head not in PARAMETRIC:
        if name not in SCHEMES and ":" not in name:
            raise unknown_name_error("normalisation", name, [*SCHEMES, *(_usage(known) for known in PARAMETRIC)])
        return lookup(SCHEMES, name, "normalisation")
    function, names = PARAMETRIC[head]
    try:
        numbers = [float(number) for number in rest.split(":")] if rest else []
    except ValueError:
        numbers = []
    if len(numbers) != len(names) or not all(map(math.isfinite, numbers)):
        raise ValueError(f"normalisation {head}: expected {_usage(head)} with numbers, got {name!r}")
    scheme = partial(function, **dict(zip(names, numbers, strict=True)))
    scheme(np.zeros(1, np.float32), None, Intensity(*(0.0,) * 7))  # refuses numbers that make no sense, before any image is read
    return scheme


def reads_statistics(name: str) -> bool:
    """Whether a scheme's result depends on the dataset's statistics; of one by ``module:function`` nobody knows, so it may."""
    head = name.partition(":")[0]
    return head == ct.__name__ or (":" in name and head not in PARAMETRIC)


def _usage(head: str) -> str:
    return ":".join([head, *(number.upper() for number in PARAMETRIC[head][1])])


def is_for_ct(name: str) -> bool:
    """Whether a scheme's numbers are Hounsfield units, so that it makes sense for CT only."""
    return name.partition(":")[0] in PARAMETRIC
