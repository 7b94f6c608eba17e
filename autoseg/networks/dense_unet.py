"""The 2D DenseUNet of H-DenseUNet: DenseNet encoder, narrow decoder, additive skip connections.

Li et al., IEEE Transactions on Medical Imaging 37 (2018); Huang et al., CVPR 2017.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Unpack

from .blocks import Network, NetworkShape, convolution, initialise
from .layers import average_pool, linear_mode, make_norm, max_pool
from .sizes import crop_to, pad_to_multiple

BOTTLENECK = 4
"""A dense layer's 1x1 convolution makes so many times the growth rate (the B of DenseNet-BC)."""


class DenseLayer(nn.Module):
    """Appends `growth` channels to its input: normalisation, ReLU, 1x1 convolution, and the same with kernel 3; then dropout."""

    def __init__(self, dim: int, source: int, growth: int, *, norm: str, dropout: float) -> None:
        super().__init__()
        conv, inner = convolution(dim), BOTTLENECK * growth
        self.new = nn.Sequential(
            *(make_norm(norm, dim, source), nn.ReLU(inplace=True), conv(source, inner, 1, bias=False)),
            *(make_norm(norm, dim, inner), nn.ReLU(inplace=True), conv(inner, growth, 3, padding=1, bias=False)),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *spatial)`` to ``(B, C + growth, *spatial)``."""
        return torch.cat((x, self.new(x)), dim=1)


class DenseEncoder(nn.Module):
    """DenseNet (Huang et al., CVPR 2017) without its classifier.

    With three channels and the defaults of `DenseUNet` 26,472,000 parameters in 2D, as DenseNet-161 has.

    Attributes:
        widths: Channels of what `forward` returns, finest first.
    """

    def __init__(
        self, dim: int, in_channels: int, stem: int, *, growth: int, layers: Sequence[int], compression: float, norm: str, dropout: float
    ) -> None:
        super().__init__()
        conv, self.widths = convolution(dim), [stem]
        first = conv(in_channels, stem, 7, stride=2, padding=3, bias=False)
        self.stem = nn.Sequential(first, make_norm(norm, dim, stem), nn.ReLU(inplace=True))
        self.transitions = nn.ModuleList([max_pool(dim, 3, stride=2, padding=1)])
        self.blocks, width = nn.ModuleList(), stem
        for n in layers:
            if len(self.widths) > 1:
                squeezed = int(width * compression)
                squeeze = [make_norm(norm, dim, width), nn.ReLU(inplace=True), conv(width, squeezed, 1, bias=False)]
                self.transitions.append(nn.Sequential(*squeeze, average_pool(dim, 2)))
                width = squeezed
            self.blocks.append(nn.Sequential(*(DenseLayer(dim, width + i * growth, growth, norm=norm, dropout=dropout) for i in range(n))))
            width += n * growth
            self.widths.append(width)
        self.last = nn.Sequential(make_norm(norm, dim, width), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> list[Tensor]:
        """``(B, C, *spatial)`` to the outputs of the stem and of every block, at 1/2, 1/4, 1/8 ... of the size."""
        maps = [self.stem(x)]
        for transition, block in zip(self.transitions, self.blocks, strict=True):
            maps.append(block(transition(maps[-1])))
        return [*maps[:-1], self.last(maps[-1])]


class DenseUNet(Network):
    """DenseUNet (Li et al., IEEE TMI 2018), compared with in Fang and Yan (IEEE TMI 2020).

    ``(B, C, *spatial)`` of any size to logits ``(B, K, *spatial)``. DenseNet-161 down; up by linear interpolation, the skip added, one
    convolution with kernel 3, normalisation and ReLU. A level has as many channels as the skip of the next one, so that they can be added;
    only the first skip needs a 1x1 convolution. With three channels and two classes 49,524,162 parameters in 2D.

    Fang and Yan name DenseNet-169 as the encoder: ``growth_rate=32, blocks=(6, 12, 32, 32), stem=64``.

    Args:
        growth_rate: Channels that a dense layer appends.
        blocks: Dense layers a block, at least two blocks.
        stem: Channels of the first convolution.
        compression: Share of the channels that passes from block to block, over 0 up to 1.
        last_features: Channels before the final 1x1 convolution.
        dropout: Within dense layers.
        last_dropout: Before the last normalisation.
        norm: ``"batch"``, or ``"instance"``.

    Raises:
        ValueError: The options do not describe one network.
    """

    def __init__(
        self,
        *,
        growth_rate: int = 48,
        blocks: Sequence[int] = (6, 12, 36, 24),
        stem: int = 96,
        compression: float = 0.5,
        last_features: int = 64,
        dropout: float = 0.0,
        last_dropout: float = 0.3,
        norm: str = "batch",
        **shape: Unpack[NetworkShape],
    ) -> None:
        super().__init__(**shape)
        dim, in_channels, out_channels = self.dim, self.in_channels, self.out_channels
        conv = convolution(dim)
        if len(blocks) < 2 or min(blocks) < 1 or not 0 < compression <= 1:
            expected = "two blocks or more of at least one layer, and a compression over 0 up to 1"
            raise ValueError(f"DenseUNet: expected {expected}, got blocks {tuple(blocks)} and compression {compression}")
        self.multiple, self.mode = 2 ** (len(blocks) + 1), linear_mode(dim)
        self.encoder = DenseEncoder(
            dim, in_channels, stem, growth=growth_rate, layers=blocks, compression=compression, norm=norm, dropout=dropout
        )
        *skips, bottom = self.encoder.widths
        self.bridge = conv(skips[-1], bottom, 1, bias=False)
        sources = [bottom, *reversed(skips[:-1]), skips[0]]
        widths = [*sources[1:], last_features]
        drops = [0.0] * len(skips) + [last_dropout]
        self.stages = nn.ModuleList(
            nn.Sequential(
                conv(source, width, 3, padding=1, bias=False), nn.Dropout(drop), make_norm(norm, dim, width), nn.ReLU(inplace=True)
            )
            for source, width, drop in zip(sources, widths, drops, strict=True)
        )
        self.head = conv(last_features, out_channels, 1)
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(B, out_channels, *spatial)`` of a batch ``(B, C, *spatial)`` of any size; a ValueError for other channels or axes."""
        self.check_input(x)
        *skips, y = self.encoder(pad_to_multiple(x, (self.multiple,) * self.dim))
        for i, stage in enumerate(self.stages):
            y = F.interpolate(y, scale_factor=2, mode=self.mode, align_corners=False)
            if skips:
                skip = skips.pop()
                y = y + (self.bridge(skip) if i == 0 else skip)
            y = stage(y)
        return crop_to(self.head(y), x.shape[2:])
