"""Weight gradients of two kinds of convolution, as matrix products, where oneDNN's take several times as long on processors.

In float32 and channels-last layout: of a convolution of one channel (the first layer of most networks; oneDNN cannot tell its layout), and
of a transposed convolution whose kernel is its stride (which touches every voxel of its result once).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


class OneChannelConvolution(torch.autograd.Function):
    """Convolution of a batch ``(B, 1, *spatial)``, of which no gradient is wanted, with odd kernels, stride 1 and padding to its size."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        kernel = weight.shape[2:]
        convolve = F.conv3d if len(kernel) == 3 else F.conv2d
        return convolve(x, weight, bias, padding=[edge // 2 for edge in kernel])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of batch, kernel and bias; None where none is needed."""
        x, weight = ctx.saved_tensors
        values = _voxels_by_channels(gradients[0])
        of_weight = torch.bmm(_neighbours(x, weight.shape[2:]), values).sum(0)
        return None, of_weight.t().reshape(weight.shape), _sum(values.flatten(0, 1))


class UpConvolution(torch.autograd.Function):
    """Transposed convolution whose kernel is its stride."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        stride = weight.shape[2:]
        convolve = F.conv_transpose3d if len(stride) == 3 else F.conv_transpose2d
        return convolve(x, weight, bias, list(stride))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of batch, kernel and bias; None where none is needed."""
        x, weight = ctx.saved_tensors
        gradient, stride, dim = gradients[0], list(weight.shape[2:]), weight.dim() - 2
        of_x = None
        if ctx.needs_input_grad[0]:
            convolve = F.conv3d if dim == 3 else F.conv2d
            of_x = convolve(gradient, weight, None, stride)
        blocks = _blocks(gradient, stride)
        product = _voxels_by_channels(x).flatten(0, 1).t() @ blocks
        of_weight = product.unflatten(1, (*stride, gradient.shape[1])).movedim(-1, 1)
        of_bias = _sum(blocks).unflatten(0, (math.prod(stride), gradient.shape[1])).sum(0)
        return of_x, of_weight, of_bias


def _sum(rows: Tensor) -> Tensor:
    """The sum of the rows of a matrix, many times as fast as by torch's own."""
    return (rows.new_ones(1, len(rows)) @ rows)[0]


def _voxels_by_channels(x: Tensor) -> Tensor:
    """A batch ``(B, C, *spatial)`` as matrices ``(B, voxels, C)``: of a channels-last batch a view."""
    return x.movedim(1, -1).flatten(1, -2)


def _neighbours(x: Tensor, kernel: Sequence[int]) -> Tensor:
    """Of each voxel of ``(B, 1, *spatial)`` those that a kernel sees, ``(B, kernel's voxels, voxels)``; 0 outside."""
    padded = F.pad(x, [edge // 2 for edge in reversed(kernel) for _ in range(2)]).contiguous()
    batch, _, *steps = padded.stride()
    shifted = padded.as_strided((len(x), *kernel, *x.shape[2:]), (batch, *steps, *steps))
    return shifted.reshape(len(x), math.prod(kernel), -1)


def _blocks(x: Tensor, edges: Sequence[int]) -> Tensor:
    """A batch ``(B, C, *spatial)`` cut into blocks, one a row: ``(blocks, voxels of a block * C)``."""
    dim = len(edges)
    cut = x.movedim(1, -1)
    for axis, edge in reversed(list(enumerate(edges, 1))):
        cut = cut.unflatten(axis, (-1, edge))
    order = [0, *range(1, 2 * dim, 2), *range(2, 2 * dim + 1, 2), 2 * dim + 1]
    return cut.permute(order).flatten(dim + 1).flatten(0, dim)
