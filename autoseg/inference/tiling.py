"""Places of the tiles that cover a volume larger than the patch, and the weight of each voxel of a tile."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d

MAX_WEIGHT = 10.0
"""Largest weight of the window."""


def axis_starts(size: int, patch: int, step: float = 0.5) -> tuple[int, ...]:
    """First voxels of the patches along one axis: as few as the step allows, evenly spread from end to end.

    Args:
        size: Voxels along the axis; at least `patch`.
        patch: Voxels of the patch.
        step: Largest distance between two neighbours, as a share of the patch, in (0, 1].

    Raises:
        ValueError: The step is outside (0, 1], or the axis is shorter than the patch.
    """
    if not 0 < step <= 1:
        raise ValueError(f"step: expected a share of the patch in (0, 1], got {step}")
    if patch < 1 or size < patch:
        raise ValueError(f"tiles: expected a volume of at least the patch, got size {size} and patch {patch}")
    count = math.ceil((size - patch) / (patch * step)) + 1
    distance = (size - patch) / (count - 1) if count > 1 else 0.0
    return tuple(round(distance * index) for index in range(count))


def tile_starts(shape: Sequence[int], patch: Sequence[int], step: float = 0.5) -> list[tuple[int, ...]]:
    """First corners of the patches that cover a volume, sorted, the first axis slowest.

    Raises:
        ValueError: See `axis_starts`; or the numbers of axes differ.
    """
    if len(shape) != len(patch):
        raise ValueError(f"tiles: expected as many axes in the patch as in the volume, got {tuple(patch)} for {tuple(shape)}")
    return list(itertools.product(*(axis_starts(size, edge, step) for size, edge in zip(shape, patch, strict=True))))


def gaussian_window(patch: Sequence[int], *, device: torch.device | str = "cpu") -> torch.Tensor:
    """Weight of each voxel of a patch, float32: a Gaussian of an eighth of the patch with the maximum 10 in the middle, nowhere zero."""
    window = np.ones(())
    for edge in patch:
        impulse = np.zeros(edge)
        impulse[edge // 2] = 1.0
        window = window[..., None] * gaussian_filter1d(impulse, edge / 8, mode="constant")
    return torch.from_numpy(window * (MAX_WEIGHT / window.max())).to(device, torch.float32)
