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

    Args:
        shape: Of the volume, any number of axes; at least `patch` along each.
        patch: Of the network, as many axes.
        step: Largest distance between neighbours, as a share of the patch.

    Raises:
        ValueError: See `axis_starts`; or the numbers of axes differ.
    """
    if len(shape) != len(patch):
        raise ValueError(f"tiles: expected as many axes in the patch as in the volume, got {tuple(patch)} for {tuple(shape)}")
    return list(itertools.product(*(axis_starts(size, edge, step) for size, edge in zip(shape, patch, strict=True))))


def gaussian_window(patch: Sequence[int], *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Weight of each voxel of a patch: a Gaussian with a standard deviation of an eighth of the patch, highest in the middle.

    The maximum is 10; what the number format rounds to zero becomes the smallest weight that is not zero, so that no voxel is lost.

    Args:
        patch: Voxels per axis, the shape of the result.
        device: Of the result.
        dtype: Of the result.
    """
    window = np.ones(())
    for edge in patch:
        impulse = np.zeros(edge)
        impulse[edge // 2] = 1.0
        window = window[..., None] * gaussian_filter1d(impulse, edge / 8, mode="constant")
    weights = torch.from_numpy(window * (MAX_WEIGHT / window.max())).to(dtype)
    weights[weights == 0] = weights[weights > 0].min()
    return weights.to(device)
