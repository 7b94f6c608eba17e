"""The V-Net: its receptive fields, its weights, and its residual connections."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autoseg.networks import build_network
from autoseg.networks.vnet import CONVS, ResidualStage, VNet


def on_meta(dim: int = 3, **options: object) -> nn.Module:
    with torch.device("meta"):
        return build_network("vnet", **{"dim": dim, "in_channels": 1, "out_channels": 2, "norm": "none", **options})


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_receptive_fields_of_table_1() -> None:
    field, step, found = 1, 1, []
    for stage in range(5):
        if stage:
            field, step = field + step, 2 * step
        field += 4 * step * CONVS[stage]
        found.append(field)
    for stage in (3, 2, 1, 0):
        step //= 2
        field += step + 4 * step * CONVS[stage]
        found.append(field)
    assert found == [5, 22, 72, 172, 372, 476, 528, 546, 551]


@pytest.mark.parametrize(("dim", "expected"), [(2, 13_275_346), (3, 65_175_314)])
def test_the_number_of_parameters(dim: int, expected: int) -> None:
    def convolution(inputs: int, outputs: int, kernel: int) -> int:
        return kernel**dim * inputs * outputs + outputs + outputs  # weights, bias, PReLU

    total = convolution(1, 16, 5)
    for here, n in ((32, 2), (64, 3), (128, 3), (256, 3)):
        total += convolution(here // 2, here, 2) + n * convolution(here, here, 5)
    for below, here, n in ((256, 128, 3), (256, 64, 3), (128, 32, 2), (64, 16, 1)):
        total += convolution(below, here, 2) + n * convolution(2 * here, 2 * here, 5)
    assert count(on_meta(dim)) == total + 2 * 32 + 2 == expected


def test_the_paper_has_no_normalisation_and_the_others_have_no_biases_instead() -> None:
    assert not [m for m in on_meta().modules() if isinstance(m, (nn.BatchNorm3d, nn.InstanceNorm3d))]
    with_norm = on_meta(norm="batch")
    units = sum(isinstance(m, nn.BatchNorm3d) for m in with_norm.modules())
    assert units == sum(CONVS) + sum(CONVS[:-1]) + 8
    biases = [m for m in with_norm.modules() if isinstance(m, (nn.Conv3d, nn.ConvTranspose3d)) and m.bias is not None]
    assert biases == [with_norm.head]


def test_the_image_is_added_to_every_channel_of_the_first_stage() -> None:
    stage = ResidualStage(2, (1, 4), 1, norm="none")
    for parameter in stage.body.parameters():
        nn.init.zeros_(parameter)
    x = torch.rand(1, 1, 5, 5)
    assert torch.equal(stage(x), x.expand(1, 4, 5, 5))
    assert isinstance(ResidualStage(2, (4, 4), 1, norm="none").skip, nn.Identity)
    assert isinstance(ResidualStage(2, (3, 4), 1, norm="none").skip, nn.Conv2d)


@pytest.mark.parametrize("norm", ["none", "batch", "instance"])
def test_logits_are_the_head_of_the_features_for_any_size(norm: str) -> None:
    for dim in (2, 3):
        network = VNet(dim=dim, in_channels=2, out_channels=3, width=2, norm=norm)
        for size in ((8, 8, 8), (1, 5, 17)):
            x = torch.randn(1, 2, *size[:dim])
            network.train()(x).sum().backward()
            with torch.no_grad():
                features = network.eval().features(x)
                assert features.shape == (1, 4, *x.shape[2:])
                assert torch.equal(network.head(features), network(x))


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_the_first_loss_is_small(norm: str) -> None:
    """Nine residual stages without normalisation must not add up to logits in the thousands."""
    torch.manual_seed(0)
    network = build_network("vnet", dim=2, in_channels=1, out_channels=3, norm=norm)
    logits = network(torch.randn(2, 1, 32, 32))
    assert 0.01 < logits.std() < 5
    logits.logsumexp(1).sum().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in (stage.body[-1][0].weight for stage in network.encoder))
