"""What a prediction needs of memory at the least, known before anything is computed: from shapes, and from a network's layers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from ..networks.network_cost import held_bytes
from ..preprocessing.orientation import plan_transform
from ..preprocessing.resampling import resampled_shape
from ..runtime.hardware import memory_in_use
from ..schema import Configuration, Geometry, Plan

LIBRARIES = 1.5e8
"""What is loaded later than now (readers, measures of components), and freed blocks that malloc keeps."""
LAYERS = 1.25
"""What convolutions take beside their input and output, as a share of all that is held."""
WEIGHTS = 3
"""A network is read, built, and its weights are ordered anew for convolutions."""
COPIES_OF_TILE = 4
"""Logits of a tile at once: of the network, mirrored back, their sum, and with the window's weights."""

KEPT = 1.15
"""Without a limit freed blocks are kept for the next tile (`runtime.hardware.keep_freed_memory`)."""

IMAGE = 4
"""Bytes of a voxel in memory."""
READ, NORMALISED, INTERPOLATED = 10, 11, 8
"""Bytes a voxel while a file is read and converted; while its channels are normalised, beside the image; and while one is resampled."""
MAPPED, CUT, CELLS = 14, 4, 6
"""Bytes a voxel of the file while components of a label map are measured, and while it is made; and then of the model's grid."""
SLABS, IN_SLAB = 3.5e8, 20
"""Of what is done slab by slab after the tiles, at the most; and of a logit, where all of them are fewer than a slab may have."""


class Model(Protocol):
    """What is asked of a `TrainedModel` here."""

    @property
    def name(self) -> str: ...
    @property
    def plan(self) -> Plan: ...
    @property
    def configuration(self) -> Configuration: ...
    @property
    def tile_bytes(self) -> int: ...
    @property
    def depends_on(self) -> Sequence[Any]: ...


def network_bytes(network: nn.Module, inputs: Sequence[int]) -> int:
    """Memory that a network with its weights takes for one input of this shape ``(B, C, *input)``."""
    weights = sum(one.numel() * one.element_size() for one in network.parameters())
    return int(WEIGHTS * weights + LAYERS * held_bytes(network, inputs))


def bytes_after(file_shape: Sequence[int], grid: Sequence[int], outputs: int) -> int:
    """Memory of the steps after all tiles, without logits."""
    voxels, on_grid = math.prod(file_shape), math.prod(grid)
    slabs = min(SLABS, IN_SLAB * outputs * max(voxels, on_grid))
    return int(max(MAPPED * voxels, CUT * voxels + CELLS * on_grid + slabs))


@dataclass(frozen=True)
class Need:
    """Memory of a case's prediction.

    Attributes:
        steps: What is done to the bytes that it takes, beside what the process has now.
        arrays: Bytes of logits and of sums of tiles, which may lie in files.
    """

    steps: dict[str, int]
    arrays: int

    @property
    def least(self) -> int:
        """Bytes of the process with all arrays in files."""
        return int(memory_in_use() + LIBRARIES + max(self.steps.values()))

    @property
    def usual(self) -> int:
        """Bytes of the process with all arrays, and freed blocks, in memory."""
        return int(KEPT * (self.least + self.arrays))

    @property
    def largest(self) -> str:
        """What takes most."""
        return max(self.steps, key=lambda step: self.steps[step])


def need(models: Iterable[Model], geometry: Geometry, channels: int, *, beside: int = 0) -> Need:
    """What the prediction of an image of so many channels needs with some models, one after the other.

    `beside` are bytes a voxel that are held while the label map is made.
    """
    voxels, arrays, sums = math.prod(geometry.shape), 0, 0
    steps = {"reading the image": READ * channels * voxels}
    image = IMAGE * channels * voxels
    for model in _all_of(models):
        grid, outputs = grid_shape(model.plan, model.configuration, geometry), model.plan.labels.n_outputs
        on_grid = math.prod(grid)
        volume = IMAGE * channels * on_grid
        resampled = volume + (0 if on_grid == voxels else INTERPOLATED * max(voxels, on_grid))
        small = any(size < edge for size, edge in zip(grid[::-1], model.configuration.patch_size[::-1], strict=False))
        steps |= {
            f"preprocessing for {model.name}": image + NORMALISED * channels * voxels + resampled,
            f"a tile of {model.name}": image + volume * (2 if small else 1) + model.tile_bytes,  # a small one is padded
            f"label maps by {model.name}": bytes_after(geometry.shape, grid, outputs) + beside * voxels,
        }
        arrays += 2 * outputs * on_grid
        sums = max(sums, 4 * outputs * _sums(model.configuration, grid))
    return Need(steps, arrays + sums)


def _sums(configuration: Configuration, grid: Sequence[int]) -> int:
    """Voxels of which sums of tiles are held: one patch thick along the axis that it covers least."""
    patch = (1, *configuration.patch_size)[-3:]
    shape = (1, *grid)[-3:]
    covered = [min(1.0, edge / size) for edge, size in zip(patch, shape, strict=True)]
    return int(math.prod(max(edge, size) for edge, size in zip(patch, shape, strict=True)) * min(covered))


def grid_shape(plan: Plan, configuration: Configuration, geometry: Geometry) -> tuple[int, ...]:
    """Voxels of an image on a model's grid, without cropping."""
    order, _ = plan_transform(geometry, plan.order_of(configuration), plan.orientation)
    spacing, shape = tuple(geometry.spacing[axis] for axis in order), tuple(geometry.shape[axis] for axis in order)
    target = configuration.spacing if len(spacing) == len(configuration.spacing) else (spacing[0], *configuration.spacing)
    return resampled_shape(shape, spacing, target)


def _all_of(models: Iterable[Model]) -> list[Model]:
    """Models, and those that they need."""
    found: list[Model] = []
    for model in models:
        found += [model, *_all_of(model.depends_on)]
    return found
