"""The SE-ResUNet and its squeeze-and-excitation."""

from __future__ import annotations

import torch

from autoseg.networks.se_resunet import SEResidualBlock, SEResUNet, SqueezeExcitation


def test_a_wider_network_is_not_made_narrower_by_the_limit_of_its_levels() -> None:
    with torch.device("meta"):
        network = SEResUNet(dim=3, in_channels=1, out_channels=2, width=400, levels=2)
    assert network.features(torch.empty(1, 1, 4, 4, 4, device="meta")).shape == (1, 400, 4, 4, 4)


def test_the_gate_scales_each_channel_by_one_number() -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 8, 3, 4, 5) + 0.5
    ratio = (SqueezeExcitation(3, 8, 4)(x) / x).flatten(2)
    assert torch.allclose(ratio, ratio[..., :1].expand_as(ratio), atol=1e-6)
    assert ((ratio > 0) & (ratio < 1)).all()
    assert len(set(ratio[..., 0].flatten().tolist())) == 16


def test_a_block_without_weights_passes_its_input_on() -> None:
    unit = SEResidualBlock(2, (4, 4), reduction=2, norm="batch").eval()
    for parameter in unit.body.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.rand(1, 4, 5, 5)
    assert torch.equal(unit(x), x)
