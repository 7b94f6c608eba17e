"""Cascades of two networks trained end to end: the second sees the image and the output of the first (auto-context).

Conze et al., Artificial Intelligence in Medicine 117 (2021), section 3.3; auto-context is by Tu and Bai, IEEE TPAMI 32 (2010).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from . import build_network
from .blocks import NetworkShape
from .vgg_unet import repeat_channels

EPSILON = 1e-5
"""Added to the variance of a map before the division by its root."""


class AutoContext(nn.Module):
    """Two networks in series: the second takes the first one's normalised maps, concatenated with the image, and gives the logits.

    Gradients of the loss on the result run through both.

    Args:
        first: Gives one map per output class, without sigmoid or softmax.
        second: Takes those maps and the image. Where it has an attribute ``input_channels`` and wants more channels than maps and image
            have, the image is repeated: ``[map, image, image]`` for one map, one channel and a VGG encoder, as in the paper.
    """

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """``(B, C, *spatial)`` to what the second network returns."""
        maps = self.first(x)
        maps = maps if isinstance(maps, Tensor) else maps[0]
        wanted = max(getattr(self.second, "input_channels", 0) - maps.shape[1], x.shape[1])
        return self.second(torch.cat((normalised(maps), repeat_channels(x, wanted)), dim=1))


def normalised(maps: Tensor) -> Tensor:
    """Each map of each sample with zero mean and unit variance over its voxels, like the images that it is stacked with; in fp32.

    The paper says that the maps are normalised, not how.
    """
    axes, maps = tuple(range(2, maps.dim())), maps.float()
    centred = maps - maps.mean(axes, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(axes, keepdim=True) + EPSILON)


def cascaded(
    *,
    first: str = "vgg16_unet",
    second: str | None = None,
    first_options: Mapping[str, Any] | None = None,
    second_options: Mapping[str, Any] | None = None,
    pretrained: str | None = None,
    **shape: Unpack[NetworkShape],
) -> AutoContext:
    """End-to-end cascade of any two networks (Conze et al., Artificial Intelligence in Medicine, 2021: ``UNet1-1``, ``v16pUNet1-1`` ...).

    The first network gives the second as many maps as there are classes; with deep supervision only the second returns several logits.

    Args:
        first: Name of a network, or ``module:factory``.
        second: The same of the second network; None for another one like the first.
        first_options: Options of the first network.
        second_options: Options of the second; where None, those of the first if `second` is None too, else none.
        pretrained: This option for both networks, if their options do not have it: ``"imagenet"``, or the path of a file.

    Raises:
        ValueError: A name is unknown, or a network refuses its options.
    """
    shared = {} if pretrained is None else {"pretrained": pretrained}
    if second_options is None:
        second_options = first_options if second is None else None
    first_shape: NetworkShape = {**shape, "deep_supervision": False}
    second_shape: NetworkShape = {**shape, "in_channels": shape["out_channels"] + shape["in_channels"]}
    return AutoContext(
        build_network(first, **first_shape, **shared | dict(first_options or {})),
        build_network(second or first, **second_shape, **shared | dict(second_options or {})),
    )


def unet_cascade(**options: Any) -> AutoContext:
    """Two plain U-Nets in series (``UNet1-1`` of Conze et al., 2021; Yan et al., EMBC 2019).

    10,275,426 parameters in 2D with one channel in and out. All options but the channels are for both networks, see `vgg_unet.conze_unet`.
    """
    return _twice("conze_unet", **options)


def vgg16_unet_cascade(**options: Any) -> AutoContext:
    """`unet_cascade` with VGG-16 encoders (``v16UNet1-1``, with ``pretrained`` ``v16pUNet1-1``): 57,609,090 parameters."""
    return _twice("vgg16_unet", **options)


def vgg19_unet_cascade(**options: Any) -> AutoContext:
    """`unet_cascade` with VGG-19 encoders (``v19UNet1-1``, with ``pretrained`` ``v19pUNet1-1``): 74,128,258 parameters."""
    return _twice("vgg19_unet", **options)


def _twice(network: str, *, dim: int, in_channels: int, out_channels: int, deep_supervision: bool = True, **options: Any) -> AutoContext:
    shape: NetworkShape = {"dim": dim, "in_channels": in_channels, "out_channels": out_channels, "deep_supervision": deep_supervision}
    return cascaded(first=network, first_options=options, **shape)
