"""Convolutions that are safe in mixed precision on processors.

In torch 2.13 the bf16 weight gradient of a wide convolution over a few dozen voxels now and then holds NaN on processors (oneDNN; about one
backward pass in ten at 320 channels and 2x4x4 voxels). The deepest stages of a U-Net are such convolutions. They are computed in fp32
here: they are the smallest part of the work.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SMALL = 256
"""Voxels of an input, per channel, up to which a processor computes in fp32 under autocast."""


class _SmallInFp32:
    """Mixed into a convolution class, before it."""

    def forward(self, x: Tensor) -> Tensor:
        """As the convolution; small inputs on a processor leave autocast."""
        if x.device.type != "cpu" or x[0, 0].numel() > SMALL or not torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())


class Conv2d(_SmallInFp32, nn.Conv2d):
    """`torch.nn.Conv2d`, safe in mixed precision."""


class Conv3d(_SmallInFp32, nn.Conv3d):
    """`torch.nn.Conv3d`, safe in mixed precision."""


class ConvTranspose2d(_SmallInFp32, nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d`, safe in mixed precision."""


class ConvTranspose3d(_SmallInFp32, nn.ConvTranspose3d):
    """`torch.nn.ConvTranspose3d`, safe in mixed precision."""
