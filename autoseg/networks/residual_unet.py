"""The U-Net with a residual encoder (He et al., arXiv 1512.03385), as in nnU-Net's ResEnc presets (Isensee et al., arXiv 2404.09556)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from typing_extensions import Unpack

from .blocks import EncoderDecoder, UNetOptions, activation, conv_norm, conv_unit
from .layers import average_pool


class ResidualBlock(nn.Module):
    """Two convolutions whose result is added to the input; it starts as the identity, as the last norm's scale is zero.

    Where the block has a stride the skip is average-pooled, where it changes the channels it is projected by a 1x1 convolution and a norm.
    """

    def __init__(self, dim: int, channels: tuple[int, int], kernel: Sequence[int], stride: Sequence[int]) -> None:
        super().__init__()
        self.first = conv_unit(dim, channels, kernel, stride)
        self.second = conv_norm(dim, (channels[1], channels[1]), kernel)
        self.skip = _skip(dim, channels, tuple(stride))
        self.activation = activation()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, C, *spatial)`` to ``(B, C', *ceil(spatial / stride))``."""
        return self.activation(self.second(self.first(x)) + self.skip(x))

    def start_as_identity(self) -> None:
        """Zeroes scale and shift of the last norm (Goyal et al., arXiv 1706.02677, section 5.1)."""
        for parameter in self.second[1].parameters():
            nn.init.zeros_(parameter)


def _skip(dim: int, channels: tuple[int, int], stride: tuple[int, ...]) -> nn.Module:
    parts: list[nn.Module] = []
    if any(step != 1 for step in stride):
        parts.append(average_pool(dim, stride))
    if channels[0] != channels[1]:
        parts.append(conv_norm(dim, channels, (1,) * dim))
    return nn.Sequential(*parts)


class ResidualUNet(EncoderDecoder):
    """A convolution as stem, stages of residual blocks, and a light decoder.

    Args:
        blocks_per_stage: Residual blocks a stage of the encoder.
    """

    def __init__(self, *, blocks_per_stage: Sequence[int], **options: Unpack[UNetOptions]) -> None:
        super().__init__(_residual_stage, ("blocks_per_stage", blocks_per_stage), stem=True, **options)
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                module.start_as_identity()


def _residual_stage(dim: int, channels: tuple[int, int], n: int, kernel: Sequence[int], stride: Sequence[int]) -> nn.Sequential:
    first = ResidualBlock(dim, channels, kernel, stride)
    return nn.Sequential(first, *(ResidualBlock(dim, (channels[1], channels[1]), kernel, (1,) * dim) for _ in range(n - 1)))
