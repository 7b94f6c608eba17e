"""Label maps of many averages of the same models at once, each exactly that of `export_labels`.

Where all models agree, so does every average of them. On the grid alone (`export.survey_of`) that settles all voxels but those near
borders; those are interpolated once a model, not once an average, and again only where the models then disagree the averages are
computed one by one. Ten models have 165 averages of two or three: their label maps together cost little more than ten label maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..schema import Labels
from .export import UNSURE, Grid, Logits, Span, check_members, chunks, decide, survey_of, taken
from .merge_labels import internal_regions_class_order

TOGETHER = 2**26
"""Numbers (models times classes times voxels) of a slab that are read at once, unless one slice has more."""

Members = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Averages:
    """Label maps of one case, together; in the trace's axis order before cropping, a 2D image as one slice.

    Attributes:
        agreed: ``(Z, Y, X)`` int16, internal values; 0 where the models disagree.
        disputed: ``(N,)`` int64, flat indices of the voxels at which they do.
        said: Members of each average to its internal values there, ``(N,)`` int16.
    """

    agreed: np.ndarray
    disputed: np.ndarray
    said: dict[Members, np.ndarray]

    def label_map(self, members: Members) -> np.ndarray:
        """The whole map of one average, ``(Z, Y, X)`` int16."""
        found = self.agreed.copy()
        found.reshape(-1)[self.disputed] = self.said[members]
        return found


def average_all(models: Mapping[str, Logits], averages: Sequence[Members], labels: Labels) -> Averages:
    """Computes the label maps of averages of models.

    Args:
        models: Name to what it says about the case; of any grids. Each is read twice, slab by slab.
        averages: Names of the members of each.
        labels: The organs, of all models the same.

    Raises:
        ValueError: The models do not belong together or to `labels`.
    """
    check_members(list(models.values()), labels)
    trace = next(iter(models.values())).trace
    values = np.array([0, *internal_regions_class_order(labels)], np.int16)
    grids = {name: Grid.of(logits) for name, logits in models.items()}
    small = np.int8 if labels.n_outputs < np.iinfo(np.int8).max else np.int16
    cells = {name: survey_of(grid, regions=labels.regions).astype(small) for name, grid in grids.items()}
    agreed = np.zeros(trace.shape_before_crop, np.int16)
    box = tuple(slice(start, stop) for start, stop in trace.crop)
    height = trace.crop[0][1] - trace.crop[0][0]
    numbers = sum(int(np.prod(grid.array.shape)) for grid in grids.values())
    rows = max(1, min(TOGETHER * height // numbers, *(grid.rows for grid in grids.values())))
    where, said = [], []
    for start in range(0, height, rows):
        span = (start, min(start + rows, height))
        winner = _agreed_on_grids(grids, cells, span)
        places, found = _settled(grids, winner, span, averages, regions=labels.regions)
        agreed[box][slice(*span)] = values[winner]
        corner = [start + span[0] * (axis == 0) for axis, (start, _) in enumerate(trace.crop)]
        inside = [index + first for index, first in zip(np.unravel_index(places, winner.shape), corner, strict=True)]
        where.append(np.ravel_multi_index(inside, agreed.shape))
        said.append(values[found])
    together = np.concatenate(said, axis=1)
    return Averages(agreed, np.concatenate(where), dict(zip(averages, together, strict=True)))


def _agreed_on_grids(grids: Mapping[str, Grid], cells: Mapping[str, np.ndarray], span: Span) -> np.ndarray:
    """The winner that the grids alone give for the output slices of `span`, ``(z, Y, X)``; `UNSURE` where it is not one and the same."""
    winner = None
    for name, grid in grids.items():
        own = taken(cells[name], [axis.low for axis in grid.axes], span)
        if winner is None:
            winner = own
        else:
            winner[winner != own] = UNSURE
    return winner


def _settled(
    grids: Mapping[str, Grid], winner: np.ndarray, span: Span, averages: Sequence[Members], *, regions: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Interpolates the unsure voxels of a slab: those where the models agree get their winner, all others 0.

    Returns:
        Flat indices in the slab of the voxels where the models disagree, ``(n,)``, and what each average gives there, ``(averages, n)``.
    """
    flat = winner.reshape(-1)
    unsure = np.flatnonzero(flat == UNSURE)
    places, said = [np.empty(0, np.int64)], [np.empty((len(averages), 0), np.int16)]
    if len(unsure):
        needed = {name: grid.axes[0].needed(span) for name, grid in grids.items()}
        slabs = {name: grid.read([needed[name], *((0, n) for n in grid.array.shape[2:])]) for name, grid in grids.items()}
        classes = next(iter(slabs.values())).shape[0]
        for part in chunks(len(unsure), classes * len(grids)):
            z, y, x = np.unravel_index(unsure[part], winner.shape)
            points = (z + span[0], y, x)
            shares = {name: grid.at(slabs[name], (needed[name][0], 0, 0), points) for name, grid in grids.items()}
            alone = np.stack([decide([values], [grids[name].kind], regions=regions) for name, values in shares.items()])
            differ = (alone != alone[0]).any(axis=0)
            flat[unsure[part]] = np.where(differ, 0, alone[0])
            places.append(unsure[part][differ])
            some = {name: values[:, differ] for name, values in shares.items()}
            found = [decide([some[name] for name in one], [grids[name].kind for name in one], regions=regions) for one in averages]
            said.append(np.stack(found) if found else np.empty((0, int(differ.sum())), np.int16))
    return np.concatenate(places), np.concatenate(said, axis=1)
