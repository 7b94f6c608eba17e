"""Patch size, network options and batch size of one configuration that fit the memory target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..networks import NETWORKS, network_spec
from .memory import conv_elements
from .topology import Topology, plan_topology

BASE_FEATURES = 32
MAX_FEATURES = {2: 512, 3: 320}
INITIAL_EDGE = {2: 2048, 3: 256}
"""Edge of the square or cube whose volume the first, surely too large, patch has."""
REFERENCE_BATCH = {2: 12, 3: 2}
"""Batch size to which the reference values of the presets belong."""
MIN_BATCH = 2
RESIDUAL_BLOCKS = (1, 3, 4, 6)
"""Blocks of the first stages; deeper stages have as many as the last of these."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Planning preset: network family and reference values of its memory.

    Attributes:
        network: Name in `autoseg.networks.NETWORKS`, or ``module:name``; one that the planner shapes (`NetworkSpec.planned`).
        elements: Per number of axes: convolution elements of one patch (`memory.conv_elements`) that belong to `gigabytes`.
        gigabytes: Memory target of the preset.
        shrink_batch: Per number of axes: the patch shrinks until a batch of this size fits.
        coverage: Share of the dataset's voxels that one batch may hold.
    """

    network: str
    elements: Mapping[int, float]
    gigabytes: float
    shrink_batch: Mapping[int, float]
    coverage: float


def _residual(elements_3d: float, elements_2d: float, gigabytes: float) -> Preset:
    elements = {3: elements_3d, 2: elements_2d}
    return Preset(network="residual_unet", elements=elements, gigabytes=gigabytes, shrink_batch=REFERENCE_BATCH, coverage=1.0)


PRESETS: dict[str, Preset] = {
    "default": Preset(network="plain_unet", elements={3: 560e6, 2: 85e6}, gigabytes=8, shrink_batch={2: 2, 3: 2}, coverage=0.05),
    "resenc_m": _residual(680e6, 135e6, 8),
    "resenc_l": _residual(2.1e9, 380e6, 24),
    "resenc_xl": _residual(3.6e9, 560e6, 40),
}


@dataclass(frozen=True)
class Setting:
    """Values that all configurations of a dataset share in planning; `label_keys`: see `memory.label_keys`."""

    preset: Preset
    memory_gb: float
    label_keys: int


@dataclass(frozen=True)
class Sizing:
    """Patch, network and batch of one configuration.

    Attributes:
        divisor: Number that each axis of the patch must be a multiple of.
        elements: Estimate for one patch, see `memory.conv_elements`.
        limit: Elements that the memory target allows for the reference batch.
        capped: True where the batch was limited by the size of the dataset, not by memory.
    """

    patch_size: tuple[int, ...]
    batch_size: int
    network: str
    network_options: dict[str, Any]
    divisor: tuple[int, ...]
    elements: int
    limit: float
    capped: bool = False


def plan_size(spacing: Sequence[float], shape: Sequence[float], dataset_voxels: float, setting: Setting) -> Sizing:
    """The largest patch that fits, with the aspect of the median case, and the batch that fills the memory (Isensee et al. 2021).

    Args:
        spacing: Target, mm; two or three numbers.
        shape: Median case at that spacing, voxels.
        dataset_voxels: Of all cases together at that spacing.
        setting: Preset, memory target, labels.

    Raises:
        ValueError: Not even the smallest patch fits the memory target.
    """
    dim = len(spacing)
    limit = setting.preset.elements[dim] * setting.memory_gb / setting.preset.gigabytes
    sizing = _size(plan_topology(spacing, _initial_patch(spacing, shape)), setting, limit)
    while sizing.elements / REFERENCE_BATCH[dim] * setting.preset.shrink_batch[dim] > limit:
        smaller = _shrink(spacing, shape, sizing)
        shrunk = _size(plan_topology(spacing, smaller), setting, limit) if min(smaller) >= 1 else sizing
        if shrunk.elements >= sizing.elements:
            raise ValueError(
                f"memory target: {setting.memory_gb:g} GB is too little for any patch of this dataset at spacing "
                f"{tuple(round(float(value), 3) for value in spacing)} mm; give more memory or a coarser spacing"
            )
        sizing = shrunk
    return _with_batch(sizing, dataset_voxels, setting.preset.coverage)


def _initial_patch(spacing: Sequence[float], shape: Sequence[float]) -> list[float]:
    """A patch with equal millimetres along every axis, clipped to the median case."""
    dim = len(spacing)
    aspect = 1 / np.asarray(spacing, float)
    sizes = aspect * (INITIAL_EDGE[dim] ** dim / np.prod(aspect)) ** (1 / dim)
    return [min(round(float(size)), limit) for size, limit in zip(sizes, shape, strict=True)]


def _shrink(spacing: Sequence[float], shape: Sequence[float], sizing: Sizing) -> list[int]:
    """The patch, one divisor shorter along the axis that is longest relative to the median case.

    The divisor is the one of the shortened patch, as the longer one may need more halvings: 64 - 64 would leave nothing.
    """
    ratios = [size / median for size, median in zip(sizing.patch_size, shape, strict=True)]
    axis = int(np.argsort(ratios)[-1])
    tentative, shorter = list(sizing.patch_size), list(sizing.patch_size)
    tentative[axis] -= sizing.divisor[axis]
    shorter[axis] -= plan_topology(spacing, tentative).divisor[axis]
    return shorter


def _size(topology: Topology, setting: Setting, limit: float) -> Sizing:
    network = setting.preset.network
    sizing = Sizing(topology.patch_size, MIN_BATCH, network, network_options(topology, network), topology.divisor, 0, limit)
    return replace(sizing, elements=conv_elements(sizing, setting.label_keys))


def network_options(topology: Topology, network: str) -> dict[str, Any]:
    """Keyword arguments of a network with a planned topology.

    Args:
        topology: Strides and kernel sizes of each stage.
        network: Name in `autoseg.networks.NETWORKS`, or ``module:name``: one that says nothing else is given those of a plain U-Net.

    Raises:
        ValueError: The network has a topology of its own.
    """
    planned = network_spec(network).planned
    if planned is None and network in NETWORKS:
        expected = ", ".join(name for name, spec in NETWORKS.items() if spec.planned)
        raise ValueError(f"plan preset: expected a network that the planner shapes ({expected}), got {network!r}")
    stages, dim = len(topology.strides), len(topology.patch_size)
    options: dict[str, Any] = {
        "features": [min(BASE_FEATURES * 2**stage, MAX_FEATURES[dim]) for stage in range(stages)],
        "strides": [list(stride) for stride in topology.strides],
        "kernel_sizes": [list(kernel) for kernel in topology.kernel_sizes],
    }
    if planned == "residual":
        blocks = [RESIDUAL_BLOCKS[min(stage, len(RESIDUAL_BLOCKS) - 1)] for stage in range(stages)]
        return options | {"blocks_per_stage": blocks, "decoder_convs": [1] * (stages - 1)}
    return options | {"convs_per_stage": [2] * stages, "decoder_convs": [2] * (stages - 1)}


def _with_batch(sizing: Sizing, dataset_voxels: float, coverage: float) -> Sizing:
    dim = len(sizing.patch_size)
    by_memory = round(sizing.limit / sizing.elements * REFERENCE_BATCH[dim])
    by_dataset = round(dataset_voxels * coverage / math.prod(sizing.patch_size))
    return replace(sizing, batch_size=max(min(by_memory, by_dataset), MIN_BATCH), capped=by_dataset < by_memory)
