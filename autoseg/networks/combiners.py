"""Networks that combine the predictions of an ensemble's members: maximum confidence, and stacking with a 1x1 convolution or a U-Net.

Crespi et al., *Ensemble methods for multi-organ segmentation in CT series*, 2023.

The input is a stack: one channel for each organ of each member, the log-ratio of the organ's probability to that of background, plus
`MAX_LOG_RATIO`, so that 0, with which patches and volumes are padded, means background for certain. The output are logits like those of any
other network. The trainable ones are initialised as the average of the members.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from .blocks import Network, NetworkShape, Sizes, convolution
from .sizes import crop_to, pad_to_multiple
from .unet import PlainUNet

MAX_LOG_RATIO = math.log(510.0)
"""Largest log-ratio: stored probabilities are multiples of 1/255, and half a step stands for 0."""

Channels = Sequence[Sequence[int]]


class MaxConfidence(Network):
    """Gives each voxel to the organ of the most confident member; has no parameters.

    With all members of an organ it is the argmax ensemble; with one member each, MOvpUNet's merging of masks (Conze et al., Artificial
    Intelligence in Medicine 117, 2021). The confidence of a member in an organ is the log-ratio of its probability to that of the likeliest
    other class of that member, background included: above 0 exactly within the member's mask.

    Args:
        channels: For each organ its channels of the stack; one output each, and one for background unless the labels are regions.
        members: For each member its first channel and the one after its last.
    """

    def __init__(self, *, channels: Channels, members: Channels, **shape: Unpack[NetworkShape]) -> None:
        super().__init__(**shape)
        check_channels(channels, self.in_channels, self.out_channels)
        self.channels, self.members = [list(one) for one in channels], [tuple(one) for one in members]
        self.regions = len(channels) == self.out_channels

    def forward(self, x: Tensor) -> Tensor:
        """``(B, M, *spatial)`` to logits ``(B, K, *spatial)``."""
        ratios = x.float() - MAX_LOG_RATIO
        if not self.regions:
            ratios = torch.cat([_margins(ratios[:, start:stop]) for start, stop in self.members], 1)
        organs = [ratios[:, of].amax(1) for of in self.channels]
        return torch.stack(organs if self.regions else [torch.zeros_like(organs[0]), *organs], 1)


class MajorityVote(Network):
    """Gives each voxel to the class that most members find there; of equally many votes the larger mean probability decides.

    As three 2D networks, one for each plane, are combined in Zhou et al., LABELS workshop at MICCAI 2016. The logits are the logarithms of
    shares (regions: log-odds), of votes and, n members together a little less than one vote, of probabilities, which break ties. It has no
    parameters; all members have the same organs, in the same order.

    Args:
        channels: For each organ its channels of the stack.
        members: For each member its first channel and the one after its last.
    """

    def __init__(self, *, channels: Channels, members: Channels, **shape: Unpack[NetworkShape]) -> None:
        super().__init__(**shape)
        check_channels(channels, self.in_channels, self.out_channels)
        self.members = [tuple(one) for one in members]
        expected = [[start + organ for start, _ in self.members] for organ in range(len(channels))]
        if [list(one) for one in channels] != expected:
            raise ValueError(f"vote: expected members of the same organs, with channels {expected}, got {list(channels)}")
        self.regions = len(channels) == self.out_channels

    def forward(self, x: Tensor) -> Tensor:
        """``(B, M, *spatial)`` to logits ``(B, K, *spatial)``."""
        ratios = x.float() - MAX_LOG_RATIO
        of_members = [ratios[:, start:stop] for start, stop in self.members]
        if self.regions:
            return torch.stack([self._share(one.sigmoid(), (one > 0).float()) for one in of_members]).mean(0).logit()
        logits = [torch.cat([torch.zeros_like(one[:, :1]), one], 1) for one in of_members]
        votes = [torch.zeros_like(one).scatter_(1, one.argmax(1, keepdim=True), 1.0) for one in logits]
        return torch.stack([self._share(one.softmax(1), vote) for one, vote in zip(logits, votes, strict=True)]).mean(0).log()

    def _share(self, probability: Tensor, vote: Tensor) -> Tensor:
        """A vote that is 0 or 1 and some of the probability it comes from, which keeps it off both."""
        weight = 1 / (len(self.members) + 1)
        return (vote + weight * probability.clamp(1e-6, 1 - 1e-6)) / (1 + weight)


def _margins(ratios: Tensor) -> Tensor:
    """Log-ratio of each organ of one member to the likeliest other class, background included: ``(B, N, *spatial)``, same shape."""
    classes = torch.cat([torch.zeros_like(ratios[:, :1]), ratios], 1)
    (best, second), index = classes.topk(2, 1)[0].unbind(1), classes.argmax(1, keepdim=True)
    numbers = torch.arange(1, classes.shape[1], device=ratios.device).view(1, -1, *[1] * (ratios.dim() - 2))
    return ratios - torch.where(index == numbers, second[:, None], best[:, None])


class LogitsConvolution(Network):
    """Stacking: a 1x1 convolution over the stack, initialised as the average of each organ's members.

    For a single member of several organs that average is the member itself: the log-ratios to background are its logits. `channels` are
    those of `MaxConfidence`.
    """

    def __init__(self, *, channels: Channels, **shape: Unpack[NetworkShape]) -> None:
        super().__init__(**shape)
        check_channels(channels, self.in_channels, self.out_channels)
        self.conv = convolution(self.dim)(self.in_channels, self.out_channels, 1)
        first = self.out_channels - len(channels)  # background's, where there is one, is 0
        with torch.no_grad():
            for parameter in self.conv.parameters():
                parameter.zero_()
            for organ, of in enumerate(channels, start=first):
                self.conv.weight[organ, list(of)] = 1 / len(of)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, M, *spatial)`` to logits ``(B, K, *spatial)``, in fp32, so that the average is exact."""
        with torch.autocast(x.device.type, enabled=False):
            return self.conv(x.float() - MAX_LOG_RATIO)


class MetaUNet(Network):
    """Stacking: a small U-Net over the stack, whose logits are added to those of a `LogitsConvolution`; they are 0 at first."""

    def __init__(
        self, *, channels: Channels, features: Sequence[int], strides: Sizes, kernel_sizes: Sizes, **shape: Unpack[NetworkShape]
    ) -> None:
        super().__init__(**shape)
        self.average = LogitsConvolution(channels=channels, **shape)
        single: NetworkShape = {**shape, "deep_supervision": False}
        self.unet = PlainUNet(
            features=features,
            strides=strides,
            kernel_sizes=kernel_sizes,
            convs_per_stage=[2] * len(features),
            decoder_convs=[1] * (len(features) - 1),
            **single,
        )
        nn.init.zeros_(self.unet.decoder.heads[-1].get_parameter("weight"))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, M, *spatial)`` of any size to logits ``(B, K, *spatial)``."""
        padded = pad_to_multiple(x, self.unet.divisors)
        return self.average(x) + crop_to(self.unet(padded / MAX_LOG_RATIO - 1), x.shape[2:]).float()


def check_channels(channels: Channels, inputs: int, outputs: int) -> None:
    """Refuses channels that do not describe an ensemble of `inputs` channels and `outputs` logits.

    Raises:
        ValueError: An organ has no channel, or one that is not in the stack, or there are other than one output each and background's.
    """
    if any(not of or not 0 <= min(of) <= max(of) < inputs for of in channels):
        raise ValueError(f"ensemble: expected for each organ at least one of the channels 0 to {inputs - 1}, got {list(channels)}")
    if outputs not in (len(channels), len(channels) + 1):
        raise ValueError(f"ensemble: expected {len(channels)} or {len(channels) + 1} outputs for as many organs, got {outputs}")
