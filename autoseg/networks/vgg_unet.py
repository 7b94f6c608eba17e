"""U-Nets without normalisation: Conze's baseline, and those with VGG-16 or VGG-19 as encoder, from scratch or from ImageNet weights.

Conze et al., Artificial Intelligence in Medicine 117 (2021); Simonyan and Zisserman, ICLR 2015; Ronneberger et al., MICCAI 2015.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from .blocks import Network, NetworkShape, Sizes, convolution, initialise, transposed_convolution
from .imagenet import RGB, load_encoder
from .layers import max_pool
from .sizes import crop_to, pad_to_multiple

CONVS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
"""Convolutions a stage, 13 and 16 in all. The last stage is the bottom of the U."""

VGG_FEATURES = (64, 128, 256, 512, 512)
CONZE_FEATURES = (32, 64, 128, 256, 256)
"""Channels a stage: doubled by each pooling, up to 512 or 256."""


def conv_relu(dim: int, in_channels: int, channels: int, n: int) -> list[nn.Module]:
    """`n` convolutions with kernel 3, each followed by ReLU, without normalisation, as in VGG."""
    layers: list[nn.Module] = []
    for source in (in_channels, *[channels] * (n - 1)):
        layers += [convolution(dim)(source, channels, 3, padding=1), nn.ReLU(inplace=True)]
    return layers


class ConvEncoder(nn.Module):
    """Encoder of convolutions and max pooling, with the parameter names of torchvision's VGG: ``features.N.weight``.

    Args:
        features: Channels a stage, finest first.
        strides: Of the pooling before each stage, one entry of `dim` numbers a stage; the first is all ones and stands for none.
    """

    def __init__(self, dim: int, in_channels: int, *, features: Sequence[int], convs: Sequence[int], strides: Sizes) -> None:
        super().__init__()
        self.in_channels = in_channels
        layers: list[nn.Module] = []
        sources = (in_channels, *features[:-1])
        for stage, (source, width, n) in enumerate(zip(sources, features, convs, strict=True)):
            pooling = [max_pool(dim, strides[stage])] if stage else []
            layers += [*pooling, *conv_relu(dim, source, width, n)]
        self.features = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        """``(B, C, *spatial)`` to the output of each stage, finest first."""
        stages = []
        for layer in self.features:
            if isinstance(layer, (nn.MaxPool2d, nn.MaxPool3d)):
                stages.append(x)
            x = layer(x)
        return [*stages, x]


class MirroredDecoder(nn.Module):
    """Decoder of up-convolutions, concatenated skips, as many convolutions and channels as in the encoder's stage, and a 1x1 head."""

    def __init__(self, dim: int, *, features: Sequence[int], convs: Sequence[int], strides: Sizes, out_channels: int) -> None:
        super().__init__()
        self.ups, self.stages = nn.ModuleList(), nn.ModuleList()
        for stage in reversed(range(len(features) - 1)):
            below, here, stride = features[stage + 1], features[stage], tuple(strides[stage + 1])
            self.ups.append(transposed_convolution(dim)(below, here, stride, stride))
            self.stages.append(nn.Sequential(*conv_relu(dim, 2 * here, here, convs[stage])))
        self.head = convolution(dim)(features[0], out_channels, 1)

    def forward(self, skips: Sequence[Tensor], several: bool) -> tuple[Tensor]:
        """The logits at full resolution of the encoder's outputs, finest first; there is one whatever `several` says."""
        x = skips[-1]
        for up, stage, skip in zip(self.ups, self.stages, reversed(skips[:-1]), strict=True):
            x = stage(torch.cat((up(x), skip), dim=1))
        return (self.head(x),)


class ConvNetwork(Network):
    """Encoder and decoder for images of any number of channels and any size: repeats channels, pads before and crops after.

    Args:
        encoder: Returns one map a stage, finest first.
        decoder: Takes those maps and whether to return several logits; returns a tuple of logits, finest first.
        **shape: See `Network`; with deep supervision the decoder is to return several logits in training mode.

    Attributes:
        input_channels: Channels that the first convolution takes. If they are more than `in_channels`, the input is repeated, as
            `repeat_channels` does; an input that already has that many is taken as it is.
    """

    def __init__(self, encoder: ConvEncoder, decoder: nn.Module, *, strides: Sizes, **shape: Unpack[NetworkShape]) -> None:
        super().__init__(**shape)
        self.encoder, self.decoder = encoder, decoder
        self.input_channels = encoder.in_channels
        self.divisors = tuple(math.prod(axis) for axis in zip(*strides, strict=True))
        self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Logits ``(B, K, *spatial)`` of a batch of any size; in training mode with deep supervision all that the decoder gives.

        Raises:
            ValueError: Other channels or axes than the network was built for.
        """
        if x.dim() < 2 or x.shape[1] not in (self.in_channels, self.input_channels):
            raise ValueError(f"{type(self).__name__}: expected (B, {self.in_channels}, *spatial), got {tuple(x.shape)}")
        padded = pad_to_multiple(repeat_channels(x, self.input_channels), self.divisors)
        several = self.training and self.deep_supervision
        logits = tuple(crop_to(one, x.shape[2:]) for one in self.decoder(self.encoder(padded), several))
        return logits if len(logits) > 1 else logits[0]


def repeat_channels(x: Tensor, n: int) -> Tensor:
    """Repeats channels in turn until there are `n`: one becomes a, a, a and two become a, b, a."""
    return x if x.shape[1] == n else x[:, [channel % x.shape[1] for channel in range(n)]]


def stage_strides(dim: int, n: int, features: Sequence[int], strides: Sizes | None) -> Sizes:
    """The strides, or halvings of every axis where None; one entry of `dim` numbers a stage, the first all ones.

    Raises:
        ValueError: `dim` is neither 2 nor 3, or there are fewer than two stages, or the entries do not describe `n` stages.
    """
    convolution(dim)  # raises for any other dim
    chosen = [[1] * dim, *[[2] * dim] * (n - 1)] if strides is None else strides
    if n < 2 or not len(features) == len(chosen) == n or any(len(one) != dim for one in chosen) or any(step != 1 for step in chosen[0]):
        expected = f"{max(n, 2)} features and {max(n, 2)} strides of {dim} numbers, the first all ones"
        raise ValueError(f"network: expected {expected}, got features {list(features)} and strides {[list(one) for one in chosen]}")
    return chosen


def conze_unet(*, features: Sequence[int] = CONZE_FEATURES, strides: Sizes | None = None, **shape: Unpack[NetworkShape]) -> ConvNetwork:
    """The plain U-Net (``UNet``) that Conze et al. (Artificial Intelligence in Medicine, 2021) compare with, without normalisation.

    Two convolutions with kernel 3 and ReLU a stage, max pooling, up-convolutions, and a final 1x1 convolution. The paper names the channels
    32 to 256, and VGG-19's mirrored decoder has four convolutions more than this one: so there are five stages, and the last does not
    double. 5,137,569 parameters in 2D with one channel in and out. Deep supervision is ignored: the loss is on the final output only.

    Args:
        features: Channels a stage, finest first.
        strides: Of the pooling before each stage, as `ConvEncoder` takes them; halvings of every axis where None.

    Raises:
        ValueError: The options do not describe one network.
    """
    convs, dim = (2,) * len(features), shape["dim"]
    chosen = stage_strides(dim, len(convs), features, strides)
    encoder = ConvEncoder(dim, shape["in_channels"], features=features, convs=convs, strides=chosen)
    decoder = MirroredDecoder(dim, features=features, convs=convs, strides=chosen, out_channels=shape["out_channels"])
    return ConvNetwork(encoder, decoder, strides=chosen, **shape)


def vgg_network(
    vgg: str,
    make_decoder: Callable[..., nn.Module],
    *,
    features: Sequence[int] = VGG_FEATURES,
    strides: Sizes | None = None,
    pretrained: str | None = None,
    **shape: Unpack[NetworkShape],
) -> ConvNetwork:
    """A network with the convolutions of VGG as encoder, for at least three channels, as ImageNet's images have them."""
    convs, dim = CONVS[vgg], shape["dim"]
    chosen = stage_strides(dim, len(convs), features, strides)
    encoder = ConvEncoder(dim, max(shape["in_channels"], RGB), features=features, convs=convs, strides=chosen)
    decoder = make_decoder(dim, features=features, strides=chosen, out_channels=shape["out_channels"])
    network = ConvNetwork(encoder, decoder, strides=chosen, **shape)
    if pretrained is not None:
        load_encoder(encoder, vgg, pretrained)
    return network


def vgg16_unet(**options: Any) -> ConvNetwork:
    """A U-Net with VGG-16's 13 convolutions as encoder and their mirror image as decoder (``v16UNet``; pre-trained ``v16pUNet``).

    Conze et al., Artificial Intelligence in Medicine, 2021; Simonyan and Zisserman, ICLR 2015. 28,804,545 parameters in 2D with one channel
    out, up to three in. VGG's last three convolutions are the bottom. Without normalisation layers, as in the paper.

    One channel is repeated to three, of two the first is taken twice, three are taken as they are; so it is also without ImageNet's
    weights, that prediction may leave them out. Where there are more, the first convolution has as many inputs (see
    `imagenet.load_encoder` for its weights).

    Args:
        **options: Those of `blocks.Network` (deep supervision is ignored, as the loss is on the final output only). ``features``: channels
            of the five stages (64, 128, 256, 512, 512). ``strides``: of the pooling before each stage, one entry of `dim` numbers a stage;
            the first is all ones (None: the others all twos). ``pretrained``: None, ``"imagenet"``, or the path of a file like
            torchvision's; 2D only.

    Raises:
        ValueError: The options do not describe one network, or its weights are not found or do not fit.
    """
    return vgg_network("vgg16", partial(MirroredDecoder, convs=CONVS["vgg16"]), **options)


def vgg19_unet(**options: Any) -> ConvNetwork:
    """As `vgg16_unet` with the 16 convolutions of VGG-19 (``v19UNet``; pre-trained ``v19pUNet``): 37,064,129 parameters.

    The bottom has all four convolutions that VGG-19 has at that resolution, of which the paper counts the last three: the public weights
    need them.
    """
    return vgg_network("vgg19", partial(MirroredDecoder, convs=CONVS["vgg19"]), **options)
