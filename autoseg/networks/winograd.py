"""Convolutions with kernels of 3 voxels an axis in float32 with 3.4 to 6 times fewer multiplications.

Winograd 1980; Lavin & Gray, CVPR 2016. A processor without matrix tiles spends most of a training step on multiplications in convolutions,
which oneDNN computes at nearly the rate of the processor; only fewer of them are faster. The sums are those of the definition up to
rounding: relative to the largest value by some 1e-5, a hundredth of what bfloat16 rounds off. The code is C (`native`); torch computes
where there is no compiler.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .native import call, vector_library

SOURCE = Path(__file__).with_name("winograd.c")

CHANNELS = 16
"""Channels come in multiples of this, the numbers of a vector."""

KERNELS_AS_TILES = 130
"""The transforms of the kernels take as long as products at so many tiles."""

LEAST_GAIN = 0.7
"""Share of the multiplications of the definition above which torch, whose are the faster, computes."""

WORKING_SET = 700_000
"""Bytes of the transformed tiles that are in work at once: with kernels and results they fit into a core's second cache."""

LARGEST_KERNELS = 3_000_000
"""Bytes of transformed kernels up to which each thread goes through them on its own."""

WIDE_TILES = 96
"""Tiles that are in work at once beyond that, by all threads."""

FLAT, CUBE, BRICK = (1, 4, 4), (2, 2, 2), (2, 4, 4)
"""Voxels of the result that a tile has, for kernels of one slice and (both others) of three."""


class WinogradConvolution(torch.autograd.Function):
    """Convolution of a channels-last batch ``(B, C, *spatial)`` with a kernel of 3x3x3, 1x3x3 or 3x3, padded to its size."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _like(_convolved(_of_volumes(x), _of_volumes(weight), bias, reverse=False), x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of batch, kernel and bias; None where none is needed."""
        x, weight = ctx.saved_tensors
        gradient, kernels = _of_volumes(gradients[0]), _of_volumes(weight)
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = _like(_convolved(gradient, kernels, None, reverse=True), x)
        if ctx.needs_input_grad[1]:
            of_weight = _like(_weight_gradient(_of_volumes(x), gradient, kernels), weight)
        if ctx.needs_input_grad[2]:
            rows = gradient.movedim(1, -1).flatten(0, -2)
            of_bias = (rows.new_ones(1, len(rows)) @ rows)[0]  # many times as fast as torch's sum over rows
        return of_x, of_weight, of_bias


def _of_volumes(x: Tensor) -> Tensor:
    """A batch of slices as one of volumes of one slice, or one of volumes; in channels-last layout."""
    return (x if x.dim() == 5 else x[:, :, None]).contiguous(memory_format=torch.channels_last_3d)


def _like(volumes: Tensor, x: Tensor) -> Tensor:
    """Volumes of one slice as slices, if `x` is of slices."""
    return volumes if x.dim() == 5 else volumes[:, :, 0]


def takes(layer: nn.Conv2d | nn.Conv3d, x: Tensor) -> bool:
    """Whether a convolution of such a batch is computed here; the first time this translates the source."""
    kernel = layer.kernel_size if len(layer.kernel_size) == 3 else (1, *layer.kernel_size)
    if kernel not in ((3, 3, 3), (1, 3, 3)) or max(*layer.stride, *layer.dilation, layer.groups) > 1 or layer.padding_mode != "zeros":
        return False
    if layer.padding != tuple(edge // 2 for edge in layer.kernel_size) or layer.in_channels % CHANNELS or layer.out_channels % CHANNELS:
        return False
    layout = torch.channels_last_3d if x.dim() == 5 else torch.channels_last
    return (
        x.device.type == "cpu"
        and x.dim() == layer.weight.dim()
        and x.dtype == layer.weight.dtype == torch.float32
        and _cost(_best_tile(x, kernel), x) < LEAST_GAIN * math.prod(kernel) * x.numel() // x.shape[1]
        and x.is_contiguous(memory_format=layout)
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()
        and not torch.compiler.is_compiling()
        and vector_library(SOURCE) is not None
    )


def _convolved(x: Tensor, weight: Tensor, bias: Tensor | None, *, reverse: bool) -> Tensor:
    """Convolution; or, reversed, the gradient of its input from that of its result."""
    tile, threads = _best_tile(x, weight.shape[2:]), torch.get_num_threads()
    points, (outer, inner) = _points(tile), weight.shape[:2]
    kernels = torch.empty(points * inner * outer)
    _call("expand", tile, weight, kernels, inner, outer, int(reverse), threads)
    if reverse:
        inner, outer = outer, inner
    result = torch.empty((len(x), outer, *x.shape[2:]), memory_format=torch.channels_last_3d)
    name, tiles = _way("convolve", x, tile, kernels.nbytes, inner + outer)
    _call(name, tile, x, kernels, bias, result, _sizes(x, tile), inner, outer, 12 * math.ceil(tiles / 12), threads)
    return result


def _weight_gradient(x: Tensor, gradient: Tensor, weight: Tensor) -> Tensor:
    tile, threads = _best_tile(x, weight.shape[2:]), torch.get_num_threads()
    points, (outer, inner) = _points(tile), weight.shape[:2]
    name, tiles = _way("weights", x, tile, 4 * points * inner * outer, inner + outer)
    sums = torch.zeros((threads if name == "weights" else 1, points, inner, outer))
    _call(name, tile, x, gradient, sums, _sizes(x, tile), inner, outer, tiles, threads)
    result = torch.empty_like(weight, memory_format=torch.channels_last_3d)
    _call("reduce", tile, sums, len(sums), result, inner, outer, threads)
    return result


def _best_tile(x: Tensor, kernel: Sequence[int]) -> tuple[int, ...]:
    return min([FLAT] if kernel[0] == 1 else [BRICK, CUBE], key=lambda tile: _cost(tile, x))


def _cost(tile: tuple[int, ...], x: Tensor) -> int:
    """Multiplications for each pair of channels, the transforms of the kernels among them."""
    return _points(tile) * (_tiles(tile, x) + KERNELS_AS_TILES)


def _way(name: str, x: Tensor, tile: tuple[int, ...], kernels: int, channels: int) -> tuple[str, int]:
    """The function to call for so many bytes of transformed kernels, and the tiles that are in work at once."""
    if kernels > LARGEST_KERNELS:
        return f"{name}_wide", min(WIDE_TILES, _tiles(tile, x))
    return name, max(12, min(48, WORKING_SET // (4 * _points(tile) * channels) // 12 * 12))


def _tiles(tile: tuple[int, ...], x: Tensor) -> int:
    """The number of tiles of a batch ``(B, C, *spatial)``."""
    spatial = x.shape[2:] if x.dim() == 5 else (1, *x.shape[2:])
    return len(x) * math.prod(math.ceil(size / edge) for size, edge in zip(spatial, tile, strict=True))


def _points(tile: tuple[int, ...]) -> int:
    return math.prod(1 if edge == 1 else edge + 2 for edge in tile)


def _sizes(x: Tensor, tile: tuple[int, ...]) -> Any:
    """Samples and voxels along each axis; for kernels of one slice each slice is a sample."""
    batch, _, *spatial = x.shape
    if tile == FLAT:
        batch, spatial[0] = batch * spatial[0], 1
    return (ctypes.c_long * 4)(batch, *spatial)


def _call(name: str, tile: tuple[int, ...], *arguments: Any) -> None:
    """Calls the function for tiles of this size; tensors are given by their address.

    Raises:
        MemoryError: It got none.
    """
    if call(SOURCE, f"{name}_{''.join(map(str, tile))}", *arguments):
        raise MemoryError("out of memory in a convolution")
