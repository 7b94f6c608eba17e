"""The plain U-Net with the layers of nnU-Net.

Ronneberger et al., arXiv 1505.04597; Cicek et al., arXiv 1606.06650; Isensee et al., Nature Methods 18 (2021).
"""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import Unpack

from .blocks import EncoderDecoder, UNetOptions, conv_stack


class PlainUNet(EncoderDecoder):
    """Strided convolutions down, transposed convolutions up, convolution-norm-LeakyReLU units between.

    Args:
        convs_per_stage: Convolutions a stage of the encoder.
    """

    def __init__(self, *, convs_per_stage: Sequence[int], **options: Unpack[UNetOptions]) -> None:
        super().__init__(conv_stack, ("convs_per_stage", convs_per_stage), **options)
