"""Instance normalisation and the LeakyReLU behind it, in few passes over memory where torch takes many.

On a processor `torch.nn.functional.instance_norm` turns a batch in channels-last layout into channels-first and gives its result so: the
convolution behind it turns it back, and both passes, which move single numbers, take longer than the normalisation. Here each sample is
normalised as a batch of its own by torch's batch normalisation, which works in either layout; the numbers are the same. Where the C source
beside this file is translated (`native`), both directions take two passes over memory, the activation among them.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .native import call, vector_library

SOURCE = Path(__file__).with_name("normalisation.c")

CHANNELS = 16
"""Channels of a batch that the source takes come in multiples of this."""

IDENTITY = 1.0
"""Slope of a LeakyReLU that changes nothing."""


class _ActivatedNorm(torch.autograd.Function):
    """LeakyReLU of the instance normalisation of a channels-last batch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float) -> Tensor:
        """The result for ``(B, C, *spatial)``; each sample is normalised by its own statistics."""
        y = torch.empty_like(x)
        statistics = []
        for sample, normalised in zip(x.split(1), y.split(1), strict=True):
            mean, scale = (torch.empty(0, dtype=weight.dtype) for _ in range(2))
            torch.native_batch_norm(sample, weight, bias, None, None, True, 0.0, eps, out=(normalised, mean, scale))
            statistics.append((mean, scale))
        if slope != IDENTITY:
            F.leaky_relu_(y, slope)
        ctx.save_for_backward(x, weight, y if slope != IDENTITY else None, *(value for pair in statistics for value in pair))
        ctx.eps, ctx.slope = eps, slope
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of batch, scale and shift."""
        x, weight, y, *statistics = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=_channels_last(x))
        if y is not None:
            # From the result: the slope is positive, so its sign is that of what went in, which is not kept.
            gradient = torch.ops.aten.leaky_relu_backward(gradient, y, ctx.slope, True)
        parts = [
            torch.ops.aten.native_batch_norm_backward(g, sample, weight, None, None, mean, scale, True, ctx.eps, [True, True, True])
            for g, sample, mean, scale in zip(gradient.split(1), x.split(1), statistics[::2], statistics[1::2], strict=True)
        ]
        of_x, of_weight, of_bias = zip(*parts, strict=True)
        return torch.cat(of_x), sum(of_weight[1:], of_weight[0]), sum(of_bias[1:], of_bias[0]), None, None


class _NormInTwoPasses(torch.autograd.Function):
    """The same, in float32, for a multiple of 16 channels, by the translated source."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float) -> Tensor:
        y, *numbers = _normalised(x, weight, bias, eps, slope, result=torch.empty_like(x))
        ctx.save_for_backward(x, *numbers)
        ctx.slope = slope
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of batch, scale and shift."""
        x, factor, term, mean, scale = ctx.saved_tensors
        shape, gradient, result, parts = _shape(x), _in_rows(gradients[0]), torch.empty_like(x), _parts(x)
        steps = (ctypes.c_long(gradient.stride(-1)), ctypes.c_long(gradient.stride(0)), ctypes.c_float(ctx.slope), torch.get_num_threads())
        call(SOURCE, "sums", gradient, x, factor, term, mean, parts, *shape, *steps)
        plain, product = parts.sum(1, dtype=torch.float64).unbind(1)
        by_x = -factor * scale**2 * product / x[0, 0].numel()
        constant = -factor * plain / x[0, 0].numel() - by_x * mean
        call(SOURCE, "descend", gradient, x, factor, term, by_x.float(), constant.float(), result, *shape, *steps)
        return result, (product * scale).sum(0).float(), plain.sum(0).float(), None, None


def _normalised(x: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float, *, result: Tensor) -> tuple[Tensor, ...]:
    """The result, which may take the place of `x`; of each sample and channel factor and term of it, mean and scale of what was there."""
    shape = _shape(x)
    mean, scale = torch.empty((2, len(x), x.shape[1]))
    call(SOURCE, "statistics", x, _parts(x), mean, scale, *shape, ctypes.c_float(eps), torch.get_num_threads())
    factor = weight * scale
    term = bias - mean * factor
    call(SOURCE, "apply", x, factor, term, result, *shape, ctypes.c_float(slope), torch.get_num_threads())
    return result, factor, term, mean, scale


def _shape(x: Tensor) -> tuple[Any, ...]:
    return ctypes.c_long(len(x)), ctypes.c_long(x[0, 0].numel()), x.shape[1]


def _parts(x: Tensor) -> Tensor:
    """Room for two numbers a channel of each chunk of voxels."""
    chunks = call(SOURCE, "chunks", *_shape(x)[1:])
    return torch.empty((len(x), chunks, 2, x.shape[1]))


def _in_rows(gradient: Tensor) -> Tensor:
    """The gradient as it is, if its voxels follow each other at equal distances, as in a part of a concatenation; else a copy."""
    steps = [gradient.stride(-1)]
    for edge in reversed(gradient.shape[3:]):
        steps.append(steps[-1] * edge)
    if gradient.stride(1) == 1 and list(gradient.stride()[2:]) == steps[::-1]:
        return gradient
    return gradient.contiguous(memory_format=_channels_last(gradient))


class _LayoutKept(nn.modules.instancenorm._InstanceNorm):
    """Mixin in front of an instance normalisation class: keeps the channels-last layout on processors, and takes the activation along."""

    def forward(self, input: Tensor) -> Tensor:
        """``(B, C, *spatial)``, same shape."""
        return self.activated(input, IDENTITY)

    def activated(self, x: Tensor, slope: float, *, in_place: bool = False) -> Tensor:
        """LeakyReLU, with this slope for negative values (above 0), of the normalised ``(B, C, *spatial)``.

        `in_place` says that nobody else needs the batch: where no gradients are computed either, the result takes its place.
        """
        if _pays(x) and self.affine and not self.track_running_stats:
            translated = x.dtype == torch.float32 and x.shape[1] % CHANNELS == 0 and vector_library(SOURCE) is not None
            if translated and in_place and not torch.is_grad_enabled():
                return _normalised(x, self.weight, self.bias, self.eps, slope, result=x)[0]
            norm = _NormInTwoPasses if translated else _ActivatedNorm
            return norm.apply(x, self.weight, self.bias, self.eps, slope)
        normalised = super().forward(x)
        return normalised if slope == IDENTITY else F.leaky_relu_(normalised, slope)


class InstanceNorm2d(_LayoutKept, nn.InstanceNorm2d):
    """`torch.nn.InstanceNorm2d` that keeps the layout."""


class InstanceNorm3d(_LayoutKept, nn.InstanceNorm3d):
    """`torch.nn.InstanceNorm3d` that keeps the layout."""


def _pays(x: Tensor) -> bool:
    """Whether torch's own would change the layout of a batch; False too while a network is traced, which sees torch's operations only."""
    if x.device.type != "cpu" or x.dim() not in (4, 5) or torch.jit.is_tracing() or torch.compiler.is_compiling():
        return False
    return not x.is_contiguous() and x.is_contiguous(memory_format=_channels_last(x)) and x[0, 0].numel() > 1


def _channels_last(x: Tensor) -> torch.memory_format:
    return torch.channels_last_3d if x.dim() == 5 else torch.channels_last
