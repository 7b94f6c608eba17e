"""Patch discriminator of real and predicted segmentations, for adversarial training.

Conze et al., Artificial Intelligence in Medicine 117 (2021), section 3.1; the patch-wise form is by Isola et al., CVPR 2017.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .blocks import convolution, initialise
from .layers import batch_norm

KERNEL = 4
SLOPE = 0.2
"""Of the LeakyReLU, as in Isola et al."""

HALVINGS = 3
"""Convolutions with stride 2, the first of the five; the others have stride 1, as in Isola et al."""

SMALLEST = 4
"""Voxels that an axis must keep when it is halved, where the patch size is known."""


class Discriminator(nn.Module):
    """Five convolutions with kernel 4 on image and mask; the first is followed by LeakyReLU, the next three by batch norm and LeakyReLU.

    The paper's result is a map of probabilities from 0 (made by a network) to 1 (real), this one's their logits: the sigmoid belongs into
    ``binary_cross_entropy_with_logits``, which does not overflow. 2,764,609 parameters in 2D with one channel and one mask.

    Each convolution pads one voxel before and two behind, which makes the size ``ceil(size / stride)``: no axis vanishes, however short.

    Args:
        n_maps: Channels of the mask: `Labels.n_outputs` for the output of a network of this project.
        features: Channels after the first convolution; they double up to eight times that.
        patch_size: Voxels an axis of its input. An axis is then halved only as long as four voxels remain (a flat patch of
            10x64x64 gives 5x8x8 logits, not 2x8x8). Where None, every axis is halved three times.

    Raises:
        ValueError: `dim` is neither 2 nor 3, or the patch size has another number of axes.
    """

    def __init__(self, *, dim: int, in_channels: int, n_maps: int, features: int = 64, patch_size: Sequence[int] | None = None) -> None:
        super().__init__()
        convolution(dim)  # raises for any other dim
        self.in_channels, self.n_maps = in_channels, n_maps
        widths = [in_channels + n_maps, *(features * factor for factor in (1, 2, 4, 8)), 1]
        strides = halvings(dim, patch_size)
        last = len(strides) - 1
        pad: Callable[..., nn.Module] = nn.ZeroPad3d if dim == 3 else nn.ZeroPad2d
        layers: list[nn.Module] = []
        for i, stride in enumerate(strides):
            normed = 0 < i < last
            layers.append(pad((1, 2) * dim))
            layers.append(convolution(dim)(widths[i], widths[i + 1], KERNEL, stride, bias=not normed))
            layers += [batch_norm(dim, widths[i + 1])] if normed else []
            layers += [nn.LeakyReLU(SLOPE, inplace=True)] if i < last else []
        self.layers = nn.Sequential(*layers)
        self.apply(initialise)

    def forward(self, image: Tensor, maps: Tensor) -> Tensor:
        """Logits of being real, one per patch: ``(B, 1, *ceil(spatial / strides))``.

        `maps` are one-hot labels, or predicted probabilities; a ValueError for other channels, or different sizes.
        """
        channels = (image.shape[1], maps.shape[1])
        if channels != (self.in_channels, self.n_maps) or image.shape[2:] != maps.shape[2:]:
            expected = f"(B, {self.in_channels}, *spatial) and (B, {self.n_maps}, *spatial)"
            raise ValueError(f"discriminator: expected image and maps {expected}, got {tuple(image.shape)} and {tuple(maps.shape)}")
        return self.layers(torch.cat((image, maps.to(image.dtype)), dim=1))


def halvings(dim: int, patch_size: Sequence[int] | None) -> list[tuple[int, ...]]:
    """Strides of the five convolutions, see `Discriminator`; a patch size that has not `dim` axes is a ValueError."""
    if patch_size is None:
        return [(2,) * dim] * HALVINGS + [(1,) * dim] * 2
    if len(patch_size) != dim:
        raise ValueError(f"discriminator: expected a patch size of {dim} numbers, got {tuple(patch_size)}")
    size, strides = list(patch_size), []
    for _ in range(HALVINGS):
        stride = tuple(2 if -(-n // 2) >= SMALLEST else 1 for n in size)
        size = [-(-n // step) for n, step in zip(size, stride, strict=True)]
        strides.append(stride)
    return [*strides, (1,) * dim, (1,) * dim]
