"""PIPO-FAN, pyramid-input pyramid-output network with adaptive fusion of scales, and the two U-Nets that it is compared with.

Fang and Yan, IEEE Transactions on Medical Imaging 39 (2020).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Unpack

from .blocks import Network, NetworkShape, Sizes, check_stages, initialise
from .layers import linear_mode
from .pyramid_blocks import AdaptiveFusion, Blocks, PyramidDecoder, PyramidEncoder
from .sizes import crop_to, pad_to_multiple

FEATURES = (64, 128, 256, 512, 512)


class PipoFan(Network):
    """Pyramid-input, pyramid-output feature abstraction network (Fang and Yan, IEEE TMI 2020).

    ``(B, C, *spatial)`` of any size to logits ``(B, K, *spatial)``. The paper's network (2D, three slices as channels, two classes) has
    28,270,986 parameters, with 3 input scales and 3 outputs 16,258,566, with one of each 14,191,426. The adaptive fusion, which the paper's
    table does not count, has 19 more (3 a class, and 13).

    The paper's counts hold a bridge in every residual block, also where channels do not change. Here all of them are used, so that none is
    a dead weight; `identity_shortcuts` leaves them out where channels agree.

    Args:
        features: Channels a level, finest first.
        strides: Of the pooling before each level, one entry of `dim` numbers a level, the first all ones; halvings of every axis where
            None.
        input_scales: How many scales of the image go in, 1 to ``len(features)``; as many as levels where None.
        output_scales: How many score maps, likewise.
        equal_depth: Blocks that make what is concatenated, and what is scored, equally deep.
        adaptive_fusion: Have the module that weighs the scales (only if there are several).
        residual: Residual blocks; else plain ones (as the paper used on KiTS).
        norm: ``"batch"``, or ``"instance"``.
        identity_shortcuts: No 1x1 convolution beside a residual block that keeps its number of channels.
        **shape: See `blocks.Network`; with deep supervision, in training mode without fusing, the score maps of all output scales are
            returned.

    Attributes:
        fusing: Whether the output, in training and in evaluation, is one fused map. On from the start if there is the module; a trainer
            that begins with deep supervision switches it off by `set_fusing`. Not part of the weights.

    Raises:
        ValueError: The options do not describe one network.
    """

    def __init__(
        self,
        *,
        features: Sequence[int] = FEATURES,
        strides: Sizes | None = None,
        input_scales: int | None = None,
        output_scales: int | None = None,
        equal_depth: bool = True,
        adaptive_fusion: bool = True,
        residual: bool = True,
        norm: str = "batch",
        identity_shortcuts: bool = False,
        **shape: Unpack[NetworkShape],
    ) -> None:
        super().__init__(**shape)
        dim, levels = self.dim, len(features)
        strides = [[1] * dim, *[[2] * dim] * (levels - 1)] if strides is None else strides
        check_stages(dim, {"features": features, "strides": strides, "kernel_sizes": [[3] * dim] * levels}, {})
        inputs, outputs = (_checked_scales(n, levels) for n in (input_scales, output_scales))
        self.output_scales = outputs
        self.factors = [tuple(math.prod(axis) for axis in zip(*strides[: s + 1], strict=True)) for s in range(levels)]
        self.mode = linear_mode(dim)
        make = Blocks(dim, norm, residual, identity_shortcuts)
        self.encoder = PyramidEncoder(make, self.in_channels, features=features, strides=strides, scales=inputs, equal_depth=equal_depth)
        self.decoder = PyramidDecoder(make, self.out_channels, features=features, scales=outputs, equal_depth=equal_depth)
        self.fusion = AdaptiveFusion(dim, self.out_channels, norm=norm, scales=outputs) if adaptive_fusion and outputs > 1 else None
        self.fusing = self.fusion is not None
        self.apply(initialise)

    def set_fusing(self, on: bool) -> None:
        """Switches between the fused map and the score maps of the scales; a ValueError where there is no adaptive fusion to switch on."""
        if on:
            self._required_fusion()
        self.fusing = on

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Logits ``(B, K, *spatial)`` of a batch ``(B, C, *spatial)`` of any size.

        If `fusing` they are the fused map (whose softmax is the paper's output), else those of the finest scale; in training mode with deep
        supervision, without fusing, and with several output scales a tuple of the score maps, finest first. The image is padded to sizes
        that can be halved. The score map of scale s is cut back to ``ceil(size / 2**s)``: every cell that holds a voxel of the image, so
        that labels brought to its size by nearest neighbour meet the right cells.

        Raises:
            ValueError: Other channels or axes than the network was built for, or `fusing` without adaptive fusion.
        """
        if self.fusing:
            return self._fused(x)
        several = self.training and self.deep_supervision
        scores = self._cropped(self._scores(x, self.output_scales if several else 1), x)
        return tuple(scores) if len(scores) > 1 else scores[0]

    def fusion_weights(self, x: Tensor) -> Tensor:
        """Weights ``(B, S)`` of the output scales for each image of a batch, finest first, summing to 1; errors are those of `forward`."""
        return self._required_fusion()(self._cropped(self._scores(x, self.output_scales), x))

    def _required_fusion(self) -> AdaptiveFusion:
        if self.fusion is None:
            raise ValueError("PipoFan: expected a network with adaptive fusion and several output scales, got one without")
        return self.fusion

    def _fused(self, x: Tensor) -> Tensor:
        scores = self._scores(x, self.output_scales)
        weights = self._required_fusion()(self._cropped(scores, x))
        weighted = [
            weight.view(-1, *[1] * (x.dim() - 1)) * F.interpolate(score, scores[0].shape[2:], mode=self.mode, align_corners=False)
            for score, weight in zip(scores, weights.unbind(1), strict=True)
        ]
        return crop_to(functools.reduce(torch.add, weighted), x.shape[2:])

    def _scores(self, x: Tensor, scales: int) -> list[Tensor]:
        self.check_input(x)
        return self.decoder(self.encoder(pad_to_multiple(x, self.factors[-1])), scales)

    def _cropped(self, scores: Sequence[Tensor], x: Tensor) -> list[Tensor]:
        sizes = ([-(-size // step) for size, step in zip(x.shape[2:], factor, strict=True)] for factor in self.factors)
        return [crop_to(score, size) for score, size in zip(scores, sizes, strict=False)]


def pipo_unet(**options: Any) -> PipoFan:
    """The single-scale U-Net that PIPO-FAN is compared with (Fang and Yan, IEEE TMI 2020; Ronneberger et al., MICCAI 2015).

    Convolution, batch normalisation, ReLU, twice a level; max pooling down, linear interpolation up. 13,395,394 parameters in 2D with three
    channels and two classes: the row 1/1 of the paper's Table VII. Options: ``features``, ``strides``, ``norm`` of `PipoFan`.
    """
    return pipo_resunet(residual=False, **options)


def pipo_resunet(**options: Any) -> PipoFan:
    """The single-scale residual U-Net that PIPO-FAN grows out of (Fang and Yan, IEEE TMI 2020; Han, arXiv 1704.07239).

    14,191,426 parameters in 2D with three channels and two classes. Options: ``features``, ``strides``, ``norm``, ``residual``,
    ``identity_shortcuts`` of `PipoFan`.
    """
    return PipoFan(input_scales=1, output_scales=1, adaptive_fusion=False, **options)


def _checked_scales(scales: int | None, levels: int) -> int:
    if scales is not None and not 1 <= scales <= levels:
        raise ValueError(f"PipoFan: expected 1 to {levels} scales, one a level at most, got {scales}")
    return levels if scales is None else scales
