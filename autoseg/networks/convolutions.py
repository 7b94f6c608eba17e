"""Convolutions for mixed precision on processors that avoid two faults of oneDNN.

In torch 2.13 the bf16 weight gradient of a wide convolution over a few dozen voxels now and then holds NaN on processors (oneDNN; about one
backward pass in ten at 320 channels and 2x4x4 voxels). The deepest stages of a U-Net are such convolutions. They are computed in fp32
here: they are the smallest part of the work.

The bf16 gradients of a 3D convolution that looks at one slice only (kernel 1x3x3) over slices of some 50 000 voxels write beyond their
memory on processors with matrix tiles (oneDNN, AMX), which ends the process. Such a convolution is computed as what it is, a 2D one over
all slices; in channels-last layout this is a view and costs nothing.

Gradients of a convolution with a kernel of one voxel and a stride write beyond their memory on processors with AVX2 (oneDNN; a few channels
in channels-last layout are enough). Such a convolution sees every second or third voxel by itself: they are taken out first.

In float32 some weight gradients are matrix products (`weight_gradients`), and kernels of 3 need fewer multiplications (`winograd`): faster.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from . import winograd
from .weight_gradients import OneChannelConvolution, UpConvolution
from .winograd import WinogradConvolution

SMALL = 256
"""Voxels of an input, per channel, up to which a processor computes in fp32 under autocast."""


class _SmallInFp32(nn.Module):
    """Mixin in front of a convolution class: small inputs on a processor leave autocast."""

    def forward(self, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """As that of the convolution."""
        if input.device.type != "cpu" or input[0, 0].numel() > SMALL or not torch.is_autocast_enabled("cpu"):
            return super().forward(input, *args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float(), *args, **kwargs)


class Conv2d(_SmallInFp32, nn.Conv2d):
    """`torch.nn.Conv2d`, safe in mixed precision."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if bias is not None and _learns_from_one_channel(self, x):
            return OneChannelConvolution.apply(x, weight, bias)
        if winograd.takes(self, x):
            return WinogradConvolution.apply(x, weight, bias)
        if _sees_single_voxels(self, x):
            return nn.functional.conv2d(_seen(self, x), weight, bias, groups=self.groups)
        return super()._conv_forward(x, weight, bias)


class Conv3d(_SmallInFp32, nn.Conv3d):
    """`torch.nn.Conv3d`, safe in mixed precision."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if bias is not None and _learns_from_one_channel(self, x):
            return OneChannelConvolution.apply(x, weight, bias)
        if winograd.takes(self, x):
            return WinogradConvolution.apply(x, weight, bias)
        stride = self.stride
        if _sees_single_voxels(self, x):
            x, stride = _seen(self, x), (1, 1, 1)
        single_slice = (self.kernel_size[0], stride[0]) == (1, 1) and self.padding_mode == "zeros"
        if x.device.type != "cpu" or not single_slice or isinstance(self.padding, str) or self.padding[0] != 0 or x.ndim != 5:
            return super()._conv_forward(x, weight, bias)
        slices = x.transpose(1, 2).flatten(0, 1)
        result = nn.functional.conv2d(slices, weight[:, :, 0], bias, stride[1:], self.padding[1:], self.dilation[1:], self.groups)
        return result.unflatten(0, (len(x), x.shape[2])).transpose(1, 2)


class ConvTranspose2d(_SmallInFp32, nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d`, safe in mixed precision."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """As torch's."""
        if output_size is None and _learns_to_double(self, input):
            return UpConvolution.apply(input, self.weight, self.bias)
        return super().forward(input, output_size)


class ConvTranspose3d(_SmallInFp32, nn.ConvTranspose3d):
    """`torch.nn.ConvTranspose3d`, safe in mixed precision."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """As torch's."""
        if output_size is None and _learns_to_double(self, input):
            return UpConvolution.apply(input, self.weight, self.bias)
        return super().forward(input, output_size)


def _sees_single_voxels(layer: nn.Conv2d | nn.Conv3d, x: Tensor) -> bool:
    """Whether a convolution on a processor skips voxels of a batch, and sees each other one by itself."""
    is_one = max(layer.kernel_size) == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str) and not any(layer.padding)
    return x.device.type == "cpu" and is_one and max(layer.stride) > 1 and x.dim() == layer.weight.dim()


def _seen(layer: nn.Conv2d | nn.Conv3d, x: Tensor) -> Tensor:
    """The voxels of a batch that it sees, in the same layout."""
    layout = torch.channels_last_3d if x.dim() == 5 else torch.channels_last
    every: list[Any] = [slice(None, None, step) for step in layer.stride]
    seen = x[(..., *every)]
    return seen.contiguous(memory_format=layout if x.is_contiguous(memory_format=layout) else torch.contiguous_format)


def _learns_from_one_channel(layer: nn.Conv2d | nn.Conv3d, x: Tensor) -> bool:
    """Whether the weight gradient that is to come is one of those of `OneChannelConvolution`."""
    if not _plain(layer) or layer.in_channels != 1 or max(layer.stride) > 1 or x.requires_grad:
        return False
    padding = tuple(edge // 2 for edge in layer.kernel_size)
    return layer.padding == padding and all(edge % 2 for edge in layer.kernel_size) and _learns(layer, x)


def _learns_to_double(layer: nn.ConvTranspose2d | nn.ConvTranspose3d, x: Tensor) -> bool:
    """Whether the weight gradient that is to come is one of those of `UpConvolution`."""
    if not _plain(layer) or layer.bias is None or layer.kernel_size != layer.stride:
        return False
    return not any((*layer.output_padding, *layer.padding)) and _learns(layer, x)


def _plain(layer: nn.modules.conv._ConvNd) -> bool:
    numbers = not isinstance(layer.padding, str) and layer.padding_mode == "zeros"
    return numbers and layer.groups == 1 and max(layer.dilation) == 1


def _learns(layer: nn.modules.conv._ConvNd, x: Tensor) -> bool:
    """Whether float32 weights get a gradient on a processor, outside of mixed precision, and in channels-last layout."""
    layout = torch.channels_last_3d if x.dim() == 5 else torch.channels_last
    return (
        x.device.type == "cpu"
        and x.dim() == layer.weight.dim()
        and x.dtype == layer.weight.dtype == torch.float32
        and torch.is_grad_enabled()
        and layer.weight.requires_grad
        and not torch.is_autocast_enabled("cpu")
        and x.is_contiguous(memory_format=layout)
        and layer.weight.is_contiguous(memory_format=layout)
    )
