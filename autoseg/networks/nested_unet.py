"""UNet++, a U-Net with nested and dense skip connections, with VGG-19 as encoder.

Zhou et al., UNet++: A nested U-Net architecture for medical image segmentation, DLMIA 2018; with that encoder in Conze et al., Artificial
Intelligence in Medicine 117 (2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .blocks import Sizes, convolution, transposed_convolution
from .vgg_unet import ConvNetwork, conv_relu, vgg_network


class NestedDecoder(nn.Module):
    """The nodes X(i, j) of UNet++: at resolution i, j up-convolutions away from the encoder, which is j = 0.

    Each concatenates all nodes before it at its resolution with the up-convolved node X(i + 1, j - 1) below, and convolves. A 1x1
    convolution at every node of the finest resolution gives logits; all of these exist with and without deep supervision, so that
    the weights fit either way.
    """

    def __init__(self, dim: int, *, features: Sequence[int], strides: Sizes, convs: int, out_channels: int) -> None:
        super().__init__()
        self.ups, self.nodes, self.heads = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for column in range(1, len(features)):
            ups, nodes = nn.ModuleList(), nn.ModuleList()
            for row in range(len(features) - column):
                here, stride = features[row], tuple(strides[row + 1])
                ups.append(transposed_convolution(dim)(features[row + 1], here, stride, stride))
                nodes.append(nn.Sequential(*conv_relu(dim, (column + 1) * here, here, convs)))
            self.ups.append(ups)
            self.nodes.append(nodes)
            self.heads.append(convolution(dim)(features[0], out_channels, 1))

    def forward(self, skips: Sequence[Tensor], several: bool) -> tuple[Tensor, ...]:
        """Logits of the encoder's outputs, all at full resolution, those of the deepest node first; only those where `several` is False."""
        rows = [[skip] for skip in skips]
        for ups, nodes in zip(self.ups, self.nodes, strict=True):
            below = [row[-1] for row in rows[1:]]
            for row, up, node, deeper in zip(rows, ups.children(), nodes.children(), below, strict=False):
                row.append(node(torch.cat((*row, up(deeper)), dim=1)))
        logits = (head(node) for head, node in zip(reversed(self.heads), reversed(rows[0]), strict=False))
        return tuple(logits) if several else (next(logits),)


def vgg19_unetpp(*, node_convs: int = 2, **options: Any) -> ConvNetwork:
    """UNet++ with the 16 convolutions of VGG-19 as encoder (``v19UNet+``, with `pretrained` ``v19pUNet+``).

    Zhou et al., DLMIA 2018; Conze et al., Artificial Intelligence in Medicine, 2021. 36,290,756 parameters in 2D with one channel out, up
    to three in. Two convolutions a node are Zhou's; Conze gives no numbers for this network. Input channels are treated as by
    `vgg_unet.vgg16_unet`.

    Args:
        node_convs: Convolutions a node, at least 1.
        **options: Those of `vgg_unet.vgg16_unet`. With deep supervision the logits of all four nodes of the finest resolution are returned
            in training mode, the deepest first; all have the input's size. Otherwise (and in evaluation) the deepest node's only, which
            Zhou's paper calls the most accurate of the pruned networks; its average over nodes is not taken.

    Raises:
        ValueError: The options do not describe one network, or its weights are not found or do not fit.
    """
    if node_convs < 1:
        raise ValueError(f"vgg19_unetpp: expected node_convs of at least 1, got {node_convs}")
    return vgg_network("vgg19", partial(NestedDecoder, convs=node_convs), **options)
