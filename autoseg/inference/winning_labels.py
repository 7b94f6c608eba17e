"""The winning output channel of voxels: from the corners of their grid cell where these agree, else from interpolated logits.

Resampling is linear between grid points. In a cell whose corners all have the same winner, and the same in every member, linear
interpolation cannot change the winner: a weighted mean of numbers that are largest for one class is largest for that class. So the
winner of most voxels is known from the grid alone, and only the others, those near borders, are interpolated. The result is exactly
that of interpolating everything. For regions the same holds of "the last region above one half".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import reduce

import numpy as np
import torch

from .logits import probability
from .logits_grid import Grid, Interval, chunks, slab_rows

UNDECIDED = -1
"""Mark of the cells whose corners disagree."""


TIE_BREAKER = 0.5
"""Weight of the mean probability beside votes, less than one: it decides between equally many, and nothing else."""


def winning_channels(values: Sequence[torch.Tensor], kinds: Sequence[str], *, regions: bool, vote: bool = False) -> np.ndarray:
    """The output channel of the largest mean probability (regions: 1 + the last above one half, 0 if none).

    With `vote` that of most members, whose own winner is a vote (regions: the last that more than half of them have); of equally many
    votes the larger mean probability decides.

    Takes ``(K, N)`` float32 and the kind of each member, gives ``(N,)`` int16.
    """
    pairs = list(zip(values, kinds, strict=True))
    if regions:
        # tanh(x/2) is 2p - 1 but keeps its sign next to zero, where p itself would be rounded to one half.
        signs = [(value - 127.5) / 127.5 if kind == "probability8" else torch.tanh(value / 2) for value, kind in pairs]
        signed = reduce(torch.add, signs) / len(pairs)
        if vote:
            signed = reduce(torch.add, [torch.where(sign > 0, 1.0, -1.0) for sign in signs]) + TIE_BREAKER * signed
        numbers = torch.arange(1, len(signed) + 1, dtype=torch.int16)[:, None]
        winner = ((signed > 0) * numbers).amax(0)
    elif len(pairs) == 1:
        winner = values[0].max(0).indices
    else:
        shares = reduce(torch.add, [probability(value, kind, regions=False) for value, kind in pairs])
        if vote:
            shares *= TIE_BREAKER / len(pairs)
            for value in values:
                winners = value.max(0).indices[None]
                shares.scatter_add_(0, winners, torch.ones_like(winners, dtype=shares.dtype))
        winner = shares.max(0).indices
    return winner.numpy().astype(np.int16)


def cell_winners(grid: Grid, *, regions: bool) -> np.ndarray:
    """The winner of each grid cell, `UNDECIDED` where its corners disagree, int16. Looks at every grid point once.

    An array that is computed where it is read may have an attribute `same_winners`: a cheaper one with the same winners, read instead.
    """
    grid = replace(grid, array=getattr(grid.array, "same_winners", grid.array))
    count, *shape = grid.array.shape
    winner = np.empty(shape, np.int16)
    rows = slab_rows(count * shape[1] * shape[2])
    for start in range(0, shape[0], rows):
        interval = (start, min(start + rows, shape[0]))
        slab = grid.read([interval, (0, shape[1]), (0, shape[2])]).reshape(count, -1)
        best = winner[slice(*interval)].reshape(-1)
        for part in chunks(slab.shape[1], count):
            values = torch.from_numpy(np.ascontiguousarray(slab[:, part])).float()
            best[part] = winning_channels([values], [grid.kind], regions=regions)
    cells = winner
    for dim, axis in enumerate(grid.axes):
        if axis.mixes:
            left, right = (np.moveaxis(cells, dim, 0)[part] for part in (slice(None, -1), slice(1, None)))
            cells = np.moveaxis(np.where(left == right, left, np.int16(UNDECIDED)), 0, dim)
    return np.ascontiguousarray(cells)


def winners_from_cells(grids: Sequence[Grid], cells: Sequence[np.ndarray], slices: Interval) -> np.ndarray:
    """The winner ``(z, Y, X)`` that all the members' cells have at the output slices; `UNDECIDED` where it is not one and the same."""
    lows = [[axis.low for axis in grid.axes] for grid in grids]
    members = (cells[z[slice(*slices)]].take(y, axis=1).take(x, axis=2) for cells, (z, y, x) in zip(cells, lows, strict=True))
    winner = next(members)
    for other in members:
        winner[winner != other] = UNDECIDED
    return winner


def undecided_voxels(
    winner: np.ndarray, grids: Sequence[Grid], slices: Interval, *, members: int = 1
) -> Iterator[tuple[np.ndarray, list[torch.Tensor]]]:
    """Flat indices ``(n,)`` of a slab's undecided voxels, and each grid's logits there ``(K, n)``, in parts for `members` at once."""
    undecided = np.flatnonzero(winner.reshape(-1) == UNDECIDED)
    slabs = [grid.read_for(slices) for grid in grids] if len(undecided) else []
    for part in chunks(len(undecided), grids[0].array.shape[0] * members):
        z, y, x = np.unravel_index(undecided[part], winner.shape)
        yield undecided[part], [grid.at(*slab, (z + slices[0], y, x)) for grid, slab in zip(grids, slabs, strict=True)]
