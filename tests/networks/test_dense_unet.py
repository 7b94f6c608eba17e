"""DenseUNet: levels that are halved, skips that are added."""

from __future__ import annotations

import torch
from torch import nn

from autoseg.networks.dense_unet import DenseUNet

NETWORK = DenseUNet(dim=2, in_channels=2, out_channels=3, growth_rate=4, blocks=(1, 2), stem=6, last_features=5).eval()


def test_levels_are_halved() -> None:
    with torch.no_grad():
        maps = NETWORK.encoder(torch.zeros(2, 2, 16, 32))
    assert [tuple(one.shape[1:]) for one in maps] == [(6, 8, 16), (10, 4, 8), (13, 2, 4)]


def test_skips_are_added() -> None:
    network, x = NETWORK, torch.randn(1, 2, 8, 8)
    inputs: list[torch.Tensor] = []
    for stage in network.stages:
        stage.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    with torch.no_grad():
        network(x)
        stem, first, second = network.encoder(x)
        up = nn.Upsample(scale_factor=2, mode="bilinear")
        assert torch.allclose(inputs[0], up(second) + network.bridge(first))
        assert torch.allclose(inputs[1], up(network.stages[0](inputs[0])) + stem)
        assert torch.allclose(inputs[2], up(network.stages[1](inputs[1])))
