"""DenseUNet: DenseNet's parameter counts, any size, skips that are added."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from autoseg.networks import build_network
from autoseg.networks.dense_unet import DenseUNet

SMALL: dict[str, Any] = {"growth_rate": 4, "blocks": (1, 2), "stem": 6, "last_features": 5}


def small(dim: int = 2, **options: Any) -> DenseUNet:
    torch.manual_seed(0)
    return DenseUNet(**{"dim": dim, "in_channels": 2, "out_channels": 3} | SMALL | options)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameters_are_those_of_densenet_161() -> None:
    with torch.device("meta"):
        network = build_network("dense_unet", dim=2, in_channels=3, out_channels=2)
    assert count(network.encoder) == 26_472_000
    assert network.encoder.widths == [96, 384, 768, 2112, 2208]
    bridge = 2112 * 2208
    decoder = sum(9 * a * b + 2 * b for a, b in [(2208, 768), (768, 384), (384, 96), (96, 96), (96, 64)])
    assert count(network) == 26_472_000 + bridge + decoder + 64 * 2 + 2 == 49_524_162


def test_parameters_are_those_of_densenet_169() -> None:
    with torch.device("meta"):
        network = DenseUNet(dim=2, in_channels=3, out_channels=2, growth_rate=32, blocks=(6, 12, 32, 32), stem=64)
    assert count(network.encoder) == 12_484_480


def test_levels_are_halved() -> None:
    with torch.no_grad():
        maps = small().encoder(torch.zeros(2, 2, 16, 32))
    assert [tuple(one.shape[1:]) for one in maps] == [(6, 8, 16), (10, 4, 8), (13, 2, 4)]


@pytest.mark.parametrize("size", [(16, 8), (9, 5), (1, 1), (8, 9, 3), (1, 1, 1)])
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_any_size_in_training_and_evaluation(size: tuple[int, ...], norm: str) -> None:
    network, x = small(len(size), norm=norm), torch.randn(1, 2, *size)
    for logits in (network.train()(x), network.eval()(x)):
        assert logits.shape == (1, 3, *size)
        assert torch.isfinite(logits).all()


def test_missing_voxels_count_as_zeros_at_the_end() -> None:
    network, x = small().eval(), torch.randn(1, 2, 16, 16)
    x[:, :, 13:] = 0
    with torch.no_grad():
        assert torch.equal(network(x[:, :, :13]), network(x)[:, :, :13])


def test_skips_are_added() -> None:
    network, x = small().eval(), torch.randn(1, 2, 8, 8)
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


def test_dropout_is_for_training_only() -> None:
    network, x = small(dropout=0.5, last_dropout=0.5), torch.randn(2, 2, 8, 8)
    with torch.no_grad():
        assert not torch.equal(network.train()(x), network(x))
        assert torch.equal(network.eval()(x), network(x))


def test_every_parameter_gets_a_gradient() -> None:
    network = small(3, deep_supervision=True).train()
    network(torch.randn(2, 2, 16, 16, 16)).square().mean().backward()
    assert [key for key, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()] == []


def test_wrong_options_and_inputs_say_what_was_expected() -> None:
    for options in ({"blocks": (3,)}, {"blocks": (2, 0)}, {"compression": 0.0}):
        with pytest.raises(ValueError, match="two blocks or more"):
            small(**options)
    with pytest.raises(ValueError, match=r"expected \(B, 2, \*spatial\) with 2 spatial axes, got \(1, 2, 8, 8, 8\)"):
        small()(torch.zeros(1, 2, 8, 8, 8))
