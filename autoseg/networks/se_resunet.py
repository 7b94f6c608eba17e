"""The SE-ResUNet: a U-Net of residual blocks with squeeze-and-excitation (Cao et al., Neurocomputing 453, 2021).

Blocks after He et al., arXiv 1512.03385 and Hu et al., arXiv 1709.01507. One of the base models of the ensembles of Crespi et al. 2023.
"""

from __future__ import annotations

from torch import Tensor, nn
from typing_extensions import Unpack

from .blocks import NetworkShape, PointwiseHeadNetwork, apply_u, convolution, initialise, transposed_convolution
from .layers import Residual, max_pool, normed_convolution

MAX_WIDTH = {2: 1024, 3: 320}
"""Channels of the coarsest levels. In 3D the paper's 1024 would be three times as many weights; 320 is what the pipeline's U-Nets have."""


class SqueezeExcitation(nn.Module):
    """Scales each channel by a number in 0..1 that depends on the means of all channels (Hu et al. 2018).

    The hidden layer has `reduction` times fewer units (at least one).
    """

    def __init__(self, dim: int, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        conv = convolution(dim)
        self.gate = nn.Sequential(conv(channels, hidden, 1), nn.ReLU(inplace=True), conv(hidden, channels, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *spatial)``, same shape."""
        return x * self.gate(x.mean(dim=tuple(range(2, x.dim())), keepdim=True))


class SEResidualBlock(Residual):
    """Two 3x3 convolutions and squeeze-and-excitation, added to the input (projected by a 1x1 convolution where channels change)."""

    def __init__(self, dim: int, channels: tuple[int, int], *, reduction: int, norm: str) -> None:
        super().__init__()
        self.body = nn.Sequential(
            normed_convolution(dim, channels, 3, norm=norm),
            nn.ReLU(inplace=True),
            normed_convolution(dim, (channels[1], channels[1]), 3, norm=norm),
            SqueezeExcitation(dim, channels[1], reduction),
        )
        self.skip = nn.Identity() if channels[0] == channels[1] else normed_convolution(dim, channels, 1, norm=norm)
        self.activation = nn.ReLU(inplace=True)


class SEResUNet(PointwiseHeadNetwork):
    """U-Net whose every level is a residual block with squeeze-and-excitation; max pooling down, up-convolutions up.

    With one input channel and two classes: 32,656,378 parameters in 2D (64, 128, 256, 512, 1024 channels), 31,573,302 in 3D, where the
    widest levels have 320.

    Args:
        width: Channels of the finest level, which are also those of `features`; they double at each level up to `MAX_WIDTH`.
        norm: ``batch`` (the paper's) or ``instance``, see `layers.NORMS`.

    Raises:
        ValueError: `dim` or `norm` is none of these, or there is less than one level.
    """

    def __init__(
        self, *, width: int = 64, levels: int = 5, reduction: int = 16, norm: str = "batch", **shape: Unpack[NetworkShape]
    ) -> None:
        super().__init__(**shape)
        dim, in_channels, out_channels = self.dim, self.in_channels, self.out_channels
        if levels < 1:
            raise ValueError(f"SEResUNet: expected levels of 1 or more, got {levels}")
        self.multiples = (2 ** (levels - 1),) * dim
        widths = [min(width * 2**level, max(width, MAX_WIDTH[dim])) for level in range(levels)]
        inputs = (in_channels, *widths[:-1])
        self.encoder = nn.ModuleList(
            SEResidualBlock(dim, pair, reduction=reduction, norm=norm) for pair in zip(inputs, widths, strict=True)
        )
        self.pool = max_pool(dim, 2)
        self.ups, self.decoder = nn.ModuleList(), nn.ModuleList()
        for here, below in zip(reversed(widths[:-1]), reversed(widths[1:]), strict=True):
            self.ups.append(transposed_convolution(dim)(below, here, 2, 2))
            self.decoder.append(SEResidualBlock(dim, (2 * here, here), reduction=reduction, norm=norm))
        self.head = convolution(dim)(width, out_channels, 1)
        self.apply(initialise)

    def padded_features(self, x: Tensor) -> Tensor:
        """``(B, C, *spatial)`` to ``(B, width, *spatial)``."""
        return apply_u(x, list(self.encoder), [self.pool] * len(self.ups), zip(self.ups, self.decoder, strict=True))
