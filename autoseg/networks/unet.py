"""The plain U-Net with the layers of nnU-Net.

Ronneberger et al., arXiv 1505.04597; Cicek et al., arXiv 1606.06650; Isensee et al., Nature Methods 18 (2021).
"""

from __future__ import annotations

from collections.abc import Sequence

from .blocks import Decoder, EncoderDecoder, Sizes, check_stages, conv_stack


class PlainUNet(EncoderDecoder):
    """Strided convolutions down, transposed convolutions up, convolution-norm-LeakyReLU units between.

    Args:
        dim: Spatial axes, 2 or 3.
        in_channels: Channels of the input.
        out_channels: Channels of the logits.
        features: Channels a stage, finest first.
        strides: One entry of `dim` numbers a stage; the first is all ones.
        kernel_sizes: One entry of `dim` odd numbers a stage.
        convs_per_stage: Convolutions a stage of the encoder.
        decoder_convs: Convolutions a stage of the decoder, one number fewer.
        deep_supervision: In training mode return the logits of every decoder stage.

    Raises:
        ValueError: The options do not describe one network.
    """

    def __init__(
        self,
        *,
        dim: int,
        in_channels: int,
        out_channels: int,
        features: Sequence[int],
        strides: Sizes,
        kernel_sizes: Sizes,
        convs_per_stage: Sequence[int],
        decoder_convs: Sequence[int],
        deep_supervision: bool = True,
    ) -> None:
        per_stage = {"features": features, "strides": strides, "kernel_sizes": kernel_sizes, "convs_per_stage": convs_per_stage}
        check_stages(dim, per_stage, {"decoder_convs": decoder_convs})
        inputs = (in_channels, *features[:-1])
        stages = [
            conv_stack(dim, channels, n, kernel, stride)
            for channels, n, kernel, stride in zip(zip(inputs, features, strict=True), convs_per_stage, kernel_sizes, strides, strict=True)
        ]
        decoder = Decoder(dim, features, strides, kernel_sizes, decoder_convs, out_channels)
        super().__init__(stages, decoder, strides=strides, deep_supervision=deep_supervision)
