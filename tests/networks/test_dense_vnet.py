"""The dense V-network: its stacks, its prior."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autoseg.networks.dense_vnet import DenseStack, DenseVNet


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
