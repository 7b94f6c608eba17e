"""From logits on the network's grid to a label map or probabilities on the file's, never holding all classes at the file's resolution."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce

import numpy as np
import torch

from ..preprocessing.cropping import slices_of
from ..preprocessing.orientation import undo_reorient
from ..schema import Labels, Trace
from .logits import Logits, check_members, probability
from .logits_grid import Grid, slab_rows
from .merge_labels import internal_regions_class_order
from .winning_labels import cell_winners, undecided_voxels, winners_from_cells, winning_channels


def export_labels(members: Sequence[Logits], labels: Labels, *, vote: bool = False) -> np.ndarray:
    """The label map of a case: probabilities averaged over `members`, the likeliest organ (regions: each above one half, painted in order).

    Each member is interpolated linearly to the file's grid (the nearest slice along `separate_z_axis`), then softmax or sigmoid,
    then the mean. Members may have different grids. With `vote` the majority of the members' own label maps instead, and the mean where
    equally many are for several organs (`winning_channels`).

    Returns:
        Internal label map, int16, with the file's axis order and shape.

    Raises:
        ValueError: No members, or members that do not belong together or to `labels`.
    """
    check_members(members, labels)
    trace = members[0].trace
    values = np.array([0, *internal_regions_class_order(labels)], np.int16)
    grids = [Grid.of(member) for member in members]
    kinds = [grid.kind for grid in grids]
    cells = [cell_winners(grid, regions=labels.regions) for grid in grids]
    segmentation = np.zeros(trace.shape_before_crop, np.int16)
    cropped = segmentation[slices_of(trace.crop)]
    rows = min(grid.rows for grid in grids)
    for start in range(0, len(cropped), rows):
        slices = (start, min(start + rows, len(cropped)))
        winner = winners_from_cells(grids, cells, slices)
        for voxels, corners in undecided_voxels(winner, grids, slices):
            winner.reshape(-1)[voxels] = winning_channels(corners, kinds, regions=labels.regions, vote=vote)
        cropped[slice(*slices)] = values[winner]
    return to_file_order(segmentation, trace)


def probabilities(members: Sequence[Logits], labels: Labels) -> Iterator[tuple[int, np.ndarray]]:
    """Mean probabilities on the file's grid, slab by slab, of what `export_labels` takes.

    Yields:
        First slice of the slab along the file's Z, and the probabilities ``(K, slab, Y, X)`` float32 in the file's axis order; a 2D image
        gives one slab of one slice. Outside the box that preprocessing kept, background has 1 and everything else 0.
    """
    check_members(members, labels)
    trace = members[0].trace
    grids = [Grid.of(member) for member in members]
    axis = 0 if trace.geometry.dim == 2 else trace.transpose.index(0)
    shape = trace.shape_before_crop
    rows = slab_rows(labels.n_outputs * (int(np.prod(shape)) // shape[axis]))
    for start in range(0, shape[axis], rows):
        stop = min(start + rows, shape[axis])
        low, high = (shape[axis] - stop, shape[axis] - start) if axis in trace.flips else (start, stop)
        box = list(trace.crop)
        box[axis] = (max(low, trace.crop[axis][0]), min(high, trace.crop[axis][1]))
        slab = np.zeros((labels.n_outputs, *(stop - start if a == axis else n for a, n in enumerate(shape))), np.float32)
        if not labels.regions:
            slab[0] = 1
        if box[axis][0] < box[axis][1]:
            voxels = [(begin - first, end - first) for (begin, end), (first, _) in zip(box, trace.crop, strict=True)]
            box[axis] = (box[axis][0] - low, box[axis][1] - low)
            shares = (probability(grid.interpolated(voxels), grid.kind, regions=labels.regions) for grid in grids)
            z, y, x = slices_of(tuple(box))
            slab[:, z, y, x] = (reduce(torch.add, shares) / len(grids)).numpy()
        yield start, undo_reorient(slab, trace.transpose, trace.flips)


def to_file_order(volume: np.ndarray, trace: Trace) -> np.ndarray:
    """A volume in the trace's axis order before cropping as the file has it; a 2D image without its one slice."""
    restored = np.ascontiguousarray(undo_reorient(volume[None], trace.transpose, trace.flips)[0])
    return restored[0] if trace.geometry.dim == 2 else restored
