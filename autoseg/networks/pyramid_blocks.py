"""Encoder, decoder and adaptive fusion of PIPO-FAN (Fang and Yan, IEEE TMI 39, 2020), and their blocks.

Scale s, counted from 0, is the image halved s times, and level s of the network works at that scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Sizes, convolution
from .layers import average_pool, linear_mode, make_norm, max_pool

MOMENTUM, EPS = 0.1, 1e-5
"""As in torch's batch normalisation."""


class ScaleBatchNorm(nn.Module):
    """Batch normalisation for a block that several scales share: one affine transform, but running statistics for each scale.

    In training each scale is normalised by its own batch statistics. Running statistics that mix the scales would fit none of them, and
    evaluation would see other numbers than training did. `share` sets the scale of the next input.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, scales: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(scales, channels))
        self.register_buffer("running_var", torch.ones(scales, channels))
        self.at = 0

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *spatial)``, same shape; a batch with a single value a channel is normalised as in evaluation."""
        learns = self.training and x.numel() > x.shape[1]
        return F.batch_norm(x, self.running_mean[self.at], self.running_var[self.at], self.weight, self.bias, learns, MOMENTUM, EPS)


def share(module: nn.Module, x: Tensor, scale: int) -> Tensor:
    """Applies a block that several scales share to the input of one of them."""
    for part in module.modules():
        if isinstance(part, ScaleBatchNorm):
            part.at = scale
    return module(x)


def shared_norm(name: str, dim: int, channels: int, scales: int) -> nn.Module:
    """The normalisation called `name` (in `layers.NORMS`) inside a block that `scales` scales share."""
    return ScaleBatchNorm(channels, scales) if name == "batch" and scales > 1 else make_norm(name, dim, channels)


class ResidualBlock(nn.Module):
    """Twice normalisation, ReLU and a convolution with kernel 3 (`body`), added to a `bridge` with one 1x1 convolution, or the input.

    Pre-activation as of He et al. (ECCV 2016).
    """

    def __init__(self, body: nn.Module, bridge: nn.Module | None) -> None:
        super().__init__()
        self.body, self.bridge = body, bridge

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in, *spatial)`` to ``(B, out, *spatial)``."""
        return self.body(x) + (x if self.bridge is None else self.bridge(x))


@dataclass(frozen=True)
class Blocks:
    """Makes the blocks of one network.

    Attributes:
        residual: Pre-activated residual blocks; else convolution, normalisation, ReLU, twice.
        identity_shortcuts: No bridge where a block keeps the number of channels.
    """

    dim: int
    norm: str
    residual: bool
    identity_shortcuts: bool

    def first(self, source: int, width: int, scales: int) -> nn.Module:
        """The block for the image of `source` channels at each of `scales` scales: two convolutions, no activation before the first."""
        norms = [shared_norm(self.norm, self.dim, width, scales) for _ in range(1 if self.residual else 2)]
        if not self.residual:
            return self._plain(source, width, norms)
        return nn.Sequential(self._conv(source, width), norms[0], nn.ReLU(inplace=True), self._conv(width, width))

    def block(self, source: int, width: int) -> nn.Module:
        """Two convolutions from `source` to `width` channels."""
        if not self.residual:
            return self._plain(source, width)
        body = [*self._activated(source, self._conv(source, width)), *self._activated(width, self._conv(width, width))]
        if self.identity_shortcuts and source == width:
            return ResidualBlock(nn.Sequential(*body), None)
        return ResidualBlock(nn.Sequential(*body), nn.Sequential(*self._activated(source, convolution(self.dim)(source, width, 1))))

    def chain(self, widths: Sequence[int]) -> nn.Sequential:
        """Blocks in a row, from ``widths[0]`` channels to the last; none where there is only one width."""
        return nn.Sequential(*(self.block(source, width) for source, width in zip(widths[:-1], widths[1:], strict=True)))

    def head(self, source: int, classes: int) -> nn.Module:
        """1x1 convolution to the score map, after normalisation and ReLU where blocks are residual (pre-activation)."""
        conv = convolution(self.dim)(source, classes, 1)
        return nn.Sequential(*self._activated(source, conv)) if self.residual else conv

    def _conv(self, source: int, width: int) -> nn.Module:
        return convolution(self.dim)(source, width, 3, padding=1)

    def _activated(self, channels: int, conv: nn.Module) -> list[nn.Module]:
        return [make_norm(self.norm, self.dim, channels), nn.ReLU(inplace=True), conv]

    def _plain(self, source: int, width: int, norms: Sequence[nn.Module] = ()) -> nn.Sequential:
        layers: list[nn.Module] = []
        for channels, norm in zip((source, width), norms or [make_norm(self.norm, self.dim, width) for _ in range(2)], strict=True):
            layers += [self._conv(channels, width), norm, nn.ReLU(inplace=True)]
        return nn.Sequential(*layers)


class PyramidEncoder(nn.Module):
    """Encoder that takes an image pyramid and returns one map a level.

    Every input scale passes the same first block. With equal depth, scale s then passes s - 1 blocks of its own, so that it has gone
    through as many convolutions as the path from finer scales that it is concatenated with at level s.

    With more than one, but fewer input scales than levels, the published parameter counts contain one more chain of such blocks (for 3 of
    5: 64 to 128 to 256 channels), as the next coarser scale would have; the paper does not say what for. Here it carries the first block's
    map of the coarsest input scale one level further down, at equal depth, where it is added (there is no room to concatenate it).
    """

    def __init__(self, make: Blocks, in_channels: int, *, features: Sequence[int], strides: Sizes, scales: int, equal_depth: bool) -> None:
        super().__init__()
        levels = range(1, len(features))
        self.first = make.first(in_channels, features[0], scales)
        self.own = nn.ModuleList(make.chain(features[: s if equal_depth else 1]) for s in range(1, scales))
        self.carried = make.chain(features[:scales]) if equal_depth and 1 < scales < len(features) else None
        joined = [features[s - 1 if equal_depth else 0] if s < scales else 0 for s in levels]
        self.stages = nn.ModuleList(make.block(features[s - 1] + joined[s - 1], features[s]) for s in levels)
        self.pools = nn.ModuleList(max_pool(make.dim, strides[s]) for s in levels)
        self.image_pools = nn.ModuleList(average_pool(make.dim, strides[s]) for s in levels)

    def forward(self, image: Tensor) -> list[Tensor]:
        """``(B, C, *spatial)``, sizes that can be halved, to one map a level, finest first."""
        maps = [share(self.first, image, 0)]
        scale_map = maps[0]
        for level, (pool, image_pool, stage) in enumerate(zip(self.pools, self.image_pools, self.stages, strict=True)):
            x = pool(maps[-1])
            if level < len(self.own):
                image = image_pool(image)
                scale_map = share(self.first, image, level + 1)
                x = torch.cat((x, self.own[level](scale_map)), dim=1)
            elif level == len(self.own) and self.carried is not None:
                x = x + self.carried(image_pool(scale_map))
            maps.append(stage(x))
        return maps


class PyramidDecoder(nn.Module):
    """Decoder of linear upsampling, concatenated skips and a block a level, with score maps at several scales.

    Level s gives as many channels as level s - 1 of the encoder has. With equal depth, what level s gives passes as many more blocks, with
    the same channels, as the finer levels have.
    """

    def __init__(self, make: Blocks, classes: int, *, features: Sequence[int], scales: int, equal_depth: bool) -> None:
        super().__init__()
        bottom = len(features) - 1
        self.mode = linear_mode(make.dim)
        widths = [*(features[max(s - 1, 0)] for s in range(bottom)), features[bottom]]
        self.stages = nn.ModuleList(make.block(features[s] + widths[s + 1], widths[s]) for s in range(bottom))
        tails = [widths[s::-1] if equal_depth else widths[s : s + 1] for s in range(scales)]
        self.tails = nn.ModuleList(make.chain(tail) for tail in tails)
        self.heads = nn.ModuleList(make.head(tail[-1], classes) for tail in tails)

    def forward(self, maps: Sequence[Tensor], scales: int) -> list[Tensor]:
        """Score maps ``(B, K, *spatial / 2**s)`` of the first `scales` scales from the encoder's maps, both finest first."""
        x, scores = maps[-1], []
        for s in reversed(range(len(maps))):
            if s < len(self.stages):
                x = F.interpolate(x, size=maps[s].shape[2:], mode=self.mode, align_corners=False)
                x = self.stages[s](torch.cat((maps[s], x), dim=1))
            if s < scales:
                scores.append(self.heads[s](self.tails[s](x)))
        return scores[::-1]


class AdaptiveFusion(nn.Module):
    """Weights of the scales: a small shared network reduces each score map to one channel, whose mean plus maximum is the scale's score."""

    def __init__(self, dim: int, classes: int, *, norm: str, scales: int) -> None:
        super().__init__()
        conv = convolution(dim)
        squeeze = [shared_norm(norm, dim, classes, scales), nn.ReLU(), conv(classes, 1, 1)]
        self.shared = nn.Sequential(*squeeze, shared_norm(norm, dim, 1, scales), nn.ReLU(inplace=True), conv(1, 1, 3, padding=1))

    def forward(self, scores: Sequence[Tensor]) -> Tensor:
        """Score maps ``(B, K, *)``, of any sizes, to weights ``(B, S)`` that sum to 1 over the scales."""
        squeezed = [share(self.shared, score, scale).flatten(1) for scale, score in enumerate(scores)]
        return torch.stack([one.mean(1) + one.amax(1) for one in squeezed], dim=1).softmax(1)
