"""Building blocks of U-Nets: convolution units, the decoder, and the module that joins encoder and decoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NotRequired, TypedDict

import torch
from torch import nn
from typing_extensions import Unpack

from . import convolutions, normalisation
from .sizes import crop_to, pad_to_multiple

Sizes = Sequence[Sequence[int]]
Convolution = nn.Conv2d | nn.Conv3d
StageFactory = Callable[[int, tuple[int, int], int, Sequence[int], Sequence[int]], nn.Sequential]
"""Spatial axes, channels in and out, number of convolutions or blocks, kernel size, stride -> stage of an encoder."""


class NetworkShape(TypedDict):
    """Keyword arguments of every network, see `Network`."""

    dim: int
    in_channels: int
    out_channels: int
    deep_supervision: NotRequired[bool]


class UNetOptions(NetworkShape):
    """Keyword arguments of a U-Net whose topology is planned, see `EncoderDecoder`."""

    features: Sequence[int]
    strides: Sequence[Sequence[int]]
    kernel_sizes: Sequence[Sequence[int]]
    decoder_convs: Sequence[int]


class Network(nn.Module):
    """Base of the networks: keeps the arguments that all of them have.

    Args:
        dim: Spatial axes, 2 or 3.
        in_channels: Channels of the input.
        out_channels: Channels of the logits.
        deep_supervision: In training mode return the logits of several resolutions; ignored by networks with one output.

    Raises:
        ValueError: `dim` is neither 2 nor 3.
    """

    def __init__(self, *, dim: int, in_channels: int, out_channels: int, deep_supervision: bool = True) -> None:
        super().__init__()
        convolution(dim)  # raises for any other dim
        self.dim, self.in_channels, self.out_channels, self.deep_supervision = dim, in_channels, out_channels, deep_supervision

    def check_input(self, x: torch.Tensor) -> None:
        """Refuses a batch that is not ``(B, in_channels, *spatial)`` by a ValueError."""
        if x.dim() != self.dim + 2 or x.shape[1] != self.in_channels:
            expected = f"(B, {self.in_channels}, *spatial) with {self.dim} spatial axes"
            raise ValueError(f"{type(self).__name__}: expected {expected}, got {tuple(x.shape)}")


class PointwiseHeadNetwork(Network):
    """Network whose logits are the 1x1 convolution `head` of its last feature maps; `multiples` are those of the sizes that it takes."""

    head: Convolution
    multiples: tuple[int, ...]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, out_channels, *spatial)`` of a batch ``(B, C, *spatial)`` of any size."""
        return self.head(self.features(x))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """The last feature maps before the logits, ``(B, F, *spatial)``, for ensembles that fuse layers."""
        return crop_to(self.padded_features(pad_to_multiple(x, self.multiples)), x.shape[2:])

    def padded_features(self, x: torch.Tensor) -> torch.Tensor:
        """`features` of a batch whose sizes are such multiples."""
        raise NotImplementedError


def apply_u(
    x: torch.Tensor, encoder: Sequence[nn.Module], downs: Iterable[nn.Module], up_path: Iterable[tuple[nn.Module, nn.Module]]
) -> torch.Tensor:
    """Applies encoder stages with `downs` between, then each upsampling and decoder stage, which takes its result and the skip."""
    skips = [encoder[0](x)]
    for down, stage in zip(downs, encoder[1:], strict=True):
        skips.append(stage(down(skips[-1])))
    x = skips.pop()
    for up, stage in up_path:
        x = stage(torch.cat((up(x), skips.pop()), dim=1))
    return x


NEGATIVE_SLOPE = 0.01
"""Slope of every LeakyReLU, also used by the He initialisation."""


def convolution(dim: int) -> Callable[..., Convolution]:
    """``nn.Conv2d`` or ``nn.Conv3d``, safe in mixed precision (`convolutions`); a ValueError for another `dim`."""
    if dim not in (2, 3):
        raise ValueError(f"network: expected dim 2 or 3, got {dim}")
    return convolutions.Conv3d if dim == 3 else convolutions.Conv2d


def transposed_convolution(dim: int) -> Callable[..., nn.ConvTranspose2d | nn.ConvTranspose3d]:
    """``nn.ConvTranspose2d`` or ``nn.ConvTranspose3d``."""
    return convolutions.ConvTranspose3d if dim == 3 else convolutions.ConvTranspose2d


def instance_norm(dim: int, channels: int) -> nn.Module:
    """Instance normalisation with learned scale and shift (Ulyanov et al., arXiv 1607.08022)."""
    return (normalisation.InstanceNorm3d if dim == 3 else normalisation.InstanceNorm2d)(channels, eps=1e-5, affine=True)


def activation() -> nn.Module:
    """LeakyReLU, in place: the backward pass of the normalisation before it needs its input, not its output."""
    return nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True)


class ConvUnit(nn.Sequential):
    """Convolution and instance normalisation (`conv_norm`), and the activation, which the normalisation takes along."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As that of its parts one after the other."""
        parts, act = self[0], self[1]
        if isinstance(parts, nn.Sequential) and isinstance(act, nn.LeakyReLU):
            norm = parts[1]
            if isinstance(norm, normalisation.InstanceNorm2d | normalisation.InstanceNorm3d):
                return norm.activated(parts[0](input), act.negative_slope, in_place=True)
        return super().forward(input)


def conv_unit(dim: int, channels: tuple[int, int], kernel: Sequence[int], stride: Sequence[int] | None = None) -> nn.Sequential:
    """Convolution, instance normalisation, LeakyReLU; with odd kernels the output's size is ``ceil(size / stride)``. No stride means 1."""
    return ConvUnit(conv_norm(dim, channels, kernel, stride), activation())


def conv_norm(dim: int, channels: tuple[int, int], kernel: Sequence[int], stride: Sequence[int] | None = None) -> nn.Sequential:
    """Convolution and instance normalisation; arguments as for `conv_unit`."""
    step = tuple(stride) if stride is not None else (1,) * dim
    conv = convolution(dim)(*channels, tuple(kernel), step, padding=tuple(k // 2 for k in kernel))
    return nn.Sequential(conv, instance_norm(dim, channels[1]))


def conv_stack(dim: int, channels: tuple[int, int], n: int, kernel: Sequence[int], stride: Sequence[int] | None = None) -> nn.Sequential:
    """`n` units in a row, the stride in the first."""
    first = conv_unit(dim, channels, kernel, stride)
    return nn.Sequential(first, *(conv_unit(dim, (channels[1], channels[1]), kernel) for _ in range(n - 1)))


class Decoder(nn.Module):
    """Transposed convolution, concatenation with the skip, convolutions, and one 1x1 head a resolution.

    Features, strides and kernel sizes are those of the encoder's stages, finest first; ``strides[i]`` leads from stage i-1 to i. There are
    `convs` convolutions a stage, from the coarsest to the finest resolution, ``len(features) - 1`` numbers.
    """

    def __init__(
        self, dim: int, features: Sequence[int], strides: Sizes, kernel_sizes: Sizes, convs: Sequence[int], out_channels: int
    ) -> None:
        super().__init__()
        self.ups, self.stages, self.heads = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for i, n in zip(reversed(range(len(features) - 1)), convs, strict=True):
            below, here, stride = features[i + 1], features[i], tuple(strides[i + 1])
            self.ups.append(transposed_convolution(dim)(below, here, stride, stride))
            self.stages.append(conv_stack(dim, (2 * here, here), n, kernel_sizes[i]))
            self.heads.append(convolution(dim)(here, out_channels, 1))

    def forward(self, skips: Sequence[torch.Tensor], all_resolutions: bool) -> tuple[torch.Tensor, ...]:
        """Logits of the encoder's outputs (finest first), finest first; only the finest where `all_resolutions` is False."""
        x, logits, last = skips[-1], [], len(self.stages) - 1
        for i, (up, stage, head) in enumerate(zip(self.ups, self.stages, self.heads, strict=True)):
            x = stage(torch.cat((up(x), skips[-2 - i]), dim=1))
            if all_resolutions or i == last:
                logits.append(head(x))
        return tuple(reversed(logits))


class EncoderDecoder(Network):
    """U-Net whose topology is planned: encoder stages, a decoder, deep supervision, and a check of the input's size.

    Args:
        make_stage: Builds a stage of the encoder.
        counts: Name and values of the option with the number of convolutions, or blocks, of each stage.
        stem: Begin with a convolution to the channels of the first stage.
        features: Channels a stage, finest first.
        strides: One entry of `dim` numbers a stage; the first is all ones.
        kernel_sizes: One entry of `dim` odd numbers a stage.
        decoder_convs: Convolutions a stage of the decoder, one number fewer.
        **shape: See `Network`; with deep supervision the logits of every decoder stage are returned in training mode.

    Raises:
        ValueError: The options do not describe one network.
    """

    def __init__(
        self,
        make_stage: StageFactory,
        counts: tuple[str, Sequence[int]],
        *,
        stem: bool = False,
        features: Sequence[int],
        strides: Sizes,
        kernel_sizes: Sizes,
        decoder_convs: Sequence[int],
        **shape: Unpack[NetworkShape],
    ) -> None:
        super().__init__(**shape)
        per_stage = {"features": features, "strides": strides, "kernel_sizes": kernel_sizes, counts[0]: counts[1]}
        check_stages(self.dim, per_stage, {"decoder_convs": decoder_convs})
        channels = zip((features[0] if stem else self.in_channels, *features[:-1]), features, strict=True)
        stages = [make_stage(self.dim, *stage) for stage in zip(channels, counts[1], kernel_sizes, strides, strict=True)]
        if stem:
            stages[0].insert(0, conv_stack(self.dim, (self.in_channels, features[0]), 1, kernel_sizes[0]))
        self.encoder = nn.ModuleList(stages)
        self.decoder = Decoder(self.dim, features, strides, kernel_sizes, decoder_convs, self.out_channels)
        self.divisors = tuple(math.prod(axis) for axis in zip(*strides, strict=True))
        self.apply(initialise)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Logits ``(B, K, *spatial)`` of a batch; with deep supervision in training mode a tuple of one per decoder stage, finest first.

        Raises:
            ValueError: A spatial size is not a multiple of the product of the strides.
        """
        self._check_size(x.shape)
        skips = []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        several = self.training and self.deep_supervision
        logits = self.decoder(skips, several)
        return logits if several else logits[0]

    def _check_size(self, shape: torch.Size) -> None:
        spatial = tuple(shape[2:])
        if len(spatial) != len(self.divisors) or any(size % divisor for size, divisor in zip(spatial, self.divisors, strict=True)):
            expected = f"(B, C, *spatial) with sizes that are multiples of {self.divisors}"
            raise ValueError(f"{type(self).__name__}: expected {expected}, got {tuple(shape)}")
        if math.prod(spatial) <= math.prod(self.divisors):
            raise ValueError(f"{type(self).__name__}: size {spatial} leaves one voxel at the lowest resolution, which cannot be normalised")


def initialise(module: nn.Module) -> None:
    """He's normal initialisation for LeakyReLU (arXiv 1502.01852), biases zero; for ``nn.Module.apply``."""
    if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        nn.init.kaiming_normal_(module.weight, a=NEGATIVE_SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def check_stages(dim: int, per_stage: dict[str, Sequence], per_step: dict[str, Sequence]) -> None:
    """Checks that the options with one entry a stage, and those with one a decoder stage (`per_step`), agree with each other.

    Raises:
        ValueError: `dim` is neither 2 nor 3, lengths disagree, there are fewer than two stages, the first stage has a stride, an entry has
            not `dim` numbers, or a kernel is even.
    """
    convolution(dim)  # raises for any other dim
    n = len(per_stage["features"])
    lengths = {key: len(value) for key, value in (per_stage | per_step).items()}
    if n < 2 or any(lengths[key] != n for key in per_stage) or any(lengths[key] != n - 1 for key in per_step):
        expected = f"{max(n, 2)} entries in {', '.join(per_stage)} and one fewer in {', '.join(per_step)}"
        raise ValueError(f"network: expected {expected}, got {lengths}")
    for key in ("strides", "kernel_sizes"):
        if any(len(entry) != dim for entry in per_stage[key]):
            raise ValueError(f"network: expected {dim} numbers in each entry of {key} for dim {dim}, got {per_stage[key]}")
    if any(step != 1 for step in per_stage["strides"][0]):
        raise ValueError(f"network: expected stride 1 in the first stage, got {per_stage['strides'][0]}")
    numbers = [*per_stage["features"], *(one for key in ("strides", "kernel_sizes") for entry in per_stage[key] for one in entry)]
    if min(numbers) < 1:
        raise ValueError(f"network: expected features, strides and kernel sizes from 1 on, got {per_stage}")
    if any(edge % 2 == 0 for entry in per_stage["kernel_sizes"] for edge in entry):
        raise ValueError(f"network: expected odd kernel sizes, got {per_stage['kernel_sizes']}")
