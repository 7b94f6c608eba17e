"""Spatial transforms of patches: one gather per corner of the sampled cell, shared by image and labels, for a whole batch at once.

A `SpatialMap` takes a voxel of the patch, measured from the patch's centre, to where it is read in the larger source, measured from the
source's centre (so a scale above 1 makes organs smaller). Outside the source the image is 0 and the label `OUTSIDE`, exactly as if the
source had been padded with these values without end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...schema.conventions import OUTSIDE
from .deformation import ControlGrid, DisplacementField, stretched

Matrix = tuple[tuple[float, ...], ...]

TIE = 5e-4
"""Interpolated label scores closer than this count as equal, and the nearest voxel decides (half precision scores in the reference)."""

CPU_CHUNK = 1 << 16
"""Voxels sampled at once on a CPU, so that what is worked on stays in its cache."""


def rotation_matrix(angles: Sequence[float]) -> np.ndarray:
    """Rotation by one angle (radians) in the plane, or by three about axes 0, 1, 2 in turn (``R2 @ R1 @ R0``)."""
    if len(angles) == 1:
        return _plane_rotation(2, (0, 1), angles[0])
    about = [_plane_rotation(3, plane, angle) for plane, angle in zip(((1, 2), (2, 0), (0, 1)), angles, strict=True)]
    return about[2] @ about[1] @ about[0]


def _plane_rotation(dim: int, plane: tuple[int, int], angle: float) -> np.ndarray:
    matrix, (i, j) = np.eye(dim), plane
    matrix[i, i] = matrix[j, j] = math.cos(angle)
    matrix[i, j], matrix[j, i] = -math.sin(angle), math.sin(angle)
    return matrix


def shear_matrix(angles: Sequence[float]) -> np.ndarray:
    """Shear by one angle (radians) in the plane, or by three in the planes 1-2, 2-0, 0-1 in turn; volumes stay."""
    if len(angles) == 1:
        return _plane_shear(2, (0, 1), angles[0])
    within = [_plane_shear(3, plane, angle) for plane, angle in zip(((1, 2), (2, 0), (0, 1)), angles, strict=True)]
    return within[2] @ within[1] @ within[0]


def _plane_shear(dim: int, plane: tuple[int, int], angle: float) -> np.ndarray:
    matrix = np.eye(dim)
    matrix[plane] = math.tan(angle)
    return matrix


@dataclass(frozen=True)
class SpatialMap:
    """Where the voxels of a patch are read, measured from the centres: ``A (x + s(x) + u(x))``.

    Attributes:
        matrix: A.
        stretch: s, the displacements of a grid distortion's lines (`deformation.draw_stretch`); empty for none.
        elastic: u, or None.
    """

    matrix: Matrix
    stretch: tuple[tuple[float, ...], ...] = ()
    elastic: ControlGrid | None = None

    def source_size(self, patch_size: Sequence[int]) -> tuple[int, ...]:
        """Smallest source, centred like the patch, from which every voxel of the patch can be interpolated.

        Returns:
            Voxels an axis; smaller than the patch where the map magnifies. Same parity as the patch, so that the centres coincide.
        """
        half = (np.asarray(patch_size) - 1) / 2  # a stretch keeps the borders
        reach = 2 * np.abs(np.asarray(self.matrix)) @ half + 1
        if self.elastic is not None:  # a spline lies between its control points
            reach = reach + 2 * np.abs(self.mapped_control()).reshape(len(half), -1).max(axis=1)
        # The tiny allowance keeps rounding errors of a pure rotation from adding two voxels.
        return tuple(max(p % 2 or 2, p + 2 * math.ceil((r - p) / 2 - 1e-9)) for r, p in zip(reach, patch_size, strict=True))

    def mapped_control(self) -> np.ndarray:
        """``A u`` at the control points, ``(dim, *points)``: an affine map of a spline is the spline of the mapped points."""
        if self.elastic is None:
            raise ValueError("SpatialMap.mapped_control: expected a map with an elastic deformation, found one without")
        return np.tensordot(np.asarray(self.matrix), self.elastic.displacements(), axes=1)


def center_crop(array: Tensor, size: Sequence[int], fill: float, shift: Sequence[int] = ()) -> Tensor:
    """The central part ``(..., *size)`` of an array, padded with `fill` where that is smaller; a view where nothing had to be padded.

    Args:
        shift: Voxels from the array's centre to the part's, of each axis of `size`; empty means none.
    """
    padding: list[int] = []
    for back, (want, moved) in enumerate(zip(reversed(tuple(size)), reversed(tuple(shift) or (0,) * len(size)), strict=True), start=1):
        have = array.shape[-back]
        start = have // 2 - want // 2 + moved
        first, last = min(max(0, start), have), min(max(0, start + want), have)
        array = array.narrow(array.ndim - back, first, last - first)
        before = min(want, max(0, -start))
        padding += [before, want - (last - first) - before]
    return torch.nn.functional.pad(array, padding, value=fill) if any(padding) else array


def warp(images: Tensor, segmentations: Tensor, maps: Sequence[SpatialMap], patch_size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Reads a batch of patches, each through its own map of the last axes; axes between the first and those are independent of each other.

    Args:
        images: ``(N, ..., *source)`` float32, interpolated linearly, 0 outside.
        segmentations: ``(N, ..., *source)`` int16; each voxel gets the label with the largest interpolated share, `OUTSIDE` outside.
        maps: One a sample. Those with an elastic deformation have control grids of one spacing and shape.
        patch_size: Voxels of the mapped axes in both results.
    """
    count, dim = len(maps), len(patch_size)
    rows, label_rows = _padded_rows(images, dim, 0.0), _padded_rows(segmentations, dim, OUTSIDE)
    new_image = images.new_empty((len(rows), count, math.prod(patch_size)))
    new_labels = segmentations.new_empty((len(label_rows), count, math.prod(patch_size)))
    present = [(torch.bincount(row.long() - OUTSIDE).nonzero().squeeze(1) + OUTSIDE).tolist() for row in label_rows]
    in_plane = math.prod(patch_size[1:])
    places = _Places(maps, tuple(images.shape[-dim:]), tuple(patch_size), images.device)
    for samples, planes, cells in places.parts():
        place = (samples, slice(planes.start * in_plane, planes.stop * in_plane))
        shape = (samples.stop - samples.start, -1)
        for row, out in zip(rows, new_image, strict=True):
            out[place] = _interpolate([row.index_select(0, index) for index in cells.corners()], cells.fractions).reshape(shape)
        for row, out, labels in zip(label_rows, new_labels, present, strict=True):
            out[place] = _majority(row, cells, labels).reshape(shape)
    lead_image, lead_label = images.shape[1:-dim], segmentations.shape[1:-dim]
    return (
        new_image.transpose(0, 1).reshape(count, *lead_image, *patch_size),
        new_labels.transpose(0, 1).reshape(count, *lead_label, *patch_size),
    )


def _padded_rows(arrays: Tensor, dim: int, fill: float) -> Tensor:
    """``(N, ..., *source)`` with a ring of `fill` around each source, as ``(..., N * source)`` rows."""
    count, lead = len(arrays), math.prod(arrays.shape[1:-dim])
    padded = torch.nn.functional.pad(arrays, [1, 1] * dim, value=fill)
    return padded.reshape(count, lead, -1).transpose(0, 1).reshape(lead, -1)


@dataclass(frozen=True)
class _Cells:
    """The cells of the padded, flattened source that M points lie in.

    Attributes:
        corner: ``(M,)`` index of the lowest corner of the cell around each point.
        strides: Index difference between neighbours along each axis.
        fractions: Per axis ``(M,)``, position inside the cell, 0..1.
    """

    corner: Tensor
    strides: tuple[int, ...]
    fractions: tuple[Tensor, ...]

    def corners(self) -> list[Tensor]:
        """Indices of the ``2**dim`` corners; the last axis changes fastest."""
        indices = [self.corner]
        for stride in self.strides:
            indices = [index + shift if shift else index for index in indices for shift in (0, stride)]
        return indices


@dataclass(frozen=True)
class _Places:
    """Where the voxels of a batch of patches are read in their padded, flattened sources.

    Attributes:
        source: Voxels of each source along the mapped axes.
        patch_size: Voxels of each patch along them.
    """

    maps: Sequence[SpatialMap]
    source: tuple[int, ...]
    patch_size: tuple[int, ...]
    device: torch.device

    @property
    def at_once(self) -> tuple[int, int]:
        """Samples and planes of axis 0 that are read at once: a part of one sample on a CPU, on other devices all."""
        if self.device.type == "cpu":
            return 1, max(1, CPU_CHUNK // math.prod(self.patch_size[1:]))
        return len(self.maps), self.patch_size[0]

    def parts(self) -> Iterator[tuple[slice, slice, _Cells]]:
        """Samples, planes of axis 0, and the cells of their voxels."""
        (together, step), planes = self.at_once, self.patch_size[0]
        for first in range(0, len(self.maps), together):
            samples = slice(first, min(len(self.maps), first + together))
            field = self._displacements(self.maps[samples])
            for start in range(0, planes, step):
                part = slice(start, min(planes, start + step))
                yield samples, part, self._cells(samples, part, None if field is None else field.planes(part.start, part.stop))

    def _cells(self, samples: slice, planes: slice, moved: Tensor | None) -> _Cells:
        """The cells of some samples and planes; `moved` is `_displacements` there."""
        maps, dim = self.maps[samples], len(self.patch_size)
        matrices = torch.tensor([one.matrix for one in maps], dtype=torch.float32).to(self.device)
        axes = [self._axis(maps, axis) for axis in range(dim)]
        axes[0] = axes[0][:, planes]
        padded = [n + 2 for n in self.source]
        strides = tuple(math.prod(padded[axis + 1 :]) for axis in range(dim))
        corner = torch.zeros((), dtype=torch.int64, device=self.device)
        fractions = []
        for row, (n, stride) in enumerate(zip(self.source, strides, strict=True)):
            # +1 for the ring of padding; beyond it everything is padding too, so clamping to it changes nothing.
            position = torch.full((), (n - 1) / 2 + 1, device=self.device)
            for axis, grid in enumerate(axes):
                shape = [len(grid) if other == 0 else -1 if other == axis + 1 else 1 for other in range(dim + 1)]
                position = position + matrices[:, row, axis].reshape(-1, *[1] * dim) * grid.reshape(shape)
            position = position if moved is None else position + moved[:, row]
            position = position.clamp(0, n + 1).reshape(-1)
            low = position.floor().clamp_(max=n)
            fractions.append(position - low)
            corner = low.to(torch.int64).mul_(stride).add_(corner)
        sources = torch.arange(samples.start, samples.stop, device=self.device) * math.prod(padded)
        corner.view(len(maps), -1).add_(sources[:, None])
        return _Cells(corner, strides, tuple(fractions))

    def _axis(self, maps: Sequence[SpatialMap], axis: int) -> Tensor:
        """``(1, size)`` places of an axis's voxels, from the centre; ``(N, size)`` where grids are distorted."""
        size = self.patch_size[axis]
        places = torch.arange(size, device=self.device, dtype=torch.float32)[None] - (size - 1) / 2
        if not any(one.stretch for one in maps):
            return places
        moved = np.stack([stretched(one.stretch[axis], size) if one.stretch else np.zeros(size) for one in maps])
        return places + torch.from_numpy(moved.astype(np.float32)).to(self.device)

    def _displacements(self, maps: Sequence[SpatialMap]) -> DisplacementField | None:
        """``A u`` of each map, 0 for those without an elastic deformation; None where none has one."""
        grids = {(one.elastic.spacing, one.elastic.shape) for one in maps if one.elastic is not None}
        if not grids:
            return None
        if len(grids) > 1:
            raise ValueError(f"warp: expected control grids of one spacing and shape in a batch, found {len(grids)} different ones")
        spacing, shape = grids.pop()
        none = np.zeros((len(shape), *shape))
        control = np.stack([none if one.elastic is None else one.mapped_control() for one in maps])
        return DisplacementField(control, spacing, self.patch_size, self.device)


def _interpolate(values: list[Tensor], fractions: Sequence[Tensor]) -> Tensor:
    """Linear interpolation between the values at the corners of M cells, the last axis first."""
    for fraction in reversed(fractions):
        values = [torch.lerp(a, b, fraction) for a, b in zip(values[::2], values[1::2], strict=True)]
    return values[0]


def _majority(row: Tensor, cells: _Cells, present: Sequence[int]) -> Tensor:
    """Label with the largest interpolated share at M points: the argmax of the interpolated one-hot encoding of a flattened source.

    Inside an organ all corners of a cell agree and there is nothing to weigh; only the cells on borders are computed.
    """
    corners = [row.index_select(0, index) for index in cells.corners()]
    result = corners[0]
    differs = torch.zeros_like(result, dtype=torch.bool)
    for labels in corners[1:]:
        differs |= labels != result
    border = differs.nonzero().squeeze(1)
    if border.numel():
        corners = [labels.index_select(0, border) for labels in corners]
        fractions = [fraction.index_select(0, border) for fraction in cells.fractions]
        result[border] = _largest_share(corners, fractions, present)
    return result


def _largest_share(corners: Sequence[Tensor], fractions: Sequence[Tensor], present: Sequence[int]) -> Tensor:
    """Weighs the labels at the corners of M cells; a tie goes to the nearest corner's label."""
    nearest = list(corners)
    for fraction in reversed(fractions):
        upper = fraction > 0.5
        nearest = [torch.where(upper, b, a) for a, b in zip(nearest[::2], nearest[1::2], strict=True)]
    winner, best = nearest[0], torch.full_like(fractions[0], -1.0)
    # A cell has at most as many labels as corners: with more labels in the patch than that, trying its own corners is less work.
    few = [torch.full((), label, dtype=winner.dtype, device=winner.device) for label in present]
    for candidate in few if len(few) <= len(corners) else corners:
        share = _interpolate([(labels == candidate).float() for labels in corners], fractions)
        share = torch.add(share, candidate == nearest[0], alpha=TIE)
        winner = torch.where(share > best, candidate, winner)
        best = torch.maximum(best, share)
    return winner
