"""Cubic upsampling in two and three dimensions; torch has it for two only."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

KEYS = -0.5
"""Slope of the kernel at distance 1 that reproduces parabolas (Keys, IEEE ASSP 29, 1981); torch's bicubic has -0.75."""


def upsample_cubic(x: Tensor, factor: int, *, slope: float = KEYS) -> Tensor:
    """Cubic convolution along each spatial axis in turn, ``(B, C, *spatial)`` to ``(B, C, *factor * spatial)``; borders are repeated.

    Voxels are cells: the new ones divide the old ones (``align_corners=False``). `slope` is the kernel's at distance 1.

    Raises:
        ValueError: `factor` is below 1.
    """
    if factor < 1:
        raise ValueError(f"cubic upsampling: expected a factor of 1 or more, got {factor}")
    for axis in range(2, x.dim()):
        x = _upsample_axis(x, axis, factor, slope)
    return x


def _upsample_axis(x: Tensor, axis: int, factor: int, slope: float) -> Tensor:
    size = x.shape[axis]
    first, last = x.narrow(axis, 0, 1), x.narrow(axis, size - 1, 1)
    padded = torch.cat((first, first, x, last, last), dim=axis)
    phases = []
    for phase in range(factor):
        offset = (phase + 0.5) / factor - 0.5
        start = math.floor(offset) - 1
        taps = [_keys(offset - (start + tap), slope) * padded.narrow(axis, start + tap + 2, size) for tap in range(4)]
        phases.append(functools.reduce(torch.add, taps))
    return torch.stack(phases, dim=axis + 1).flatten(axis, axis + 1)


def _keys(distance: float, slope: float) -> float:
    d = abs(distance)
    if d <= 1:
        return (slope + 2) * d**3 - (slope + 3) * d**2 + 1
    if d < 2:
        return slope * (d**3 - 5 * d**2 + 8 * d - 4)
    return 0.0
