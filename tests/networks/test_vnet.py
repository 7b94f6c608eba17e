"""The V-Net: its residual connections."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autoseg.networks import build_network
from autoseg.networks.vnet import ResidualStage


def test_the_image_is_added_to_every_channel_of_the_first_stage() -> None:
    stage = ResidualStage(2, (1, 4), 1, norm="none")
    for parameter in stage.body.parameters():
        nn.init.zeros_(parameter)
    x = torch.rand(1, 1, 5, 5)
    assert torch.equal(stage(x), x.expand(1, 4, 5, 5))
    assert isinstance(ResidualStage(2, (4, 4), 1, norm="none").skip, nn.Identity)
    assert isinstance(ResidualStage(2, (3, 4), 1, norm="none").skip, nn.Conv2d)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_the_first_loss_is_small(norm: str) -> None:
    """Nine residual stages without normalisation must not add up to logits in the thousands."""
    torch.manual_seed(0)
    network = build_network("vnet", dim=2, in_channels=1, out_channels=3, norm=norm)
    logits = network(torch.randn(2, 1, 32, 32))
    assert 0.01 < logits.std() < 5
    logits.logsumexp(1).sum().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in (stage.body[-1][0].weight for stage in network.encoder))
