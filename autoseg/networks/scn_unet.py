"""The U-Net of both stages of Thaler et al. (FLARE challenge at MICCAI 2021): equal width at every level, no normalisation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Unpack

from .blocks import Convolution, Network, NetworkShape, convolution
from .layers import average_pool, linear_mode
from .sizes import crop_to, pad_to_multiple

SLOPE = 0.1
"""Negative slope of the leaky ReLU."""

SLICES = 4
"""Parts of the output channels in which the convolution after a concatenation is computed to save memory."""


class ConvPair(nn.Module):
    """Convolution with kernel 3, leaky ReLU, dropout; twice."""

    def __init__(self, dim: int, source: int, width: int, *, dropout: float) -> None:
        super().__init__()
        self.first = convolution(dim)(source, width, 3, padding=1)
        self.second = convolution(dim)(width, width, 3, padding=1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, source, *spatial)`` to ``(B, width, *spatial)``."""
        return self.rest(self.first(x))

    def rest(self, x: Tensor) -> Tensor:
        """Applies what follows the first convolution; overwrites its input."""
        x = self.dropout(F.leaky_relu_(x, SLOPE))
        return self.dropout(F.leaky_relu_(self.second(x), SLOPE))


class ScnUNet(nn.Module):
    """U-Net with a pair of convolutions at every level, average pooling down, linear upsampling and concatenation up, and a 1x1 head.

    All levels have `features` channels. The lowest expanding pair takes what the lowest contracting pair gives. Sizes must be multiples of
    ``2 ** (levels - 1)``.
    """

    def __init__(self, dim: int, in_channels: int, out_channels: int, *, features: int, levels: int, dropout: float) -> None:
        super().__init__()
        if levels < 1 or features < 1:
            raise ValueError(f"network: expected 1 or more levels and features, got {levels} and {features}")
        self.contracting = nn.ModuleList(ConvPair(dim, features if i else in_channels, features, dropout=dropout) for i in range(levels))
        twice = [2 * features] * (levels - 1) + [features]
        self.expanding = nn.ModuleList(ConvPair(dim, source, features, dropout=dropout) for source in twice)
        self.head = convolution(dim)(features, out_channels, 1)
        self.pool, self.mode = average_pool(dim, 2), linear_mode(dim)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *spatial)`` to ``(B, out, *spatial)``."""
        maps = self._contract(x)
        lowest, *pairs = self._expanding_pairs()
        x = lowest(maps.pop())
        for pair in pairs:
            x = pair(torch.cat((maps.pop(), self._up(x)), dim=1))
        return self.head(x)

    def forward_low_memory(self, x: Tensor) -> Tensor:
        """Computes what `forward` does, for inference only, in little more than half the memory, a little slower.

        Nothing is concatenated: the convolution after it is the sum of one over the skip, whose memory is then free, and one over the
        upsampled map, of whose result a few channels are computed at a time.
        """
        maps = self._contract(x)
        lowest, *pairs = self._expanding_pairs()
        maps.append(lowest(maps.pop()))
        for pair in pairs:
            maps.append(pair.rest(self._first_of_two(pair.first, maps)))
        return self.head(maps.pop())

    def _expanding_pairs(self) -> list[ConvPair]:
        """The pairs of the expanding path, coarsest first."""
        return [pair for pair in reversed(self.expanding) if isinstance(pair, ConvPair)]

    def _contract(self, x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        for pair in self.contracting:
            maps.append(pair(self.pool(maps[-1]) if maps else x))
        return maps

    def _up(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode=self.mode, align_corners=False)

    def _first_of_two(self, conv: Convolution, maps: list[Tensor]) -> Tensor:
        """The convolution of the last two maps, a skip and the one to upsample; removes both from `maps`, which frees their memory."""
        convolve = F.conv3d if conv.weight.dim() == 5 else F.conv2d
        width = conv.weight.shape[0]
        result = convolve(maps.pop(-2), conv.weight[:, :width], conv.bias, padding=1)
        above = self._up(maps.pop())
        step = -(-width // SLICES)
        for start in range(0, width, step):
            part = slice(start, start + step)
            result[:, part] += convolve(above, conv.weight[part, width:], padding=1)
        return result


class LocalisationUNet(Network):
    """The localisation network of Thaler et al. (FLARE challenge at MICCAI 2021): organs or background in the whole, coarse volume.

    ``(B, C, *spatial)`` of any size to logits ``(B, K, *spatial)``. 637,474 parameters in 3D with one channel and two outputs, background
    and any organ. At 32x32x32 voxels 8,602,058,752 operations in convolutions; 8,613,207,612 as the paper counts, with biases and
    interpolation.

    Attributes:
        low_memory: In evaluation, where no gradients are recorded, compute in about half the memory (see `ScnUNet.forward_low_memory`).
    """

    def __init__(self, *, features: int = 32, levels: int = 5, dropout: float = 0.1, **shape: Unpack[NetworkShape]) -> None:
        super().__init__(**shape)
        self.unet = ScnUNet(self.dim, self.in_channels, self.out_channels, features=features, levels=levels, dropout=dropout)
        self.multiples = (2 ** (levels - 1),) * self.dim
        self.low_memory = False

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(B, out_channels, *spatial)`` of a batch ``(B, C, *spatial)`` of any size; a ValueError for other channels or axes."""
        self.check_input(x)
        run = self.unet.forward_low_memory if self.low_memory and supports_low_memory(self) else self.unet
        return crop_to(run(pad_to_multiple(x, self.multiples)), x.shape[2:])


def supports_low_memory(network: nn.Module) -> bool:
    """Whether intermediate maps may be overwritten: in evaluation, with gradients off."""
    return not network.training and not torch.is_grad_enabled()


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.Conv3d)):
        nn.init.kaiming_normal_(module.weight, a=SLOPE)
        nn.init.zeros_(module.get_parameter("bias"))
