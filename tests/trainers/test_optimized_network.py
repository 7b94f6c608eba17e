"""A network with its optimiser and moving average: steps, and states that go on."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from autoseg.trainers.gradient_clipping import GradientClip
from autoseg.trainers.optimized_network import OptimizedNetwork


def optimized(average_decay: float = 0.9) -> OptimizedNetwork:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    return OptimizedNetwork(network, optimizer, clip=GradientClip(12.0, 0.0), average_decay=average_decay)


def descend(one: OptimizedNetwork, step: int, factor: float = 1.0) -> bool:
    image = torch.randn(2, 1, 5, 5, generator=torch.Generator().manual_seed(step))
    return one.descend(factor * one.network(image).square().sum(), step)


def test_the_average_warms_up_and_counts_are_copied():
    one = optimized()
    means = {name: tensor.clone() for name, tensor in one.network.state_dict().items()}
    for step in range(4):
        assert descend(one, step)
        for name, tensor in one.network.state_dict().items():
            means[name] = torch.lerp(means[name], tensor, 1 - (1 + step) / (10 + step)) if tensor.is_floating_point() else tensor.clone()
    assert all(torch.equal(tensor, means[name]) for name, tensor in one.final.state_dict().items())


def test_a_gradient_that_is_not_finite_moves_nothing():
    one = optimized()
    parameters = [parameter.detach().clone() for parameter in (*one.network.parameters(), *one.final.parameters())]
    assert not descend(one, 0, torch.nan)
    assert all(torch.equal(*pair) for pair in zip(parameters, (*one.network.parameters(), *one.final.parameters()), strict=True))


@pytest.mark.parametrize("average", [0.0, 0.9])
@pytest.mark.parametrize(("name", "prefix"), [("network", ""), ("locator", "locator_")])
def test_it_goes_on_from_its_states_which_have_the_names_of_checkpoints(name, prefix, average):
    one, two = optimized(average), optimized(average)
    descend(one, 0)
    states = one.states(name)
    assert set(states) == {name, f"{prefix}optimizer", *([f"{prefix}average"] if average else [])}
    two.load(copy.deepcopy(states), name)
    for running in (one, two):
        running.learning_rate = 0.01
        descend(running, 1)
    assert two.learning_rate == 0.01
    for network, other in ((one.network, two.network), (one.final, two.final)):
        assert all(torch.equal(tensor, other.state_dict()[key]) for key, tensor in network.state_dict().items())
    assert (one.final is one.network) == (not average)
