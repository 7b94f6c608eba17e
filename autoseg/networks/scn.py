"""SpatialConfiguration-Net: local appearance combined with the spatial configuration of the organs.

Thaler, Payer, Bischof and Stern, FLARE challenge at MICCAI 2021; Payer et al., STACOM at MICCAI 2017.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Unpack

from .blocks import Network, NetworkShape
from .cubic_upsampling import upsample_cubic
from .layers import average_pool, linear_mode
from .scn_unet import ScnUNet, supports_low_memory
from .sizes import crop_to, pad_to_multiple

NOISE_SCALES = (1, 2, 4, 8)
"""Edges, in voxels, of the grains of salt and pepper."""

SMALLEST = 1e-8
"""Lower bound of a merged probability before normalisation, so that its logarithm is finite."""


class SpatialConfigurationNet(Network):
    """SpatialConfiguration-Net (Thaler et al., FLARE challenge at MICCAI 2021), for background and any number of organs.

    ``(B, C, *spatial)`` of any size to logits ``(B, K, *spatial)``, the logarithms of the merged probabilities. In 3D with one channel and
    five labels 1,270,090 parameters: 637,573 of the local network, 632,517 of the spatial ones. At 32x32x32 voxels 8,784,439,296 operations
    in convolutions; 8,797,627,020 as the paper counts, with biases and interpolation.

    The local network gives one sigmoid a label. The spatial part has one small network a label, which sees at a quarter of the resolution
    the image and the local outputs of all organs but its own, and gives another sigmoid, upsampled cubically. Where the latter is
    undecided the former counts: ``p = local * u + spatial * (1 - u)``, u the entropy of the spatial one in bits, and p is normalised over
    the labels. What the spatial networks learn does not reach the local one.

    For labels that exclude each other, background first; not for regions that overlap.

    Args:
        features: Channels of the local network.
        levels: Resolutions of the local network.
        spatial_features: Channels of the spatial networks.
        spatial_levels: Their resolutions.
        downsampling: Factor between the two, a whole number.
        dropout: After convolutions.
        local_dropout: In training, probability with which the spatial networks miss an organ.
        image_dropout: In training, probability with which they miss a channel of the image.
        salt_and_pepper: In training, share of their input from the local network that is replaced, at each of `NOISE_SCALES`.

    Attributes:
        low_memory: In evaluation, where no gradients are recorded, hold only the activations of one network at a time and overwrite the
            local outputs with the merged ones: about half the memory.

    Raises:
        ValueError: Fewer than two outputs, or options that do not describe a network.
    """

    def __init__(
        self,
        *,
        features: int = 32,
        levels: int = 5,
        spatial_features: int = 16,
        spatial_levels: int = 4,
        downsampling: int = 4,
        dropout: float = 0.1,
        local_dropout: float = 0.25,
        image_dropout: float = 0.5,
        salt_and_pepper: float = 0.01,
        **shape: Unpack[NetworkShape],
    ) -> None:
        super().__init__(**shape)
        dim, in_channels, out_channels = self.dim, self.in_channels, self.out_channels
        if out_channels < 2 or downsampling < 1:
            raise ValueError(
                f"SpatialConfigurationNet: expected 2 or more outputs and a downsampling of 1 or more, "
                f"got {out_channels} and {downsampling}"
            )
        self.downsampling = downsampling
        self.local_dropout, self.image_dropout, self.salt_and_pepper = local_dropout, image_dropout, salt_and_pepper
        self.local = ScnUNet(dim, in_channels, out_channels, features=features, levels=levels, dropout=dropout)
        organs = range(out_channels - 1)
        self.others = [[organ for organ in organs if organ + 1 != label] for label in range(out_channels)]
        small = functools.partial(ScnUNet, features=spatial_features, levels=spatial_levels, dropout=dropout)
        self.spatial = nn.ModuleList(small(dim, in_channels + len(others), 1) for others in self.others)
        self.pool = average_pool(dim, downsampling)
        self.multiples = (math.lcm(2 ** (levels - 1), downsampling * 2 ** (spatial_levels - 1)),) * dim
        self.low_memory = False

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(B, K, *spatial)`` in float32 of a batch of any size; a ValueError for other channels or axes."""
        if self.low_memory and supports_low_memory(self):
            self.check_input(x)
            return crop_to(self._low_memory(pad_to_multiple(x, self.multiples)), x.shape[2:])
        return self.parts(x)[0].log()

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The outputs of the parts for a batch ``(B, C, *spatial)``, which the three losses of the paper need.

        Returns:
            The merged probabilities, which sum to 1 over the labels, in float32; the logits of the local network's sigmoids; those of the
            spatial networks'. All ``(B, K, *spatial)``.
        """
        self.check_input(x)
        padded = pad_to_multiple(x, self.multiples)
        local = self.local(padded)
        image, organs = self._spatial_input(padded, local)
        spatial = torch.cat([net(torch.cat((image, organs[:, others]), dim=1)) for net, others in self._nets()], dim=1)
        local, spatial = (crop_to(one, x.shape[2:]) for one in (local, upsample_cubic(spatial, self.downsampling)))
        merged = merge(local, spatial)
        return merged / merged.sum(1, keepdim=True), local, spatial

    def _low_memory(self, x: Tensor) -> Tensor:
        result = self.local.forward_low_memory(x).float()
        image, organs = self._spatial_input(x, result)
        for label, (net, others) in enumerate(self._nets()):
            coarse = net.forward_low_memory(torch.cat((image, organs[:, others]), dim=1))
            result[:, label] = merge(result[:, label], upsample_cubic(coarse, self.downsampling)[:, 0])
        return result.div_(result.sum(1, keepdim=True)).log_()

    def _nets(self) -> list[tuple[ScnUNet, list[int]]]:
        """Each label's spatial network and the organs that it sees."""
        return [(net, others) for net, others in zip(self.spatial, self.others, strict=True) if isinstance(net, ScnUNet)]

    def _spatial_input(self, image: Tensor, local: Tensor) -> tuple[Tensor, Tensor]:
        """The image and the organs' sigmoids at low resolution; the latter without gradient, both with noise in training."""
        image, organs = self.pool(image), self.pool(local[:, 1:].detach().sigmoid())
        if not self.training:
            return image, organs
        drop = F.dropout3d if image.dim() == 5 else F.dropout2d
        return drop(image, self.image_dropout), drop(salt_and_pepper(organs, self.salt_and_pepper), self.local_dropout)


def entropy_in_bits(logits: Tensor) -> Tensor:
    """Entropy of ``sigmoid(logits)``, 0 to 1, exact also where the sigmoid rounds to 0 or 1."""
    distance = logits.abs()
    return (F.softplus(-distance) + distance * torch.sigmoid(-distance)) / math.log(2)


def merge(local: Tensor, spatial: Tensor) -> Tensor:
    """Merges the sigmoids of local and spatial logits, weighted by the entropy of the spatial one; float32, not normalised."""
    local, spatial = local.float(), spatial.float()
    return torch.lerp(spatial.sigmoid(), local.sigmoid(), entropy_in_bits(spatial)).clamp(min=SMALLEST)


def salt_and_pepper(x: Tensor, share: float, scales: Sequence[int] = NOISE_SCALES) -> Tensor:
    """Adds salt-and-pepper noise: grains of ones and zeros of several sizes, the larger with soft edges; from torch's generator.

    Args:
        x: ``(B, C, *spatial)``, values 0 to 1.
        share: Of the grains at each scale, half of them ones and half of them zeros.
        scales: Edges of the grains in voxels.
    """
    if share == 0:
        return x
    mode = linear_mode(x.dim() - 2)
    for scale in scales:
        drawn = torch.rand(*x.shape[:2], *(-(-size // scale) for size in x.shape[2:]), device=x.device)
        grains = torch.cat((drawn < share / 2, drawn >= 1 - share / 2), dim=1).to(x.dtype)
        if scale > 1:
            grains = F.interpolate(grains, size=x.shape[2:], mode=mode, align_corners=False)
        pepper, salt = grains.chunk(2, dim=1)
        x = (1 - (1 - x) * (1 - salt)) * (1 - pepper)
    return x
