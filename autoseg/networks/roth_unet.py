"""The 3D U-Net that Roth et al. cascade from coarse to fine (Computerized Medical Imaging and Graphics 66, 2018).

It is the network of Cicek et al. (arXiv 1606.06650): channels double before each pooling, up-convolutions keep them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Unpack

from .blocks import NetworkShape, PointwiseHeadNetwork, convolution, initialise, transposed_convolution
from .layers import max_pool, normed_convolution
from .sizes import crop_to

LEVELS = 4
DIVISOR = 2 ** (LEVELS - 1)
MARGIN = 44
"""Voxels that valid convolutions take away at each side of the input."""
VALID_PATCH = (28, 44, 44)
"""Voxels z, y, x that the paper's valid convolutions give at once: of 116x132x132, what 12 GB of a GPU held."""
VALID_REMAINDER = 4
"""Of the sizes, divided by 8, for which every pooling of the valid form meets an even map."""


class RothUNet(PointwiseHeadNetwork):
    """3D U-Net with 32, 64 | 64, 128 | 128, 256 | 256, 512 channels, 2x2x2 max pooling and up-convolutions, batch norm, ReLU.

    In 3D with one input channel: 19,065,696 weights of convolutions without the head, 19,070,498 parameters with two classes. (Cicek et al.
    count 19,069,955 with three channels and classes; the scale and shift of this batch norm are one number per channel more than theirs.)

    With `valid` no convolution pads, as in the paper: 132x132x116 voxels give 44x44x28. With `surrounded`, as the pipeline builds it where
    the trainer can (`surroundings`), `forward` takes the patch with its real surroundings and gives that bare, smaller map. Without, the
    logits must have the input's size; so `forward` repeats the border voxels outwards (44 voxels a side, more at the end where the size
    needs it) until the valid output covers the input, and crops it to that: inside a cascade or a fusion of networks.

    Args:
        width: Channels of the first convolution; all others are multiples of it.
        valid: Convolutions without padding.
        surrounded: With `valid`: the input is the patch and `MARGIN` voxels around it.
        norm: ``batch`` (the paper's) or ``instance``, see `layers.NORMS`.
    """

    def __init__(
        self, *, width: int = 32, valid: bool = False, surrounded: bool = False, norm: str = "batch", **shape: Unpack[NetworkShape]
    ) -> None:
        super().__init__(**shape)
        if surrounded and not valid:
            raise ValueError("RothUNet: expected valid=True with surrounded=True, as padded convolutions need no surroundings")
        dim, in_channels, out_channels = self.dim, self.in_channels, self.out_channels
        self.valid, self.surrounded, self.multiples = valid, surrounded, (DIVISOR,) * dim
        widths = [width * 2**level for level in range(LEVELS)]
        inputs = (in_channels, *(2 * one for one in widths[:-1]))
        self.encoder = nn.ModuleList(self._stage((below, here, 2 * here), norm=norm) for below, here in zip(inputs, widths, strict=True))
        self.pool = max_pool(dim, 2)
        self.ups, self.decoder = nn.ModuleList(), nn.ModuleList()
        for here in reversed(widths[1:]):  # `here` channels come from the skip, twice as many from below
            self.ups.append(transposed_convolution(dim)(2 * here, 2 * here, 2, 2, bias=False))
            self.decoder.append(self._stage((3 * here, here, here), norm=norm))
        self.head = convolution(dim)(2 * width, out_channels, 1)
        self.apply(initialise)

    @staticmethod
    def surroundings(dim: int, *, valid: bool = False, **_: object) -> tuple[tuple[int, ...], ...] | None:
        """Of valid convolutions the voxels around a patch at each side, the paper's patch, and the steps in which that may be cut."""
        return ((MARGIN,) * dim, VALID_PATCH[-dim:], (DIVISOR,) * dim) if valid else None

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the input's size; with `surrounded` of its inner voxels, see `valid_forward`."""
        return self.valid_forward(x) if self.surrounded else super().forward(x)

    def features(self, x: Tensor) -> Tensor:
        """The last feature maps before the logits, ``(B, 2 * width, *spatial)``."""
        return crop_to(self.padded_features(_surround(x)), x.shape[2:]) if self.valid else super().features(x)

    def valid_forward(self, x: Tensor) -> Tensor:
        """Logits of the inner voxels alone, ``(B, out_channels, *(spatial - 88))``: 44 fewer at each side.

        Sizes are at least 92 and leave 4 when divided by 8, e.g. 132x132x116.

        Raises:
            ValueError: The network was not built with ``valid=True``, or the size does not fit.
        """
        if not self.valid:
            raise ValueError("RothUNet: valid_forward expected a network built with valid=True, got one with padded convolutions")
        sizes = tuple(x.shape[2:])
        if any(size % DIVISOR != VALID_REMAINDER or size <= 2 * MARGIN for size in sizes):
            raise ValueError(f"RothUNet: expected sizes 92, 100, 108 ... along each axis for valid convolutions, got {sizes}")
        return self.head(self.padded_features(x))

    def _stage(self, channels: Sequence[int], *, norm: str) -> nn.Sequential:
        parts: list[nn.Module] = []
        for pair in zip(channels[:-1], channels[1:], strict=True):
            parts += [normed_convolution(self.dim, pair, 3, norm=norm, padding=0 if self.valid else 1), nn.ReLU(inplace=True)]
        return nn.Sequential(*parts)

    def padded_features(self, x: Tensor) -> Tensor:
        """``(B, C, *spatial)`` to ``(B, 2 * width, *spatial)``, with valid convolutions 44 voxels fewer at each side."""
        skips = []
        for level, stage in enumerate(self.encoder):
            x = stage(x if level == 0 else self.pool(x))
            skips.append(x)
        skips.pop()
        for up, stage in zip(self.ups, self.decoder, strict=True):
            x = up(x)
            x = stage(torch.cat((_centre(skips.pop(), x.shape[2:]), x), dim=1))
        return x


def _surround(x: Tensor) -> Tensor:
    """Repeats border voxels so that valid convolutions give at least the size of `x`, from its first voxel on."""
    padding: list[int] = []
    for size in reversed(x.shape[2:]):
        padding += [MARGIN, MARGIN + (VALID_REMAINDER - size) % DIVISOR]
    return F.pad(x, padding, mode="replicate")


def _centre(x: Tensor, size: Sequence[int]) -> Tensor:
    """The middle of a map; the map itself where it has that size."""
    starts = [(have - want) // 2 for have, want in zip(x.shape[2:], size, strict=True)]
    return x[(...,) + tuple(slice(start, start + want) for start, want in zip(starts, size, strict=True))]
