"""UNet++ with the VGG-19 encoder: its graph is Zhou's, node by node."""

from __future__ import annotations

import torch
from torch import Tensor

from autoseg.networks.nested_unet import vgg19_unetpp
from autoseg.networks.vgg_unet import repeat_channels


def test_every_node_sees_all_before_it_and_the_one_below() -> None:
    network = vgg19_unetpp(dim=2, in_channels=1, out_channels=2, features=(4, 6, 8, 8, 8)).eval()
    image = torch.rand(1, 1, 16, 32)
    skips, decoder = network.encoder(repeat_channels(image, 3)), network.decoder

    def node(row: int, column: int) -> Tensor:
        if column == 0:
            return skips[row]
        before = [node(row, earlier) for earlier in range(column)]
        below = decoder.ups[column - 1][row](node(row + 1, column - 1))
        return decoder.nodes[column - 1][row](torch.cat((*before, below), dim=1))

    expected = [decoder.heads[column - 1](node(0, column)) for column in (4, 3, 2, 1)]
    with torch.no_grad():
        assert torch.equal(network(image), expected[0])
        several = network.train()(image)
    assert len(several) == 4
    assert all(torch.equal(one, other) for one, other in zip(several, expected, strict=True))
