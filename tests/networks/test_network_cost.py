"""What a network costs, counted without computing anything: against numbers worked out by hand and against the planner's estimate."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from autoseg.networks import build_network
from autoseg.networks.network_cost import NetworkCost, measure
from autoseg.planners.memory import conv_elements
from autoseg.planners.patch import PRESETS, Setting, Sizing, network_options
from autoseg.planners.topology import plan_topology
from autoseg.schema import Labels


class Two(nn.Module):
    """A convolution, a transposed one, and a third that only training uses."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(4, 3, 2, 2, bias=False)
        self.extra = nn.Conv2d(3, 5, 1)
        self.register_buffer("scale", torch.ones(3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        y = self.up(torch.relu(self.down(x))) * self.scale
        return (y, self.extra(y)) if self.training else y


def test_numbers_worked_out_by_hand() -> None:
    parameters = (9 * 2 * 4 + 4) + 4 * 4 * 3 + (3 * 5 + 5)
    flops = 2 * (9 * 2 * 4 * 4 * 5) + 2 * (4 * 4 * 3 * 4 * 5)
    elements = 4 * 4 * 5 + 3 * 8 * 10 + 5 * 8 * 10
    assert measure(Two(), 2, 2, 3, (8, 10)) == NetworkCost(parameters, flops, elements)


def test_a_network_that_is_measured_stays_as_it_is() -> None:
    network = Two().eval()
    before = copy.deepcopy(network.state_dict())
    measure(network, 2, 2, 3, (8, 10))
    assert not network.training
    assert not network.down._forward_hooks
    assert all(torch.equal(before[key], value) and value.device.type == "cpu" for key, value in network.state_dict().items())


def test_numbers_are_not_copied() -> None:
    """A terabyte of weights is measured on the spot."""
    with torch.device("meta"):
        network = nn.Conv3d(10**6, 10**4, 3, padding=1)
    assert measure(network, 3, 10**6, 10**4, (2, 2, 2)).flops == 2 * 27 * 10**10 * 8


@pytest.mark.parametrize("name", ["plain_unet", "residual_unet"])
@pytest.mark.parametrize(("spacing", "patch"), [((1, 1), (64, 48)), ((3, 1, 1), (8, 32, 32)), ((1, 1, 1), (24, 24, 16))])
def test_elements_are_the_planners(name: str, spacing: tuple[float, ...], patch: tuple[int, ...]) -> None:
    topology = plan_topology(spacing, patch)
    options = network_options(topology, name)
    setting = Setting(PRESETS["default"], 8.0, 1 + len(Labels(("a", "b"), ((1,), (2,))).names))
    sizing = Sizing(topology.patch_size, 2, "plain_unet", options, topology.divisor, 0, 1.0)
    found = measure(name, len(patch), 1, 3, topology.patch_size, deep_supervision=False, **options)
    assert found.elements == conv_elements(sizing, setting.label_keys)
    assert conv_elements(sizing) == found.elements - 3 * torch.Size(topology.patch_size).numel()
    with torch.device("meta"):
        network = build_network(name, dim=len(patch), in_channels=1, out_channels=3, deep_supervision=False, **options)
    assert found == measure(network, len(patch), 1, 3, topology.patch_size)


def test_deep_supervision_adds_its_maps_to_training_alone() -> None:
    options = network_options(plan_topology((1, 1), (32, 32)), "plain_unet")
    with_maps, without = (measure("plain_unet", 2, 1, 3, (32, 32), deep_supervision=on, **options) for on in (True, False))
    assert with_maps.elements - without.elements == 3 * (16 * 16 + 8 * 8)
    assert with_maps.flops == without.flops
    assert with_maps.parameters == without.parameters


def test_channels_classes_and_patch_are_counted() -> None:
    small, large = measure("deepmedic", 2, 1, 2, (9, 9)), measure("deepmedic", 2, 4, 5, (18, 9))
    assert large.parameters - small.parameters == 2 * 3 * 9 * 30 + 3 * 151
    assert large.flops > 2 * small.flops
    assert large.elements == 2 * small.elements + 3 * 18 * 9


def test_what_cannot_be_measured_says_why() -> None:
    with pytest.raises(ValueError, match="3 sizes"):
        measure("vnet", 3, 1, 2, (8, 8))
    with pytest.raises(ValueError, match="at least one voxel"):
        measure("vnet", 2, 1, 2, (8, 0))
    with pytest.raises(ValueError, match="no options"):
        measure(Two(), 2, 2, 3, (8, 8), width=3)
    with pytest.raises(ValueError, match="expected one of"):
        measure("v-nett", 2, 1, 2, (8, 8))
    with pytest.raises(ValueError, match="cannot be built"):
        measure("plain_unet", 2, 1, 2, (8, 8))
