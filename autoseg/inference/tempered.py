"""Predictions seen otherwise, without a copy of them: with a temperature, as the mean of several, on another grid, at single points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from ..model import Geometry, Labels, Trace
from ..resampling import axis_coordinates, nearest_indices, separate_z_axis
from .export import Logits


@dataclass(frozen=True, eq=False)
class _Tempered:
    """An array of logits, or of probabilities times 255, whose slices come with a temperature. All channels are read together."""

    array: Any
    kind: str
    temperature: float
    regions: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    def __getitem__(self, index: Any) -> np.ndarray:
        part = _numbers(self.array[index])
        if self.kind == "logits":
            return part / np.float32(self.temperature)
        share = np.power(part / 255, np.float32(1 / self.temperature))
        rest = np.power(1 - part / 255, np.float32(1 / self.temperature)) if self.regions else None
        total = share.sum(axis=0) if rest is None else share + rest
        return 255 * share / np.maximum(total, np.finfo(np.float32).tiny)


@dataclass(frozen=True, eq=False)
class _Mean:
    """The mean of several arrays of one shape, computed where it is read."""

    arrays: tuple[Any, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.arrays[0].shape)

    def __getitem__(self, index: Any) -> np.ndarray:
        total = _numbers(self.arrays[0][index]).copy()
        for array in self.arrays[1:]:
            total += _numbers(array[index])
        return total / np.float32(len(self.arrays))


def tempered(logits: Logits, temperature: float, labels: Labels) -> Logits:
    """A prediction whose logits are divided by a temperature; probabilities become ``p^(1/T)``, normalised.

    Args:
        logits: Of one model; they are not changed.
        temperature: Above 0; 1 gives the prediction itself.
        labels: Of the model: say whether each channel is a probability of its own.
    """
    if temperature == 1:
        return logits
    return replace(logits, array=_Tempered(logits.array, logits.kind, temperature, labels.regions))


def mean_of(predictions: Sequence[Logits]) -> Logits:
    """The mean of what several networks say on one grid, as if one had said it.

    Raises:
        ValueError: They are not of one kind, or not on one grid.
    """
    first = predictions[0]
    for one in predictions[1:]:
        if one.kind != first.kind or tuple(one.array.shape) != tuple(first.array.shape):
            raise ValueError(
                f"{first.trace.case}: mean of predictions: expected {first.kind} of shape {tuple(first.array.shape)} from every network, "
                f"found {one.kind} of shape {tuple(one.array.shape)}"
            )
    return first if len(predictions) == 1 else replace(first, array=_Mean(tuple(one.array for one in predictions)))


def on_first_grid(members: Sequence[Logits]) -> list[Logits]:
    """Predictions of one case with traces that lead to the grid of the first of them instead of the file's.

    What is exported then has the shape of the first one's logits (a 2D image's without the axis of its one slice), at their resolution.
    """
    trace = members[0].trace
    dim = trace.geometry.dim
    place = ((0.0,) * dim, tuple(np.eye(dim).ravel().tolist()))
    grid = {
        "geometry": Geometry(tuple(trace.shape[-dim:]), tuple(trace.spacing[-dim:]), *place),
        "transpose": tuple(range(dim)),
        "flips": (),
        "shape_before_crop": tuple(trace.shape),
        "crop": tuple((0, size) for size in trace.shape),
    }
    return [replace(member, trace=replace(member.trace, **grid)) for member in members]


def shares_at(kept: Logits, points: np.ndarray, labels: Labels) -> np.ndarray:
    """Probabilities of a kept prediction at single voxels of the file, interpolated as for export.

    Args:
        kept: Of the kind ``probability8``.
        points: ``(3, N)`` or ``(2, N)`` voxels in the file's axis order.
        labels: Of the model.

    Returns:
        ``(N, K)`` float32, 0..1; outside what preprocessing kept background is certain. One channel is in memory at a time.
    """
    trace = kept.trace
    arranged = points[list(trace.transpose)]
    if len(arranged) == 2:
        arranged = np.concatenate([np.zeros_like(arranged[:1]), arranged])
    for axis in trace.flips:
        arranged[axis] = trace.shape_before_crop[axis] - 1 - arranged[axis]
    inside = np.logical_and.reduce([(at >= start) & (at < stop) for at, (start, stop) in zip(arranged, trace.crop, strict=True)])
    where = np.stack([_coordinates(trace, axis, arranged[axis][inside]) for axis in range(3)])
    shares = np.zeros((points.shape[1], kept.array.shape[0]), np.float32)
    if not labels.regions:
        shares[:, 0] = 1
    for channel in range(shares.shape[1]):
        volume = np.asarray(kept.array[channel : channel + 1])[0]
        shares[inside, channel] = ndimage.map_coordinates(volume, where, output=np.float32, order=1, mode="nearest") / 255
    return shares


def _coordinates(trace: Trace, axis: int, voxels: np.ndarray) -> np.ndarray:
    """Where voxels along one axis lie on the grid of the logits."""
    start, stop = trace.crop[axis]
    spacing = [trace.geometry.spacing[a] for a in trace.transpose]
    slices = 0 if trace.geometry.dim == 2 else separate_z_axis(trace.spacing, spacing)
    place = nearest_indices if axis == slices else axis_coordinates
    return place(trace.shape[axis], stop - start)[voxels - start].astype(np.float64)


def _numbers(part: Any) -> np.ndarray:
    array = part.numpy() if isinstance(part, torch.Tensor) else np.asarray(part)
    return array.astype(np.float32)
