"""The dense V-network (Gibson et al., IEEE Transactions on Medical Imaging 37, 2018)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Unpack

from .blocks import Network, NetworkShape, convolution, initialise
from .layers import average_pool, linear_mode, make_norm, normed_convolution
from .layers import dropout as drop_channels
from .sizes import crop_to, pad_to_multiple

UNITS = (5, 10, 10)
"""Convolutions of the dense stack at each of the three resolutions."""
GROWTH = (4, 8, 16)
"""Channels that each of them adds."""
SKIP = (12, 24, 24)
"""Channels of the skip convolution from each stack to the segmentation."""
WIDTH = 24
"""Channels of the first convolution and of those between the resolutions."""
DIVISOR = 2 ** len(UNITS)


class DenseStack(nn.Module):
    """Densely connected 3x3 convolutions: each takes the input and the outputs of all before it, concatenated, and adds `growth` channels.

    `dropout` is the probability with which a channel is dropped after each of the `n` convolutions but the last.
    """

    def __init__(self, dim: int, inputs: int, growth: int, n: int, *, dropout: float, norm: str) -> None:
        super().__init__()
        self.units = nn.ModuleList()
        for i in range(n):
            unit = nn.Sequential(normed_convolution(dim, (inputs + i * growth, growth), 3, norm=norm), nn.ReLU(inplace=True))
            if i < n - 1:
                unit.append(drop_channels(dim, dropout))
            self.units.append(unit)
        self.out_channels = inputs + n * growth

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *spatial)`` to ``(B, C + n * growth, *spatial)``: the input first."""
        for unit in self.units:
            x = torch.cat((x, unit(x)), dim=1)
        return x


class DenseVNet(Network):
    """Three dense feature stacks at a half, a quarter and an eighth of the resolution, whose skips are enlarged and segmented together.

    The input is halved twice over: by averaging and by a 5x5x5 convolution with stride 2. The averaged image and the skips, enlarged to
    half resolution, are concatenated; a 3x3x3 convolution gives the logits there, and linear interpolation those of the input's size.
    With one input channel and two classes: 866,978 parameters in 3D, 289,118 in 2D.

    The paper adds a learned map of 12x12x12 to the logits, a prior of where organs lie in its images, all of which are cropped to the
    same region. Patches lie anywhere, so it is off by default (`prior_size` 0). The paper drops the same channels in the whole batch,
    this network others in each image.

    Args:
        dropout: Probability of dropping a channel within the stacks while training.
        prior_size: Edge of the learned prior, enlarged to the input's size; the paper's is 12, 0 leaves it out.
        norm: ``batch`` (the paper's) or ``instance``, see `layers.NORMS`.

    Raises:
        ValueError: `dim` or `norm` is none of these, or `prior_size` is negative.
    """

    def __init__(self, *, dropout: float = 0.5, prior_size: int = 0, norm: str = "batch", **shape: Unpack[NetworkShape]) -> None:
        super().__init__(**shape)
        dim, in_channels, out_channels = self.dim, self.in_channels, self.out_channels
        if prior_size < 0:
            raise ValueError(f"DenseVNet: expected prior_size of 0 (none) or more, got {prior_size}")
        self.halve = nn.Sequential(average_pool(dim, 2), make_norm(norm, dim, in_channels))
        self.first = _unit(dim, (in_channels, WIDTH), 5, norm=norm, stride=2)
        self.stacks, self.skips, self.downs = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        inputs = in_channels + WIDTH
        for n, growth, skip in zip(UNITS, GROWTH, SKIP, strict=True):
            stack = DenseStack(dim, inputs, growth, n, dropout=dropout, norm=norm)
            self.stacks.append(stack)
            self.skips.append(_unit(dim, (stack.out_channels, skip), 3, norm=norm))
            if len(self.stacks) < len(UNITS):
                self.downs.append(_unit(dim, (stack.out_channels, WIDTH), 3, norm=norm, stride=2))
            inputs = WIDTH
        self.head = convolution(dim)(in_channels + sum(SKIP), out_channels, 3, padding=1)
        self.apply(initialise)
        self.prior = nn.Parameter(torch.zeros(1, out_channels, *(prior_size,) * dim)) if prior_size else None

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(B, out_channels, *spatial)`` of a batch ``(B, C, *spatial)`` of any size."""
        size = x.shape[2:]
        x = pad_to_multiple(x, (DIVISOR,) * self.dim)
        image = self.halve(x)
        maps, here = [image], torch.cat((image, self.first(x)), dim=1)
        for i, (stack, skip) in enumerate(zip(self.stacks, self.skips, strict=True)):
            here = stack(here)
            maps.append(self._enlarge(skip(here), image.shape[2:]))
            here = self.downs[i](here) if i < len(self.downs) else here
        logits = crop_to(self._enlarge(self.head(torch.cat(maps, dim=1)), x.shape[2:]), size)
        return logits if self.prior is None else logits + self._enlarge(self.prior, size)

    def _enlarge(self, x: Tensor, size: Sequence[int]) -> Tensor:
        return x if x.shape[2:] == size else F.interpolate(x, size=tuple(size), mode=linear_mode(self.dim), align_corners=False)


def _unit(dim: int, channels: tuple[int, int], kernel: int, *, norm: str, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(normed_convolution(dim, channels, kernel, norm=norm, stride=stride), nn.ReLU(inplace=True))
