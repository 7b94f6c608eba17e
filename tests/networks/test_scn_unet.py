"""The localisation network of Thaler et al.: operations, low memory."""

from __future__ import annotations

import pytest
import torch
from scn_operations import convolution_operations, linear_upsampling_operations
from torch import nn

from autoseg.networks import build_network
from autoseg.networks.scn_unet import LocalisationUNet, ScnUNet


@pytest.mark.parametrize(("size", "operations"), [((32, 32, 32), 8_613_207_612), ((80, 80, 256), 430_660_377_660)])
def test_operations_are_those_of_the_paper(size: tuple[int, ...], operations: int) -> None:
    with torch.device("meta"):
        network, x = build_network("localisation_unet", dim=3, in_channels=1, out_channels=2).eval(), torch.zeros(1, 1, *size)
    convolutions, biases = convolution_operations(network, x)
    cubes = x.numel() // 32**3
    interpolation = cubes * (linear_upsampling_operations(2, levels=5, features=32) - 60) + 60
    assert convolutions + biases + interpolation == operations
    assert convolutions == 8_602_058_752 * cubes


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
    network = LocalisationUNet(dim=3, in_channels=2, out_channels=3, features=6, levels=3).eval()
    x = torch.randn(1, 2, 5, 4, 8)
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
