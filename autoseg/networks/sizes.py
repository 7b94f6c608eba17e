"""Padding to multiples of a network's strides, and cropping back, so that it takes images of any size."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def pad_to_multiple(x: Tensor, multiples: Sequence[int], *, remainder: int = 0) -> Tensor:
    """Appends zeros to the end of each spatial axis of ``(B, C, *spatial)``, up to the next of `multiples` plus `remainder`.

    `x` itself where nothing is missing; a ValueError where there is not one multiple for each spatial axis.
    """
    spatial = x.shape[2:]
    if len(spatial) != len(multiples):
        raise ValueError(f"network: expected (B, C, *spatial) with {len(multiples)} spatial axes, got {tuple(x.shape)}")
    missing = [(remainder - size) % multiple for size, multiple in zip(spatial, multiples, strict=True)]
    if not any(missing):
        return x
    return F.pad(x, [n for end in reversed(missing) for n in (0, end)])


def crop_to(x: Tensor, size: Sequence[int]) -> Tensor:
    """Crops to the first `size` voxels of each spatial axis: the inverse of `pad_to_multiple`. A smaller map is a ValueError."""
    spatial = tuple(x.shape[2:])
    if len(spatial) != len(size) or any(have < want for have, want in zip(spatial, size, strict=True)):
        raise ValueError(f"network: expected a map of at least {tuple(size)} voxels to crop, got {spatial}")
    if spatial == tuple(size):
        return x
    return x[(...,) + tuple(slice(0, want) for want in size)]
