"""Probabilities at single voxels of a file, without interpolating the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..schema import Labels, Trace
from .logits import Logits, probability
from .logits_grid import Grid, chunks


def probabilities_at(members: Sequence[Logits], points: np.ndarray, labels: Labels) -> np.ndarray:
    """Mean probabilities ``(N, K)`` float32 of several models of a case at voxels ``(3, N)`` or ``(2, N)`` in the file's axis order.

    They are interpolated as for export; outside what preprocessing kept background is certain. Only the parts of the logits that lie around
    the points are read, some slices at a time.
    """
    trace = members[0].trace
    inside, voxels = _in_crop(trace, points)
    shares = np.zeros((points.shape[1], labels.n_outputs), np.float32)
    if not labels.regions:
        shares[~inside, 0] = 1
    for member in members:
        shares[inside] += _of_member(Grid.of(member), voxels, regions=labels.regions).T / np.float32(len(members))
    return shares


def _in_crop(trace: Trace, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which points lie in the crop, ``(N,)`` bool, and the coordinates of these in it, ``(3, n)`` in the trace's axis order."""
    arranged = points[list(trace.transpose)]
    if len(arranged) == 2:
        arranged = np.concatenate([np.zeros_like(arranged[:1]), arranged])
    for axis in trace.flips:
        arranged[axis] = trace.shape_before_crop[axis] - 1 - arranged[axis]
    inside = np.logical_and.reduce([(at >= start) & (at < stop) for at, (start, stop) in zip(arranged, trace.crop, strict=True)])
    return inside, arranged[:, inside] - np.array([[start] for start, _ in trace.crop])


def _of_member(grid: Grid, voxels: np.ndarray, *, regions: bool) -> np.ndarray:
    """Probabilities ``(K, n)`` of one model at voxels of its cropped box, ``(3, n)``."""
    shares = np.empty((grid.array.shape[0], voxels.shape[1]), np.float32)
    slabs = voxels[0] // grid.rows
    for slab in np.unique(slabs):
        points = np.flatnonzero(slabs == slab)
        needed = [axis.needed((int(at.min()), int(at.max()) + 1)) for axis, at in zip(grid.axes, voxels[:, points], strict=True)]
        box, first = grid.read(needed), [start for start, _ in needed]
        for part in chunks(len(points), len(shares)):
            values = grid.at(box, first, tuple(voxels[:, points[part]]))
            shares[:, points[part]] = probability(values, grid.kind, regions=regions).numpy()
    return shares
