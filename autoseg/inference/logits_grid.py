"""Linear interpolation from the network's grid to the voxels of the file's cropped box, of whole boxes or of single voxels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..preprocessing.resampling import axis_coordinates, nearest_indices, separate_z_axis
from .logits import Logits

CHUNK = 2**21
"""Numbers (classes times voxels) that are decided at once."""

SLAB = 2**24
"""Numbers (classes times voxels) of a slab that is read or interpolated at once, unless one slice has more."""

LABEL_SLAB = 2**21
"""Voxels of a slab of the label map."""

Interval = tuple[int, int]
"""Half open, along one axis."""


@dataclass(frozen=True)
class _Axis:
    """Where output voxels lie on one axis of a grid: between `low` and `low` + 1, `weight` of the way; on `low` unless it `mixes`."""

    low: np.ndarray
    weight: np.ndarray
    mixes: bool

    @classmethod
    def of(cls, n_in: int, n_out: int, *, slices: bool) -> _Axis:
        """Coordinates for `n_out` voxels over `n_in`; with `slices` the nearest one is taken."""
        nearest, coordinates = nearest_indices(n_in, n_out), axis_coordinates(n_in, n_out)
        if slices or np.array_equal(coordinates, nearest):
            return cls(nearest, np.zeros(n_out, np.float32), False)
        low = np.minimum(np.floor(coordinates).astype(np.int64), n_in - 2)
        return cls(low, (coordinates - low).astype(np.float32), True)

    def needed(self, voxels: Interval) -> Interval:
        """Grid points between which the output voxels are interpolated."""
        return int(self.low[voxels[0]]), int(self.low[voxels[1] - 1]) + 1 + self.mixes


@dataclass(frozen=True)
class Grid:
    """Logits and where the voxels of the file's cropped box lie among them."""

    array: Any
    kind: str
    axes: tuple[_Axis, ...]

    @classmethod
    def of(cls, member: Logits) -> Grid:
        """The grid of one model's logits."""
        trace = member.trace
        # A 2D image is one slice, and stays one.
        slices = 0 if trace.geometry.dim == 2 else separate_z_axis(trace.spacing, [trace.geometry.spacing[a] for a in trace.transpose])
        sizes = [stop - start for start, stop in trace.crop]
        axes = [_Axis.of(n, size, slices=axis == slices) for axis, (n, size) in enumerate(zip(trace.shape, sizes, strict=True))]
        return cls(member.array, member.kind, tuple(axes))

    @property
    def rows(self) -> int:
        """Output slices along axis 0 whose logits, and whose labels, are worked on at once."""
        logits = SLAB / int(np.prod(self.array.shape)) * len(self.axes[0].low)
        voxels = LABEL_SLAB / (len(self.axes[1].low) * len(self.axes[2].low))
        return max(1, int(min(logits, voxels)))

    def read(self, box: Sequence[Interval]) -> np.ndarray:
        """Part of the logits, ``(K, z, y, x)``, without a copy where they are in memory."""
        z, y, x = (slice(*interval) for interval in box)
        part = self.array[:, z, y, x]
        return part.numpy() if isinstance(part, torch.Tensor) else np.asarray(part)

    def read_for(self, voxels: Interval) -> tuple[np.ndarray, tuple[int, int, int]]:
        """The whole slices ``(K, z, Y, X)`` that output slices need, and the grid indices of their first point."""
        needed = self.axes[0].needed(voxels)
        return self.read([needed, (0, self.array.shape[2]), (0, self.array.shape[3])]), (needed[0], 0, 0)

    def interpolated(self, box: Sequence[Interval]) -> torch.Tensor:
        """Logits of a box of output voxels, ``(K, z, y, x)`` float32."""
        needed = [axis.needed(interval) for axis, interval in zip(self.axes, box, strict=True)]
        values = torch.from_numpy(np.ascontiguousarray(self.read(needed))).float()
        for dim, (axis, interval, (base, _)) in enumerate(zip(self.axes, box, needed, strict=True), start=1):
            low = torch.from_numpy(axis.low[slice(*interval)] - base)
            lower = values.index_select(dim, low)
            if axis.mixes:
                weight = torch.from_numpy(axis.weight[slice(*interval)]).reshape([-1 if d == dim else 1 for d in range(4)])
                lower = _mixed(lower, values.index_select(dim, low + 1), weight)
            values = lower
        return values

    def at(self, box: np.ndarray, first: Sequence[int], points: Sequence[np.ndarray]) -> torch.Tensor:
        """Logits of single output voxels, ``(K, N)`` float32, bit by bit those of `interpolated`.

        Args:
            box: Logits ``(K, z, y, x)`` of a box that holds all the corners.
            first: Grid indices (z, y, x) of its first point.
            points: Output coordinates (z, y, x), ``(N,)`` each.
        """
        flat = box.reshape(len(box), -1)
        steps = (box.shape[2] * box.shape[3], box.shape[3], 1)
        index = sum((axis.low[p] - base) * step for axis, p, base, step in zip(self.axes, points, first, steps, strict=True))
        weights = [(step, torch.from_numpy(axis.weight[p])) for axis, p, step in zip(self.axes, points, steps, strict=True) if axis.mixes]
        return _corners(flat, np.asarray(index), weights)


def slab_rows(numbers_per_row: int) -> int:
    """Rows of so many numbers that are read or interpolated at once."""
    return max(1, SLAB // numbers_per_row)


def chunks(count: int, classes: int) -> Iterator[slice]:
    """Slices of `count` voxels, each of at most `CHUNK` numbers."""
    size = max(1, CHUNK // classes)
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _mixed(lower: torch.Tensor, upper: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    # Two products and a sum: each is rounded monotonically, so rounding cannot reverse the order of two classes between equal orders.
    return (lower * (1 - weight)).add_(upper * weight)


def _corners(flat: np.ndarray, index: np.ndarray, weights: Sequence[tuple[int, torch.Tensor]]) -> torch.Tensor:
    """Interpolates ``(K, n)`` between the lowest corners at flat indices ``(N,)`` and their neighbours: ``(K, N)`` float32.

    The weights are, per axis that mixes, innermost first: the step to the upper neighbour, and that neighbour's weight ``(N,)``.
    """
    if not weights:
        return torch.from_numpy(np.take(flat, index, axis=1)).float()
    step, weight = weights[-1]
    return _mixed(_corners(flat, index, weights[:-1]), _corners(flat, index + step, weights[:-1]), weight)
