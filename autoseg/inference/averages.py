"""Label maps of many averages of the same models at once, each exactly that of `export_labels`.

Where all models agree, so does every average of them. On the grid alone (`winners.cell_winners`) that settles all voxels but those near
borders; those are interpolated once a model, not once an average, and again only where the models then disagree the averages are
computed one by one. Ten models have 165 averages of two or three: their label maps together cost little more than ten label maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..preprocessing.cropping import slices_of
from ..schema import Labels
from .logits import Logits, check_members
from .logits_grid import Grid, Interval
from .merge_labels import internal_regions_class_order
from .winning_labels import cell_winners, undecided_voxels, winners_from_cells, winning_channels

SLAB_OF_ALL = 2**26
"""Numbers (models times classes times voxels) of a slab that are read at once, unless one slice has more."""

Members = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Averages:
    """Label maps of one case, together; in the trace's axis order before cropping, a 2D image as one slice.

    Attributes:
        agreed: ``(Z, Y, X)`` int16, internal values; 0 where the models disagree.
        disputed: ``(N,)`` int64, flat indices of the voxels at which they do.
        disputed_labels: Members of each average to its internal values there, ``(N,)`` int16.
    """

    agreed: np.ndarray
    disputed: np.ndarray
    disputed_labels: dict[Members, np.ndarray]

    def label_map(self, members: Members) -> np.ndarray:
        """The whole map of one average, ``(Z, Y, X)`` int16."""
        labels = self.agreed.copy()
        labels.reshape(-1)[self.disputed] = self.disputed_labels[members]
        return labels


def average_all(models: Mapping[str, Logits], averages: Sequence[Members], labels: Labels, *, vote: bool = False) -> Averages:
    """Computes the label maps of averages of models.

    Args:
        models: Name to its prediction of the case; of any grids. Each is read twice, slab by slab.
        averages: Names of the members of each.
        labels: Of all models.
        vote: The majority of the models' label maps instead of their average.

    Raises:
        ValueError: The models do not belong together or to `labels`.
    """
    check_members(list(models.values()), labels)
    trace = next(iter(models.values())).trace
    values = np.array([0, *internal_regions_class_order(labels)], np.int16)
    grids = {name: Grid.of(logits) for name, logits in models.items()}
    small = np.int8 if labels.n_outputs < np.iinfo(np.int8).max else np.int16
    cells = [cell_winners(grid, regions=labels.regions).astype(small) for grid in grids.values()]
    agreed = np.zeros(trace.shape_before_crop, np.int16)
    cropped = agreed[slices_of(trace.crop)]
    numbers = sum(int(np.prod(grid.array.shape)) for grid in grids.values())
    rows = max(1, min(SLAB_OF_ALL * len(cropped) // numbers, *(grid.rows for grid in grids.values())))
    disputed, disputed_labels = [], []
    for start in range(0, len(cropped), rows):
        slices = (start, min(start + rows, len(cropped)))
        winner = winners_from_cells(list(grids.values()), cells, slices)
        voxels, channels = _decide(grids, winner, slices, averages, rule={"regions": labels.regions, "vote": vote})
        cropped[slice(*slices)] = values[winner]
        corner = [first + slices[0] * (axis == 0) for axis, (first, _) in enumerate(trace.crop)]
        indices = tuple(index + first for index, first in zip(np.unravel_index(voxels, winner.shape), corner, strict=True))
        disputed.append(np.ravel_multi_index(indices, agreed.shape))
        disputed_labels.append(values[channels])
    together = np.concatenate(disputed_labels, axis=1)
    return Averages(agreed, np.concatenate(disputed), dict(zip(averages, together, strict=True)))


def _decide(
    grids: Mapping[str, Grid], winner: np.ndarray, slices: Interval, averages: Sequence[Members], *, rule: Mapping[str, bool]
) -> tuple[np.ndarray, np.ndarray]:
    """Interpolates the undecided voxels of a slab: those where the models agree get their winner, all others 0.

    `rule` are the options of `winning_channels`. Returns flat indices in the slab of the voxels where the models disagree, ``(n,)``, and
    each average's winner there, ``(averages, n)``.
    """
    disputed, channels = [np.empty(0, np.int64)], [np.empty((len(averages), 0), np.int16)]
    kinds = {name: grid.kind for name, grid in grids.items()}
    flat = winner.reshape(-1)
    for voxels, corners in undecided_voxels(winner, list(grids.values()), slices, members=len(grids)):
        values = dict(zip(grids, corners, strict=True))
        alone = np.stack([winning_channels([values[name]], [kinds[name]], regions=rule["regions"]) for name in grids])
        differ = (alone != alone[0]).any(axis=0)
        flat[voxels] = np.where(differ, 0, alone[0])
        disputed.append(voxels[differ])
        values = {name: value[:, differ] for name, value in values.items()}
        rows = [winning_channels([values[n] for n in names], [kinds[n] for n in names], **rule) for names in averages]
        channels.append(np.stack(rows) if rows else np.empty((0, int(differ.sum())), np.int16))
    return np.concatenate(disputed), np.concatenate(channels, axis=1)
