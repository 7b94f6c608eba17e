"""Normalisation, pooling and dropout for 2 or 3 spatial axes; plain convolutions are in `blocks`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime.registry import unknown_name_error
from . import normalisation
from .blocks import convolution


class _AnyBatch(nn.modules.batchnorm._BatchNorm):
    """Mixin in front of a batch normalisation class that accepts any batch.

    With one value per channel (batch of one, map of one voxel) the deviation is zero and torch refuses to train. Such a batch is normalised
    by the running statistics, as in evaluation, and does not enter them.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *spatial)``, same shape."""
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(x)


class BatchNorm2d(_AnyBatch, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` for any batch."""


class BatchNorm3d(_AnyBatch, nn.BatchNorm3d):
    """`torch.nn.BatchNorm3d` for any batch."""


class _AnySize(nn.modules.instancenorm._InstanceNorm):
    """Mixin in front of an instance normalisation class that accepts any size.

    Of a single voxel nothing would be left but the shift, and torch refuses to train; it is scaled and shifted without being normalised,
    in training and in evaluation alike.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *spatial)``, same shape."""
        if x[0, 0].numel() > 1:
            return super().forward(x)
        shape = (1, -1) + (1,) * (x.dim() - 2)
        return x * self.weight.view(shape) + self.bias.view(shape)


class InstanceNorm2d(_AnySize, normalisation.InstanceNorm2d):
    """`torch.nn.InstanceNorm2d` for any size."""


class InstanceNorm3d(_AnySize, normalisation.InstanceNorm3d):
    """`torch.nn.InstanceNorm3d` for any size."""


class Residual(nn.Module):
    """Residual branch `body`, added to `skip` of the input, and an activation."""

    body: nn.Sequential
    skip: nn.Module
    activation: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *spatial)`` to ``(B, C', *ceil(spatial / stride))``."""
        return self.activation(self.body(x) + self.skip(x))


def batch_norm(dim: int, channels: int) -> nn.Module:
    """Batch normalisation with learned scale and shift (Ioffe and Szegedy, ICML 2015); a batch of one voxel is no error."""
    return (BatchNorm3d if dim == 3 else BatchNorm2d)(channels)


def instance_norm(dim: int, channels: int) -> nn.Module:
    """Instance normalisation with learned scale and shift (Ulyanov et al., arXiv 1607.08022); a map of one voxel is no error."""
    return (InstanceNorm3d if dim == 3 else InstanceNorm2d)(channels, affine=True)


def no_norm(dim: int, channels: int) -> nn.Module:
    """The identity, for networks that were published without normalisation."""
    return nn.Identity()


NORMS = {"batch": batch_norm, "instance": instance_norm, "none": no_norm}
"""Name -> normalisation, for the option ``norm`` of a network.

Batch norm is what many papers used; with the batches of one to four patches of 3D training its statistics are noisy, and a short training
ends before the running ones (which evaluation uses) have settled. Instance norm has neither trouble.
"""


def make_norm(name: str, dim: int, channels: int) -> nn.Module:
    """The normalisation called `name`; a ValueError lists `NORMS` where it is none of them."""
    if name not in NORMS:
        raise unknown_name_error("norm", name, NORMS)
    return NORMS[name](dim, channels)


def normed_convolution(
    dim: int, channels: tuple[int, int], kernel: int, *, norm: str, stride: int = 1, dilation: int = 1, padding: int | None = None
) -> nn.Sequential:
    """Convolution and normalisation; the convolution has a bias only where no normalisation would take it out again.

    By default an odd kernel keeps the size (``ceil(size / stride)``); `padding` says otherwise.
    """
    around = dilation * (kernel - 1) // 2 if padding is None else padding
    conv = convolution(dim)(*channels, kernel, stride, around, dilation, bias=norm == "none")
    return nn.Sequential(conv, make_norm(norm, dim, channels[1]))


def max_pool(dim: int, size: int | Sequence[int], *, stride: int | None = None, padding: int = 0) -> nn.Module:
    """Max pooling over blocks of `size` voxels (one number, or one an axis), which do not overlap where `stride` is None."""
    pool: Callable[..., nn.Module] = nn.MaxPool3d if dim == 3 else nn.MaxPool2d
    return pool(size if isinstance(size, int) else tuple(size), stride, padding)


def average_pool(dim: int, size: int | Sequence[int]) -> nn.Module:
    """Average pooling over blocks of `size` voxels (one number, or one an axis) that do not overlap."""
    pool: Callable[..., nn.Module] = nn.AvgPool3d if dim == 3 else nn.AvgPool2d
    return pool(size if isinstance(size, int) else tuple(size))


def dropout(dim: int, probability: float) -> nn.Module:
    """Dropout of whole channels (Tompson et al., CVPR 2015); ``nn.Dropout`` drops single values."""
    return (nn.Dropout3d if dim == 3 else nn.Dropout2d)(probability)


def linear_mode(dim: int) -> str:
    """``mode`` of `torch.nn.functional.interpolate` for linear interpolation: bilinear or trilinear."""
    return "trilinear" if dim == 3 else "bilinear"
