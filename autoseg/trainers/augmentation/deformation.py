"""Smooth deformations of patches: numbers are drawn first, then evaluated for a whole batch by one small matrix product an axis.

- Elastic: control points on a coarse grid are displaced at random, uniform cubic B-splines interpolate between them (Rueckert et al., IEEE
  Transactions on Medical Imaging 18, 1999; as augmentation Cicek et al., MICCAI 2016).
- Grid distortion: the steps of a coarse grid become wider and narrower, along each axis by itself.

Displacements are in voxels of the patch, measured where its voxel is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...schema.training_options import AugmentationOptions

ORDER = 3
"""Of the splines: so many control points more than intervals between them decide on a patch."""

INJECTIVE = 0.4
"""Largest displacement as a share of the distance of control points, for which nothing folds (Choi & Lee, Graphical Models 62, 2000)."""


@dataclass(frozen=True)
class ControlGrid:
    """Displacements of control points of a uniform cubic B-spline, numbers only. The grid is centred on the patch and covers it.

    Attributes:
        spacing: Voxels between neighbouring points, an axis.
        shape: Points an axis.
        values: ``(dim, *shape)`` displacements in voxels, flattened.
    """

    spacing: tuple[float, ...]
    shape: tuple[int, ...]
    values: tuple[float, ...]

    def displacements(self) -> np.ndarray:
        """``(dim, *shape)`` float64."""
        return np.array(self.values).reshape(len(self.shape), *self.shape)


def draw_elastic(rng: np.random.Generator, options: AugmentationOptions, patch_size: Sequence[int]) -> ControlGrid:
    """Draws displacements of the control points; none so large that the deformation could fold over.

    Args:
        patch_size: Voxels of the deformed axes.
    """
    if options.elastic_points:
        intervals = [max(1, options.elastic_points - ORDER)] * len(patch_size)
        spacing = tuple(size / count for size, count in zip(patch_size, intervals, strict=True))
    else:
        spacing = (options.elastic_spacing,) * len(patch_size)
        intervals = [max(1, math.ceil(size / options.elastic_spacing)) for size in patch_size]
    shape = tuple(count + ORDER for count in intervals)
    size = (len(shape), *shape)
    drawn = rng.uniform(-1, 1, size) if options.elastic_distribution == "uniform" else rng.standard_normal(size)
    most = INJECTIVE * np.reshape(spacing, (-1, *[1] * len(shape)))
    values = np.clip(drawn * options.elastic_voxels, -most, most)
    return ControlGrid(spacing, shape, tuple(values.ravel().tolist()))


def draw_stretch(rng: np.random.Generator, options: AugmentationOptions, patch_size: Sequence[int]) -> tuple[tuple[float, ...], ...]:
    """Draws a grid distortion that keeps the patch's borders.

    Returns:
        For each axis the displacements, voxels, of the lines between its steps, from the first voxel to the last.
    """
    lines = []
    for size in patch_size:
        widths = 1 + rng.uniform(-options.distortion_limit, options.distortion_limit, options.distortion_steps)
        places = np.concatenate([[0.0], np.cumsum(widths) / widths.sum()])
        lines.append(tuple(((size - 1) * (places - np.linspace(0, 1, len(places)))).tolist()))
    return tuple(lines)


def stretched(lines: Sequence[float], size: int) -> np.ndarray:
    """Displacement of each of the `size` voxels of an axis, linear between the lines of a grid distortion."""
    return np.interp(np.arange(size), np.linspace(0, size - 1, len(lines)), lines)


def spline_weights(size: int, spacing: float, points: int) -> np.ndarray:
    """Weights ``(size, points)`` of the control points at each voxel of an axis: uniform cubic B-splines, which sum to 1."""
    place = (np.arange(size) - (size - 1) / 2) / spacing + (points - ORDER) / 2
    interval = np.clip(np.floor(place), 0, points - ORDER - 1).astype(int)
    t = place - interval
    pieces = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
    weights = np.zeros((size, points))
    for offset, piece in enumerate(pieces):
        weights[np.arange(size), interval + offset] = piece
    return weights


class DisplacementField:
    """Displacements of a batch of patches, evaluated plane by plane.

    Args:
        control: ``(N, dim, *points)`` displacements of the control points, in what the result is to have.
        spacing: Voxels between these, an axis.
        patch_size: Voxels of the patch.
    """

    def __init__(self, control: np.ndarray, spacing: Sequence[float], patch_size: Sequence[int], device: torch.device) -> None:
        shape = control.shape[2:]
        first, *others = (
            torch.from_numpy(spline_weights(size, step, points).astype(np.float32)).to(device)
            for size, step, points in zip(patch_size, spacing, shape, strict=True)
        )
        self._first, self._patch_size = first, tuple(patch_size)
        # All axes but the first are evaluated once: (N, dim, points of axis 0, *other voxels).
        rows = torch.from_numpy(control.astype(np.float32)).to(device)
        for axis, weights in enumerate(others, start=3):
            rows = torch.movedim(torch.movedim(rows, axis, -1) @ weights.T, -1, axis)
        self._rows = rows.flatten(3)

    def planes(self, start: int, stop: int) -> Tensor:
        """``(N, dim, stop - start, *other axes)`` float32, of these planes of axis 0."""
        field = self._first[start:stop] @ self._rows
        return field.reshape(*field.shape[:3], *self._patch_size[1:])
