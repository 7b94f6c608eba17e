"""The dense V-network: its stacks, its prior, its size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autoseg.networks import build_network
from autoseg.networks.dense_vnet import DenseStack, DenseVNet


def count(dim: int, **options: object) -> int:
    with torch.device("meta"):
        network = build_network("dense_vnet", dim=dim, in_channels=1, out_channels=2, **options)
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("dim", "expected"), [(2, 289_118), (3, 866_978)])
def test_the_number_of_parameters(dim: int, expected: int) -> None:
    def unit(inputs: int, outputs: int, kernel: int = 3) -> int:
        return kernel**dim * inputs * outputs + 2 * outputs

    total, inputs = unit(1, 24, kernel=5) + 2, 25
    for n, growth, skip in ((5, 4, 12), (10, 8, 24), (10, 16, 24)):
        total += sum(unit(inputs + i * growth, growth) for i in range(n))
        total += unit(inputs + n * growth, skip)
        total += unit(inputs + n * growth, 24) if growth < 16 else 0
        inputs = 24
    assert count(dim) == total + 3**dim * 61 * 2 + 2 == expected
    assert count(dim, prior_size=12) == expected + 2 * 12**dim


def test_a_stack_keeps_its_input_and_adds_what_each_convolution_gives() -> None:
    stack = DenseStack(3, 3, 4, 5, dropout=0.0, norm="batch").eval()
    x = torch.randn(1, 3, 4, 4, 4)
    with torch.no_grad():
        stacked = stack(x)
        assert stacked.shape == (1, 23, 4, 4, 4)
        assert torch.equal(stacked[:, :3], x)
        assert torch.equal(stacked[:, 7:11], stack.units[1](stacked[:, :7]))


def test_all_but_the_last_convolution_of_a_stack_drop_channels() -> None:
    stack = DenseStack(2, 3, 4, 3, dropout=0.5, norm="batch")
    assert [isinstance(unit[-1], nn.Dropout2d) for unit in stack.units] == [True, True, False]


def test_the_prior_is_added_to_the_logits_at_its_place() -> None:
    torch.manual_seed(0)
    network = DenseVNet(dim=2, in_channels=1, out_channels=2, prior_size=3).eval()
    x = torch.randn(1, 1, 9, 15)
    with torch.no_grad():
        before = network(x)
        network.prior[0, 1, 0, :] = 4.0
        change = network(x) - before
    assert torch.equal(change[:, 0], torch.zeros(1, 9, 15))
    assert change[0, 1, 0].tolist() == pytest.approx([4.0] * 15, abs=1e-5)
    assert change[0, 1, -3:].abs().max() == 0
    with pytest.raises(ValueError, match="prior_size"):
        count(2, prior_size=-1)


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("dim", [2, 3])
def test_one_tiny_image_can_be_trained_on(dim: int, norm: str) -> None:
    network = DenseVNet(dim=dim, in_channels=1, out_channels=2, norm=norm).train()
    for edge in (1, 5, 8):
        logits = network(torch.randn(1, 1, *(edge,) * dim))
        logits.square().mean().backward()
        assert logits.shape == (1, 2, *(edge,) * dim)
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())
