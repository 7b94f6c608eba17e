"""The localisation network of Thaler et al.: parameters, operations, any size, low memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scn_operations import convolution_operations, linear_upsampling_operations
from torch import nn

from autoseg.networks import build_network
from autoseg.networks.scn_unet import LocalisationUNet, ScnUNet


def small(dim: int = 3, **options: Any) -> LocalisationUNet:
    torch.manual_seed(0)
    return LocalisationUNet(**{"dim": dim, "in_channels": 2, "out_channels": 3, "features": 6, "levels": 3} | options)


def test_parameters_are_those_of_the_paper() -> None:
    with torch.device("meta"):
        network = build_network("localisation_unet", dim=3, in_channels=1, out_channels=2)
    assert sum(p.numel() for p in network.parameters()) == 637_474


@pytest.mark.parametrize(("size", "operations"), [((32, 32, 32), 8_613_207_612), ((80, 80, 256), 430_660_377_660)])
def test_operations_are_those_of_the_paper(size: tuple[int, ...], operations: int) -> None:
    with torch.device("meta"):
        network, x = build_network("localisation_unet", dim=3, in_channels=1, out_channels=2).eval(), torch.zeros(1, 1, *size)
    convolutions, biases = convolution_operations(network, x)
    cubes = x.numel() // 32**3
    interpolation = cubes * (linear_upsampling_operations(2, levels=5, features=32) - 60) + 60
    assert convolutions + biases + interpolation == operations
    assert convolutions == 8_602_058_752 * cubes


@pytest.mark.parametrize("size", [(8, 12), (5, 3), (1, 1), (8, 4, 8), (3, 7, 5), (1, 1, 1)])
def test_any_size(size: tuple[int, ...]) -> None:
    network, x = small(len(size)), torch.randn(2, 2, *size)
    for logits in (network.train()(x), network.eval()(x)):
        assert logits.shape == (2, 3, *size)
        assert torch.isfinite(logits).all()


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("features", [1, 3, 8])
@pytest.mark.parametrize("levels", [1, 2, 4])
def test_low_memory_gives_the_same(dim: int, features: int, levels: int) -> None:
    torch.manual_seed(0)
    network = ScnUNet(dim, 2, 3, features=features, levels=levels, dropout=0.1).eval()
    for key, parameter in network.named_parameters():
        if key.endswith("bias"):
            nn.init.normal_(parameter)
    x = torch.randn(1, 2, *(2 ** (levels - 1) * n for n in (2, 1, 3)[:dim]))
    before = x.clone()
    with torch.inference_mode():
        assert torch.allclose(network.forward_low_memory(x), network(x), atol=1e-5)
    assert torch.equal(x, before)


def test_low_memory_is_for_evaluation_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = small().eval(), torch.randn(1, 2, 5, 4, 8)
    with torch.no_grad():
        expected = network(x)
    network.low_memory = True
    with torch.no_grad():
        assert torch.allclose(network(x), expected, atol=1e-5)
    monkeypatch.setattr(network.unet, "forward_low_memory", None)
    network(x).sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    with torch.no_grad():
        network.train()(x)
        with pytest.raises(TypeError):
            network.eval()(x)


def test_dropout_is_for_training_only() -> None:
    network, x = small(dropout=0.5), torch.randn(1, 2, 8, 8, 8)
    assert not torch.equal(network.train()(x), network(x))
    assert torch.equal(network.eval()(x), network(x))


def test_every_parameter_gets_a_gradient() -> None:
    network = small().train()
    network(torch.randn(1, 2, 8, 8, 8)).square().mean().backward()
    assert [key for key, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_wrong_options_and_inputs_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match="1 or more levels and features, got 0 and 6"):
        small(levels=0)
    with pytest.raises(ValueError, match=r"expected \(B, 2, \*spatial\) with 3 spatial axes, got \(1, 2, 8, 8\)"):
        small()(torch.zeros(1, 2, 8, 8))
