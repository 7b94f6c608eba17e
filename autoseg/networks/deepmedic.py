"""DeepMedic: parallel pathways at full and at a third of the resolution (Kamnitsas et al., Medical Image Analysis 36, 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Unpack

from .blocks import NetworkShape, PointwiseHeadNetwork, convolution, initialise
from .layers import average_pool, normed_convolution

FACTOR = 3
"""Between the resolutions of the pathways."""


class DeepMedic(PointwiseHeadNetwork):
    """Eight 3x3x3 convolutions at full resolution, eight on the image averaged over blocks of 3, joined by three 1x1x1 convolutions.

    Channels 30, 30, 40, 40, 40, 40, 50, 50 a pathway, then 150, 150; batch norm and PReLU after each; dropout before the last two of the
    1x1x1 convolutions. With one input channel and two classes: 657,842 parameters in 3D, 246,362 in 2D.

    What differs from the paper: there convolutions are valid, so that a segment of 25x25x25 voxels gives 9x9x9 labels, and the low
    resolution pathway sees 57x57x57 voxels around it that the other one does not. Here both see the same patch, convolutions pad with
    zeros, and every voxel of the patch gets logits: near its border they know less of the surroundings (receptive fields are 17 and 51
    voxels), for which overlapping tiles make up. Batch norm stands before each PReLU. The fully connected conditional random field
    that follows in the paper is not part of the network.

    Args:
        widths: Channels of the convolutions of each pathway.
        joint_widths: Channels of the 1x1x1 convolutions before the last.
        dropout: Probability of dropping a value before the second and each later 1x1x1 convolution while training.
        norm: ``batch`` (the paper's) or ``instance``, see `layers.NORMS`.

    Raises:
        ValueError: `dim` or `norm` is none of these, or a list of widths is empty.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int] = (30, 30, 40, 40, 40, 40, 50, 50),
        joint_widths: Sequence[int] = (150, 150),
        dropout: float = 0.5,
        norm: str = "batch",
        **shape: Unpack[NetworkShape],
    ) -> None:
        super().__init__(**shape)
        dim, in_channels, out_channels = self.dim, self.in_channels, self.out_channels
        if not widths or not joint_widths:
            raise ValueError(f"DeepMedic: expected at least one width in each list, got {list(widths)} and {list(joint_widths)}")
        self.multiples = (FACTOR,) * dim
        self.normal = _stack(dim, (in_channels, *widths), 3, norm=norm)
        self.average = average_pool(dim, FACTOR)
        self.context = _stack(dim, (in_channels, *widths), 3, norm=norm)
        self.joint = _stack(dim, (2 * widths[-1], *joint_widths), 1, norm=norm, dropout=dropout)
        self.head = convolution(dim)(joint_widths[-1], out_channels, 1)
        self.apply(initialise)

    def padded_features(self, x: Tensor) -> Tensor:
        """``(B, C, *spatial)`` to ``(B, 150, *spatial)``; while training, after dropout."""
        context = F.interpolate(self.context(self.average(x)), size=x.shape[2:], mode="nearest")
        return self.joint(torch.cat((self.normal(x), context), dim=1))


def _stack(dim: int, channels: Sequence[int], kernel: int, *, norm: str, dropout: float = 0.0) -> nn.Sequential:
    """Convolution, norm, PReLU and, where there is any, dropout, for each pair of neighbouring numbers of channels."""
    parts: list[nn.Module] = []
    for pair in zip(channels[:-1], channels[1:], strict=True):
        parts += [normed_convolution(dim, pair, kernel, norm=norm), nn.PReLU(pair[1])]
        if dropout:
            parts.append(nn.Dropout(dropout))
    return nn.Sequential(*parts)
