"""Topology of a U-Net for a patch: strides and kernel sizes of its stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MIN_EDGE = 4
"""No axis of a feature map is made shorter than this."""

SIMILAR = 2.0
"""Axes whose spacings differ by less than this factor are treated alike."""


@dataclass(frozen=True)
class Topology:
    """Strides and kernels, one tuple a stage, and the patch they need.

    Attributes:
        patch_size: Voxels per axis, padded to a multiple of `divisor`.
        strides: Of the first convolution of each stage; the first stage has 1s.
        kernel_sizes: Of the convolutions of each stage.
        divisor: What every axis of a patch must be a multiple of.
    """

    patch_size: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    divisor: tuple[int, ...]


def plan_topology(spacing: Sequence[float], patch_size: Sequence[float]) -> Topology:
    """Halves the finest axes again and again until all are similar and short (nnU-Net's rule, Isensee et al. 2021).

    In each step the axes that are long enough and not much coarser than the finest of these are halved. An axis is convolved with
    kernel 1 until its spacing is similar to the finest axis', then with kernel 3 for good; the last stage always has 3.

    Args:
        spacing: Of the patch, mm.
        patch_size: Wanted voxels per axis; the result is rounded up to what the strides need, and to a patch that can be halved once:
            images are padded to it, as a U-Net has two stages at least.
    """
    current_spacing = [float(value) for value in spacing]
    patch_size = _halvable(current_spacing, [float(value) for value in patch_size])
    current_size, dim = list(patch_size), len(current_spacing)
    kernel = [1] * dim
    strides: list[tuple[int, ...]] = [(1,) * dim]
    kernels: list[tuple[int, ...]] = []
    while axes := _axes_to_halve(current_spacing, current_size):
        finest = min(current_spacing)
        kernel = [3 if size == 3 or current_spacing[axis] / finest < SIMILAR else 1 for axis, size in enumerate(kernel)]
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in axes else 1 for axis in range(dim)))
        for axis in axes:
            current_spacing[axis] *= 2
            current_size[axis] = -(-current_size[axis] // 2)
    kernels.append((3,) * dim)
    divisor = tuple(2 ** sum(stride[axis] == 2 for stride in strides) for axis in range(dim))
    padded = tuple(int(-(-size // unit)) * unit for size, unit in zip(patch_size, divisor, strict=True))
    return Topology(padded, tuple(strides), tuple(kernels), divisor)


def _halvable(spacing: Sequence[float], size: list[float]) -> list[float]:
    """The size, its finest axes lengthened where none is long enough to be halved."""
    for least in (2 * MIN_EDGE, 3 * MIN_EDGE):
        if _axes_to_halve(spacing, size):
            break
        size = [max(n, least) if one / min(spacing) < SIMILAR else n for n, one in zip(size, spacing, strict=True)]
    return size


def _axes_to_halve(spacing: Sequence[float], size: Sequence[float]) -> list[int]:
    """Axes that the next stage halves; empty when the network is deep enough."""
    long_enough = [axis for axis in range(len(size)) if size[axis] >= 2 * MIN_EDGE]
    finest = min((spacing[axis] for axis in long_enough), default=0.0)
    axes = [axis for axis in long_enough if spacing[axis] / finest < SIMILAR]
    return [] if len(axes) == 1 and size[axes[0]] < 3 * MIN_EDGE else axes
