"""Estimate of a network's memory without building it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ..networks.imagenet import without_pretrained
from ..networks.network_cost import measure
from ..schema import Labels


class Planned(Protocol):
    """Input of the estimate: a `Configuration`, or one that is still being planned."""

    @property
    def patch_size(self) -> tuple[int, ...]: ...
    @property
    def network(self) -> str: ...
    @property
    def network_options(self) -> Mapping[str, Any]: ...


def label_keys(labels: Labels) -> int:
    """Entries of the label table of ``dataset.json``: background, one per organ or region, and ignore where there is one."""
    return 1 + len(labels.names) + (labels.ignore is not None)


def conv_elements(planned: Planned, keys: int = 0) -> int:
    """Elements of all convolution outputs for one patch: nnU-Net's proxy for the memory of a training step at batch size 1.

    Additional segmentation maps of deep supervision are not counted.

    Args:
        planned: Patch and network; options with ``blocks_per_stage`` are a residual encoder, with ``convs_per_stage`` a plain one. All
            other networks are measured, with one channel in and two out.
        keys: Segmentation maps at full resolution to count too (`label_keys`); 0 counts the network's body alone.
    """
    options = planned.network_options
    if not {"blocks_per_stage", "convs_per_stage"} & set(options):
        cost = measure(planned.network, len(planned.patch_size), 1, 2, planned.patch_size, **without_pretrained(options))
        return cost.elements + keys * math.prod(planned.patch_size)
    maps = _map_sizes(planned.patch_size, options["strides"])
    return _encoder_elements(options, maps) + _decoder_elements(options, maps) + keys * maps[0]


def _map_sizes(patch_size: Sequence[int], strides: Sequence[Sequence[int]]) -> list[int]:
    """Voxels of a feature map in each stage."""
    shape, sizes = list(patch_size), []
    for stride in strides:
        shape = [size // step for size, step in zip(shape, stride, strict=True)]
        sizes.append(math.prod(shape))
    return sizes


def _encoder_elements(options: Mapping[str, Any], maps: Sequence[int]) -> int:
    features, strides = options["features"], options["strides"]
    if "blocks_per_stage" not in options:
        return sum(convs * width * size for convs, width, size in zip(options["convs_per_stage"], features, maps, strict=True))
    previous, total = features[0], features[0] * maps[0]  # of the stem
    for blocks, width, size, stride in zip(options["blocks_per_stage"], features, maps, strides, strict=True):
        projected = width != previous or any(step != 1 for step in stride)
        total += (2 * blocks + projected) * width * size
        previous = width
    return total


def _decoder_elements(options: Mapping[str, Any], maps: Sequence[int]) -> int:
    """``decoder_convs`` is listed from the deepest stage upwards; one transposed convolution is added per stage."""
    stages = zip(options["features"][-2::-1], maps[-2::-1], options["decoder_convs"], strict=True)
    return sum((convs + 1) * width * size for width, size, convs in stages)
