"""DeepLabV3 with a ResNet-50 or ResNet-18 backbone (Chen et al., arXiv 1706.05587; He et al., arXiv 1512.03385), in 2D and 3D."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Unpack

from ..runtime.registry import unknown_name_error
from .blocks import Network, NetworkShape, convolution, initialise
from .layers import Residual, linear_mode, max_pool, normed_convolution
from .sizes import crop_to, pad_to_multiple

MULTI_GRID = (1, 2, 4)
"""Factors of the dilation in the blocks of the last stage."""
RATES = (6, 12, 18)
"""Dilations of the pyramid's 3x3 convolutions for output stride 16."""


class Bottleneck(Residual):
    """1x1, 3x3 and 1x1 convolution, added to the input; `channels` are those that come in and of the 3x3 one, four times as many leave."""

    expansion = 4
    """Channels that leave over those of the 3x3 convolution."""

    def __init__(self, dim: int, channels: tuple[int, int], *, stride: int, dilation: int, norm: str) -> None:
        super().__init__()
        inputs, width = channels
        outputs = self.expansion * width
        self.body = nn.Sequential(
            normed_convolution(dim, (inputs, width), 1, norm=norm),
            nn.ReLU(inplace=True),
            normed_convolution(dim, (width, width), 3, norm=norm, stride=stride, dilation=dilation),
            nn.ReLU(inplace=True),
            normed_convolution(dim, (width, outputs), 1, norm=norm),
        )
        self.skip = _skip(dim, (inputs, outputs), stride, norm)
        self.activation = nn.ReLU(inplace=True)


class BasicBlock(Residual):
    """Two 3x3 convolutions, added to the input; `channels` are those that come in and those of both convolutions."""

    expansion = 1

    def __init__(self, dim: int, channels: tuple[int, int], *, stride: int, dilation: int, norm: str) -> None:
        super().__init__()
        self.body = nn.Sequential(
            normed_convolution(dim, channels, 3, norm=norm, stride=stride, dilation=dilation),
            nn.ReLU(inplace=True),
            normed_convolution(dim, (channels[1], channels[1]), 3, norm=norm, dilation=dilation),
        )
        self.skip = _skip(dim, channels, stride, norm)
        self.activation = nn.ReLU(inplace=True)


BLOCKS: dict[str, type[Bottleneck] | type[BasicBlock]] = {"bottleneck": Bottleneck, "basic": BasicBlock}
"""Blocks of ResNet-50 and deeper ones, and of ResNet-18 and 34."""


def _skip(dim: int, channels: tuple[int, int], stride: int, norm: str) -> nn.Module:
    same = channels[0] == channels[1] and stride == 1
    return nn.Identity() if same else normed_convolution(dim, channels, 1, norm=norm, stride=stride)


def backbone(
    dim: int,
    in_channels: int,
    *,
    width: int,
    blocks: Sequence[int],
    output_stride: int,
    norm: str,
    kind: type[Bottleneck] | type[BasicBlock] = Bottleneck,
) -> nn.Sequential:
    """ResNet whose last stages keep the resolution and widen their convolutions instead.

    In 2D with three channels and width 64 it has the parameters of the ResNet without its classifier: 23,508,032 of ResNet-50 (bottlenecks
    3, 4, 6, 3), 11,176,512 of ResNet-18 (basic blocks 2, 2, 2, 2).
    ``(B, C, *spatial)`` to ``(B, 8 * kind.expansion * width, *ceil(spatial / output_stride))``.
    """
    stem = normed_convolution(dim, (in_channels, width), 7, norm=norm, stride=2)
    parts: list[nn.Module] = [stem, nn.ReLU(inplace=True), max_pool(dim, 3, stride=2, padding=1)]
    inputs, reached, dilation = width, 4, 1
    for stage, n in enumerate(blocks):
        stride = 2 if stage > 0 and reached < output_stride else 1
        if stage > 0 and stride == 1:
            dilation *= 2
        reached *= stride
        here = width * 2**stage
        for block in range(n):
            factor = MULTI_GRID[block % len(MULTI_GRID)] if stage == len(blocks) - 1 else 1
            step = stride if block == 0 else 1
            parts.append(kind(dim, (inputs, here), stride=step, dilation=dilation * factor, norm=norm))
            inputs = kind.expansion * here
    return nn.Sequential(*parts)


class AtrousPyramid(nn.Module):
    """A 1x1 convolution, dilated 3x3 ones and the image's mean side by side, joined by a 1x1 convolution (ASPP).

    The branch of the image's mean has one value per channel and image. Batch norm over those of a small batch would keep little more than
    their signs (for a batch of two: exactly that), and nothing for a batch of one; so this branch, unlike the paper's, is not normalised.
    """

    def __init__(self, dim: int, channels: tuple[int, int], rates: Sequence[int], *, norm: str) -> None:
        super().__init__()
        branches = [normed_convolution(dim, channels, 1, norm=norm)]
        branches += [normed_convolution(dim, channels, 3, norm=norm, dilation=rate) for rate in rates]
        self.branches = nn.ModuleList(branches)
        self.image = convolution(dim)(*channels, 1)
        joined = channels[1] * (len(branches) + 1)
        self.join = nn.Sequential(normed_convolution(dim, (joined, channels[1]), 1, norm=norm), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *spatial)`` to ``(B, C', *spatial)``."""
        mean = self.image(x.mean(dim=tuple(range(2, x.dim())), keepdim=True))
        maps = [*(branch(x) for branch in self.branches), mean.expand(-1, -1, *x.shape[2:])]
        return self.join(F.relu(torch.cat(maps, dim=1)))


class DeepLabV3(Network):
    """Dilated ResNet-50 (or 18), atrous spatial pyramid pooling, 1x1 head, linear upsampling.

    Strided 3x3 convolutions sample voxels 0, s, 2s ...; sizes of one more than a multiple of the output stride, as the paper's crops of
    513, therefore begin and end on a sample, and interpolation between corners puts the logits exactly where they belong. Other sizes are
    padded to such one.

    In 2D with one input channel and two classes: 39,037,122 parameters. In 3D: 90,001,986.

    Args:
        output_stride: 16 or 8: voxels of the input per voxel of the feature map; 8 is finer and doubles the pyramid's dilations.
        width: Channels of the stem; the backbone ends with 32 times as many, with basic blocks 8 times.
        blocks: Number of them in the backbone's four stages.
        block: ``bottleneck``, or ``basic``; ResNet-18 (Fang & Yan 2020) has ``blocks=[2, 2, 2, 2]`` of these.
        pyramid_channels: Channels of each branch of the pyramid, and of `features`.
        norm: ``batch`` (the paper's) or ``instance``, see `layers.NORMS`.

    Raises:
        ValueError: `dim`, `output_stride` or `norm` is none of these, or there are not four stages.
    """

    def __init__(
        self,
        *,
        output_stride: int = 16,
        width: int = 64,
        blocks: Sequence[int] = (3, 4, 6, 3),
        block: str = "bottleneck",
        pyramid_channels: int = 256,
        norm: str = "batch",
        **shape: Unpack[NetworkShape],
    ) -> None:
        super().__init__(**shape)
        dim, in_channels, out_channels = self.dim, self.in_channels, self.out_channels
        if output_stride not in (8, 16):
            raise ValueError(f"DeepLabV3: expected output_stride 8 or 16, got {output_stride}")
        if len(blocks) != 4:
            raise ValueError(f"DeepLabV3: expected the number of blocks of four stages, got {list(blocks)}")
        if block not in BLOCKS:
            raise unknown_name_error("block", block, BLOCKS)
        self.output_stride, kind = output_stride, BLOCKS[block]
        self.backbone = backbone(dim, in_channels, width=width, blocks=blocks, output_stride=output_stride, norm=norm, kind=kind)
        rates = [rate * 16 // output_stride for rate in RATES]
        self.pyramid = AtrousPyramid(dim, (8 * kind.expansion * width, pyramid_channels), rates, norm=norm)
        self.head = convolution(dim)(pyramid_channels, out_channels, 1)
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(B, out_channels, *spatial)`` of a batch ``(B, C, *spatial)`` of any size.

        The head comes before the upsampling: as both are linear and the interpolation's weights add up to one, this is
        ``head(features(x))`` up to rounding, in a fraction of the memory.
        """
        return self._enlarge(self.head(self._small(x)), x.shape[2:])

    def features(self, x: Tensor) -> Tensor:
        """The last feature maps before the logits, upsampled: ``(B, pyramid_channels, *spatial)``, for ensembles that fuse layers."""
        return self._enlarge(self._small(x), x.shape[2:])

    def _small(self, x: Tensor) -> Tensor:
        return self.pyramid(self.backbone(pad_to_multiple(x, (self.output_stride,) * self.dim, remainder=1)))

    def _enlarge(self, x: Tensor, size: Sequence[int]) -> Tensor:
        whole = [(n - 1) * self.output_stride + 1 for n in x.shape[2:]]
        return crop_to(F.interpolate(x, size=whole, mode=linear_mode(self.dim), align_corners=True), size)
