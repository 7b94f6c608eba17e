"""Spatial transforms of patches: rotation, scaling and cropping by one gather per corner of the sampled cell, shared by image and labels.

An affine map ``A`` takes a voxel of the patch, measured from the patch's centre, to where it is read in the larger source, measured from
the source's centre (so a scale above 1 makes organs smaller). Outside the source the image is 0 and the label `OUTSIDE`, exactly as if
the source had been padded with these values without end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...schema.conventions import OUTSIDE

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


def source_size(matrix: Matrix, patch_size: Sequence[int]) -> tuple[int, ...]:
    """Smallest source, centred like the patch, from which every voxel of the patch can be interpolated.

    Returns:
        Voxels an axis; smaller than the patch where the map magnifies. Same parity as the patch, so that the centres coincide.
    """
    half = (np.asarray(patch_size) - 1) / 2
    reach = 2 * np.abs(np.asarray(matrix)) @ half + 1
    # The tiny allowance keeps rounding errors of a pure rotation from adding two voxels.
    return tuple(max(p % 2 or 2, p + 2 * math.ceil((r - p) / 2 - 1e-9)) for r, p in zip(reach, patch_size, strict=True))


def center_crop(array: Tensor, size: Sequence[int], fill: float) -> Tensor:
    """The central part ``(..., *size)`` of an array, padded with `fill` where that is smaller; a view where nothing had to be padded."""
    padding: list[int] = []
    for back, want in enumerate(reversed(tuple(size)), start=1):
        have = array.shape[-back]
        start = have // 2 - want // 2
        before, after = max(0, -start), max(0, start + want - have)
        array = array.narrow(array.ndim - back, max(0, start), want - before - after)
        padding += [before, after]
    return torch.nn.functional.pad(array, padding, value=fill) if any(padding) else array


def warp(image: Tensor, segmentation: Tensor, matrix: Matrix, patch_size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Reads a patch through an affine map of the last ``len(matrix)`` axes; the axes before them are independent of each other.

    Args:
        image: ``(..., *source)`` float32, interpolated linearly, 0 outside.
        segmentation: ``(..., *source)`` int16; each voxel gets the label with the largest interpolated share, `OUTSIDE` outside.
        patch_size: Voxels of the mapped axes in both results.
    """
    dim = len(matrix)
    lead_image, lead_label, source = image.shape[:-dim], segmentation.shape[:-dim], image.shape[-dim:]
    ring = [1, 1] * dim
    rows = torch.nn.functional.pad(image, ring, value=0.0).reshape(math.prod(lead_image), -1)
    label_rows = torch.nn.functional.pad(segmentation, ring, value=OUTSIDE).reshape(math.prod(lead_label), -1)
    new_image = image.new_empty((rows.shape[0], math.prod(patch_size)))
    new_labels = segmentation.new_empty((label_rows.shape[0], math.prod(patch_size)))
    present = [(torch.bincount(row.long() - OUTSIDE).nonzero().squeeze(1) + OUTSIDE).tolist() for row in label_rows]
    in_plane = math.prod(patch_size[1:])
    step = max(1, CPU_CHUNK // in_plane) if image.device.type == "cpu" else patch_size[0]
    for start in range(0, patch_size[0], step):
        stop = min(patch_size[0], start + step)
        cells = _cells(matrix, source, patch_size, (start, stop), image.device)
        part = slice(start * in_plane, stop * in_plane)
        for row, out in zip(rows, new_image, strict=True):
            out[part] = _interpolate([row.index_select(0, index) for index in cells.corners()], cells.fractions)
        for row, out, labels in zip(label_rows, new_labels, present, strict=True):
            out[part] = _majority(row, cells, labels)
    return new_image.reshape(*lead_image, *patch_size), new_labels.reshape(*lead_label, *patch_size)


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


def _cells(matrix: Matrix, source: Sequence[int], patch_size: Sequence[int], planes: tuple[int, int], device: torch.device) -> _Cells:
    """The cells that the voxels of the patch's `planes` (start, stop of axis 0) fall into."""
    dim = len(matrix)
    axes = [torch.arange(n, device=device, dtype=torch.float32) - (n - 1) / 2 for n in patch_size]
    axes[0] = axes[0][planes[0] : planes[1]]
    padded = [n + 2 for n in source]
    strides = tuple(math.prod(padded[axis + 1 :]) for axis in range(dim))
    corner = torch.zeros((), dtype=torch.int64, device=device)
    fractions = []
    for row, n, stride in zip(matrix, source, strides, strict=True):
        # +1 for the ring of padding; beyond it everything is padding too, so clamping to it changes nothing.
        position = torch.full((), (n - 1) / 2 + 1, device=device)
        for axis, (factor, grid) in enumerate(zip(row, axes, strict=True)):
            position = position + (factor * grid).reshape([-1 if other == axis else 1 for other in range(dim)])
        position = position.clamp(0, n + 1).reshape(-1)
        low = position.floor().clamp_(max=n)
        fractions.append(position - low)
        corner = low.to(torch.int64).mul_(stride).add_(corner)
    return _Cells(corner, strides, tuple(fractions))


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
