"""From logits on the network's grid to a label map on the file's, without ever holding all classes at the file's resolution.

Resampling is linear between grid points. In a cell whose corners all have the same winner, and the same in every member, linear
interpolation cannot change the winner: a weighted mean of numbers that are largest for one class is largest for that class. So the
label of most voxels is known from the grid alone, and only the others, those near borders, are interpolated. The result is exactly
that of interpolating everything. For regions the same holds of "the last region above one half".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..preprocessing.orientation import restore
from ..preprocessing.resampling import axis_coordinates, nearest_indices, separate_z_axis
from ..schema import Labels, Trace
from .merge_labels import internal_regions_class_order

KINDS = ("logits", "probability8")

CHUNK = 2**21
"""Numbers (classes times voxels) that are decided at once."""

SLAB = 2**24
"""Numbers (classes times voxels) of a slab that is read or interpolated at once, unless one slice has more."""

LABEL_SLAB = 2**21
"""Voxels of a slab of the label map."""

UNSURE = -1
"""Mark of the cells whose corners disagree."""

Span = tuple[int, int]


@dataclass(frozen=True)
class Logits:
    """What a model says about a case, on the grid of its configuration.

    Attributes:
        array: ``(K, Z, Y, X)`` in `trace`'s axis order: a tensor, an array, or anything that gives arrays when sliced (blosc2).
        trace: What preprocessing did to the case.
        kind: ``logits``, or ``probability8`` for probabilities times 255.

    Raises:
        ValueError: The kind is unknown, or the array has not the trace's shape.
    """

    array: Any
    trace: Trace
    kind: str = "logits"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.trace.case}: kind of logits: expected one of {', '.join(KINDS)}, got {self.kind!r}")
        if tuple(self.array.shape[1:]) != tuple(self.trace.shape):
            raise ValueError(f"{self.trace.case}: expected logits on the grid {tuple(self.trace.shape)}, got {tuple(self.array.shape)}")


def export_labels(members: Sequence[Logits], labels: Labels) -> np.ndarray:
    """The label map of a case: probabilities averaged over `members`, the likeliest organ (regions: each above one half, painted in order).

    Each member is interpolated linearly to the file's grid (the nearest slice along `separate_z_axis`), then softmax or sigmoid,
    then the mean. Members may have different grids.

    Args:
        members: Of one case.
        labels: Its organs.

    Returns:
        Internal label map, int16, with the file's axis order and shape.

    Raises:
        ValueError: No members, or members that do not belong together or to `labels`.
    """
    check_members(members, labels)
    trace = members[0].trace
    values = np.array([0, *internal_regions_class_order(labels)], np.int16)
    grids = [Grid.of(member) for member in members]
    surveys = [survey_of(grid, regions=labels.regions) for grid in grids]
    segmentation = np.zeros(trace.shape_before_crop, np.int16)
    crop = tuple(slice(start, stop) for start, stop in trace.crop)
    rows = min(grid.rows for grid in grids)
    for start in range(0, segmentation[crop].shape[0], rows):
        span = (start, min(start + rows, segmentation[crop].shape[0]))
        segmentation[crop][slice(*span)] = values[_slab(grids, surveys, span, regions=labels.regions)]
    return as_file(segmentation, trace)


def probabilities(members: Sequence[Logits], labels: Labels) -> Iterator[tuple[int, np.ndarray]]:
    """Mean probabilities on the file's grid, slab by slab.

    Args:
        members: As in `export_labels`.
        labels: As in `export_labels`.

    Yields:
        First slice of the slab along the file's Z, and the probabilities ``(K, slab, Y, X)`` float32 in the file's axis order; a 2D image
        gives one slab of one slice. Outside the box that preprocessing kept, background has 1 and everything else 0.

    Raises:
        ValueError: As in `export_labels`.
    """
    check_members(members, labels)
    trace = members[0].trace
    grids = [Grid.of(member) for member in members]
    axis = 0 if trace.geometry.dim == 2 else trace.transpose.index(0)
    shape = trace.shape_before_crop
    rows = max(1, SLAB // (labels.n_outputs * (int(np.prod(shape)) // shape[axis])))
    for start in range(0, shape[axis], rows):
        stop = min(start + rows, shape[axis])
        low, high = (shape[axis] - stop, shape[axis] - start) if axis in trace.flips else (start, stop)
        box = list(trace.crop)
        box[axis] = (max(low, trace.crop[axis][0]), min(high, trace.crop[axis][1]))
        slab = np.zeros((labels.n_outputs, *(stop - start if a == axis else n for a, n in enumerate(shape))), np.float32)
        if not labels.regions:
            slab[0] = 1
        if box[axis][0] < box[axis][1]:
            spans = [(begin - first, end - first) for (begin, end), (first, _) in zip(box, trace.crop, strict=True)]
            box[axis] = (box[axis][0] - low, box[axis][1] - low)
            mean = sum(probability(grid.interpolated(spans), grid.kind, regions=labels.regions) for grid in grids) / len(grids)
            slab[(slice(None), *(slice(*span) for span in box))] = mean.numpy()
        yield start, restore(slab, trace.transpose, trace.flips)


@dataclass(frozen=True)
class _Axis:
    """Where output voxels lie on one axis of a grid: between `low` and `low` + 1, `weight` of the way; on `low` unless it `mixes`."""

    low: np.ndarray
    nearest: np.ndarray
    weight: np.ndarray
    mixes: bool

    @classmethod
    def of(cls, n_in: int, n_out: int, *, slices: bool) -> _Axis:
        """Coordinates for `n_out` voxels over `n_in`; with `slices` the nearest one is taken."""
        nearest = nearest_indices(n_in, n_out)
        where = axis_coordinates(n_in, n_out)
        if slices or np.array_equal(where, nearest):
            return cls(nearest, nearest, np.zeros(n_out, np.float32), False)
        low = np.minimum(np.floor(where).astype(np.int64), n_in - 2)
        return cls(low, nearest, (where - low).astype(np.float32), True)

    def needed(self, span: Span) -> Span:
        """Grid points that the output voxels of `span` need."""
        return int(self.low[span[0]]), int(self.low[span[1] - 1]) + 1 + self.mixes


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

    def read(self, spans: Sequence[Span]) -> np.ndarray:
        """Part of the logits, ``(K, z, y, x)``, without a copy where they are in memory."""
        part = self.array[(slice(None), *(slice(*span) for span in spans))]
        return part.numpy() if isinstance(part, torch.Tensor) else np.asarray(part)

    def interpolated(self, spans: Sequence[Span]) -> torch.Tensor:
        """Logits of a box of output voxels, ``(K, z, y, x)`` float32."""
        needed = [axis.needed(span) for axis, span in zip(self.axes, spans, strict=True)]
        values = torch.from_numpy(np.ascontiguousarray(self.read(needed))).float()
        for dim, (axis, span, (base, _)) in enumerate(zip(self.axes, spans, needed, strict=True), start=1):
            low = torch.from_numpy(axis.low[slice(*span)] - base)
            lower = values.index_select(dim, low)
            if axis.mixes:
                weight = torch.from_numpy(axis.weight[slice(*span)]).reshape([-1 if d == dim else 1 for d in range(4)])
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
        return _corners(flat, index, weights)


def survey_of(grid: Grid, *, regions: bool) -> np.ndarray:
    """What the grid alone tells: the winner of each cell, `UNSURE` where its corners disagree, int16. Looks at every grid point once.

    An array that is computed where it is read may have an attribute `same_winners`: a cheaper one with the same winners, read instead.
    """
    grid = replace(grid, array=getattr(grid.array, "same_winners", grid.array))
    shape = tuple(grid.array.shape[1:])
    winner = np.empty(shape, np.int16)
    count = grid.array.shape[0]
    rows = max(1, SLAB // (count * shape[1] * shape[2]))
    for start in range(0, shape[0], rows):
        span = (start, min(start + rows, shape[0]))
        slab = grid.read([span, (0, shape[1]), (0, shape[2])]).reshape(count, -1)
        best = winner[slice(*span)].reshape(-1)
        for part in chunks(slab.shape[1], count):
            values = torch.from_numpy(np.ascontiguousarray(slab[:, part])).float()
            best[part] = decide([values], [grid.kind], regions=regions)
    cells = winner
    for dim, axis in enumerate(grid.axes):
        if axis.mixes:
            left, right = (np.moveaxis(cells, dim, 0)[part] for part in (slice(None, -1), slice(1, None)))
            cells = np.moveaxis(np.where(left == right, left, np.int16(UNSURE)), 0, dim)
    return np.ascontiguousarray(cells)


def _slab(grids: Sequence[Grid], surveys: Sequence[np.ndarray], span: Span, *, regions: bool) -> np.ndarray:
    """Winner at the output slices in `span`."""
    winner = taken(surveys[0], [axis.low for axis in grids[0].axes], span)
    for grid, survey in zip(grids[1:], surveys[1:], strict=True):
        winner[winner != taken(survey, [axis.low for axis in grid.axes], span)] = UNSURE
    flat = winner.reshape(-1)
    unsure = np.flatnonzero(flat == UNSURE)
    if len(unsure) == 0:
        return winner
    kinds = [grid.kind for grid in grids]
    needed = [grid.axes[0].needed(span) for grid in grids]
    slabs = [grid.read([rows, (0, grid.array.shape[2]), (0, grid.array.shape[3])]) for grid, rows in zip(grids, needed, strict=True)]
    for part in chunks(len(unsure), slabs[0].shape[0]):
        z, y, x = np.unravel_index(unsure[part], winner.shape)
        points = (z + span[0], y, x)
        values = [grid.at(slab, (rows[0], 0, 0), points) for grid, slab, rows in zip(grids, slabs, needed, strict=True)]
        flat[unsure[part]] = decide(values, kinds, regions=regions)
    return winner


def decide(values: Sequence[torch.Tensor], kinds: Sequence[str], *, regions: bool) -> np.ndarray:
    """Winner among the output channels (regions: 1 + the last above one half, 0 if none).

    Args:
        values: Per member ``(K, N)`` float32.
        kinds: Per member.
        regions: Independent channels.

    Returns:
        ``(N,)`` int16.
    """
    if regions:
        # tanh(x/2) is 2p - 1 but keeps its sign next to zero, where p itself would be rounded to one half.
        signed = sum(_signed(value, kind) for value, kind in zip(values, kinds, strict=True)) / len(values)
        numbers = torch.arange(1, len(signed) + 1, dtype=torch.int16)[:, None]
        winner = ((signed > 0) * numbers).amax(0)
    elif len(values) == 1:
        winner = values[0].max(0).indices
    else:
        winner = sum(probability(value, kind, regions=False) for value, kind in zip(values, kinds, strict=True)).max(0).indices
    return winner.numpy().astype(np.int16)


def probability(values: torch.Tensor, kind: str, *, regions: bool) -> torch.Tensor:
    """What a model says, ``(K, N)``, as probabilities: softmax over the channels (regions: sigmoid) of logits, 0..255 scaled to 0..1."""
    if kind == "probability8":
        return values / 255
    return torch.sigmoid(values) if regions else torch.softmax(values, 0)


def _signed(values: torch.Tensor, kind: str) -> torch.Tensor:
    return (values - 127.5) / 127.5 if kind == "probability8" else torch.tanh(values / 2)


def _mixed(lower: torch.Tensor, upper: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    # Two products and a sum: each is rounded monotonically, so rounding cannot reverse the order of two classes between equal orders.
    return (lower * (1 - weight)).add_(upper * weight)


def _corners(flat: np.ndarray, index: np.ndarray, weights: Sequence[tuple[int, torch.Tensor]]) -> torch.Tensor:
    """Interpolates ``(K, n)`` at flat indices.

    Args:
        flat: Logits of whole slices.
        index: Lowest corner of each voxel, ``(N,)``.
        weights: Per axis that mixes, innermost first: the step to the upper neighbour, and that neighbour's weight ``(N,)``.

    Returns:
        ``(K, N)`` float32.
    """
    if not weights:
        return torch.from_numpy(np.take(flat, index, axis=1)).float()
    step, weight = weights[-1]
    return _mixed(_corners(flat, index, weights[:-1]), _corners(flat, index + step, weights[:-1]), weight)


def taken(volume: np.ndarray, indices: Sequence[np.ndarray], span: Span) -> np.ndarray:
    """``volume[z, y, x]`` for the output slices in `span`."""
    return volume[indices[0][slice(*span)]].take(indices[1], axis=1).take(indices[2], axis=2)


def chunks(count: int, classes: int) -> Iterator[slice]:
    """Slices of `count` voxels, each of at most `CHUNK` numbers."""
    size = max(1, CHUNK // classes)
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def as_file(volume: np.ndarray, trace: Trace) -> np.ndarray:
    """A volume in the trace's axis order before cropping as the file has it; a 2D image without its one slice."""
    restored = np.ascontiguousarray(restore(volume[None], trace.transpose, trace.flips)[0])
    return restored[0] if trace.geometry.dim == 2 else restored


def check_members(members: Sequence[Logits], labels: Labels) -> None:
    """Refuses members that do not belong together or to `labels`: raises ValueError."""
    if not members:
        raise ValueError("export: expected the logits of at least one model, got none")
    first = members[0].trace
    for member in members:
        case = member.trace.case
        if member.array.shape[0] != labels.n_outputs:
            organs = ", ".join(labels.names)
            raise ValueError(f"{case}: expected {labels.n_outputs} output channels for {organs}, got {member.array.shape[0]}")
        for what in ("case", "geometry", "transpose", "flips", "shape_before_crop", "crop"):
            expected, found = getattr(first, what), getattr(member.trace, what)
            if expected != found:
                raise ValueError(f"{case}: models to average disagree about the {what}: expected {expected}, found {found}")
