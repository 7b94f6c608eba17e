"""The V-Net (Milletari, Navab and Ahmadi, 3DV 2016, arXiv 1606.04797)."""

from __future__ import annotations

from torch import Tensor, nn
from typing_extensions import Unpack

from .blocks import NetworkShape, PointwiseHeadNetwork, apply_u, convolution, initialise, transposed_convolution
from .layers import Residual, make_norm, normed_convolution

CONVS = (1, 2, 3, 3, 3)
"""Convolutions a stage, finest first; the decoder has as many at each resolution. They give the receptive fields of the paper's table 1."""
KERNEL = 5


class ResidualStage(Residual):
    """5x5x5 convolutions with PReLU between; the input is added to the last one before its PReLU.

    An input of one channel is added to every channel, as the paper does with the image; one of another number of channels than the
    stage's is projected by a 1x1 convolution first.
    """

    def __init__(self, dim: int, channels: tuple[int, int], n: int, *, norm: str) -> None:
        super().__init__()
        inputs, outputs = channels
        parts: list[nn.Module] = [normed_convolution(dim, channels, KERNEL, norm=norm)]
        for _ in range(n - 1):
            parts += [nn.PReLU(outputs), normed_convolution(dim, (outputs, outputs), KERNEL, norm=norm)]
        self.body = nn.Sequential(*parts)
        self.skip = nn.Identity() if inputs in (1, outputs) else convolution(dim)(inputs, outputs, 1)
        self.activation = nn.PReLU(outputs)

    def start_as_identity(self) -> None:
        """Makes the last convolution 0, so that only what is added passes at first.

        Without normalisation every stage would double the variance, and the first losses be in the thousands (Zhang, Dauphin and Ma, ICLR
        2019, arXiv 1901.09321).
        """
        nn.init.zeros_(self.body[-1].get_parameter("0.weight"))


class VNet(PointwiseHeadNetwork):
    """Residual stages of 5x5x5 convolutions, 2x2x2 convolutions with stride 2 down and up, concatenated skips, PReLU.

    Channels 16, 32, 64, 128, 256 down; going up, half of a stage's 256, 128, 64, 32 come from below and half from the skip. With one input
    channel and two classes, and without normalisation, as in the paper: 65,175,314 parameters in 3D, 13,275,346 in 2D. That network
    diverges at learning rates at which all others learn (sums over up to 64,000 inputs), so normalisation is the default here.

    Args:
        width: Channels of the finest stage; they double at each of the others.
        norm: ``instance``, ``batch`` or ``none`` (the paper's; needs a learning rate of 1e-5 or so), see `layers.NORMS`.
    """

    def __init__(self, *, width: int = 16, norm: str = "instance", **shape: Unpack[NetworkShape]) -> None:
        super().__init__(**shape)
        dim, in_channels, out_channels = self.dim, self.in_channels, self.out_channels
        self.multiples = (2 ** (len(CONVS) - 1),) * dim
        widths = [width * 2**stage for stage in range(len(CONVS))]
        self.encoder = nn.ModuleList([ResidualStage(dim, (in_channels, width), CONVS[0], norm=norm)])
        self.downs = nn.ModuleList()
        for above, here, n in zip(widths[:-1], widths[1:], CONVS[1:], strict=True):
            down = normed_convolution(dim, (above, here), 2, norm=norm, stride=2, padding=0)
            self.downs.append(nn.Sequential(down, nn.PReLU(here)))
            self.encoder.append(ResidualStage(dim, (here, here), n, norm=norm))
        self.ups, self.decoder = nn.ModuleList(), nn.ModuleList()
        below = widths[-1]
        for here, n in zip(reversed(widths[:-1]), reversed(CONVS[:-1]), strict=True):
            up = transposed_convolution(dim)(below, here, 2, 2, bias=norm == "none")
            self.ups.append(nn.Sequential(up, make_norm(norm, dim, here), nn.PReLU(here)))
            below = 2 * here
            self.decoder.append(ResidualStage(dim, (below, below), n, norm=norm))
        self.head = convolution(dim)(2 * width, out_channels, 1)
        self.apply(initialise)
        if norm == "none":
            for stage in (*self.encoder, *self.decoder):
                stage.start_as_identity()

    def padded_features(self, x: Tensor) -> Tensor:
        """``(B, C, *spatial)`` to ``(B, 2 * width, *spatial)``."""
        return apply_u(x, list(self.encoder), self.downs, zip(self.ups, self.decoder, strict=True))
