"""Every network of the table satisfies the contract, and learns; a new one needs no line here."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from network_contract import IN, OUT, SIZE, NetworkContract, PlannedNetworkContract, batch, every_output, small

from autoseg.networks import NETWORKS, build_network, network_spec
from autoseg.networks.measure import measure

TWO_STAGES: dict[str, Any] = {
    "features": [4, 8],
    "strides": [[1, 1], [2, 2]],
    "kernel_sizes": [[3, 3], [3, 3]],
    "convs_per_stage": [1, 1],
    "decoder_convs": [1],
}

BUILDS = [(name, dim) for name, spec in NETWORKS.items() for dim in spec.dims]


@pytest.mark.parametrize(("name", "dim"), BUILDS)
class TestContract(NetworkContract):
    """Every network, in 2D and 3D."""


@pytest.mark.parametrize(("name", "dim"), [(name, dim) for name, dim in BUILDS if NETWORKS[name].planned])
class TestPlannedNetworks(PlannedNetworkContract):
    """What networks with planned strides satisfy beside that."""


@pytest.mark.parametrize("name", [name for name, dim in BUILDS if dim == 2])
def test_the_cost_is_known_without_computing_anything(name: str) -> None:
    network = small(name, 2)
    cost = measure(network, 2, IN, OUT, SIZE[2])
    assert cost.parameters == sum(p.numel() for p in network.parameters())
    assert cost.flops > cost.parameters  # every weight of a convolution is used at least once, at two operations
    assert cost.elements > math.prod(SIZE[2])


LONGER = dict.fromkeys(("vgg16_unet", "vgg19_unet", "vgg19_unetpp", "vgg16_unet_cascade", "vgg19_unet_cascade"), 100)
LONGER |= dict.fromkeys(("conze_unet", "unet_cascade", "vnet", "scn"), 100)
"""Steps of those that need more than 60 in 2D; in 3D all take three times as many."""

RATE = dict.fromkeys(("conze_unet", "unet_cascade", "scn"), 3e-3)
"""Learning rate of those without normalisation for which 1e-2 is too much."""


def organs(size: tuple[int, ...]) -> torch.Tensor:
    """Two images with one ellipsoid each, of another label: ``(2, *spatial)``."""
    target = torch.zeros(2, *size, dtype=torch.long)
    for label, centre in ((1, 0.5), (2, 0.4)):
        axes = torch.meshgrid(*(torch.linspace(0, 1, edge) - centre for edge in size), indexing="ij")
        target[label - 1][sum(axis.square() for axis in axes) <= 0.37**2] = label
    return target


def learn(name: str, dim: int) -> float:
    """The worse of both organs' Dice after training on one batch, evaluated on the same."""
    edge = 32 if name == "deeplabv3" else 16  # its logits are interpolated from a grid of every eighth voxel
    target = organs((24, 32) if dim == 2 else (edge,) * 3)
    rate, steps = RATE.get(name, 1e-2), LONGER.get(name, 60) * (3 if dim == 3 else 1)
    image = 0.3 * batch(dim, size=tuple(target.shape[1:]))
    image += torch.stack((target == 1, target == 2), dim=1)
    network = small(name, dim).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=rate)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * (1 - step / steps)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(every_output(network(image))[0], target).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
    with torch.no_grad():
        predicted = network.eval()(image).argmax(1)
    both = [(predicted == organ, target == organ) for organ in (1, 2)]
    return min((2 * (a & b).sum() / (a.sum() + b.sum())).item() for a, b in both)


QUICK = {(name, 2) for name in NETWORKS if name not in ("vgg16_unet_cascade", "vgg19_unet_cascade")}
"""What is learnt in each run of the tests; 3D, and what differs from others in size alone, with ``-m slow``."""


@pytest.mark.parametrize(("name", "dim"), [pytest.param(*one, marks=() if one in QUICK else pytest.mark.slow) for one in BUILDS])
def test_one_batch_can_be_learnt(name: str, dim: int) -> None:
    assert learn(name, dim) > 0.95


def test_plain_unet_of_the_hippocampus_plan_has_the_reference_size() -> None:
    network = build_network(
        "plain_unet",
        dim=3,
        in_channels=1,
        out_channels=3,
        features=[32, 64, 128, 256],
        strides=[[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]],
        kernel_sizes=[[3, 3, 3]] * 4,
        convs_per_stage=[2] * 4,
        decoder_convs=[2] * 3,
    )
    assert sum(p.numel() for p in network.parameters()) == 5_603_177
    assert network.divisors == (8, 8, 8)


def test_residual_blocks_start_as_identity() -> None:
    from autoseg.networks.residual_unet import ResidualBlock

    block = ResidualBlock(3, (4, 4), (3, 3, 3), (1, 1, 1))
    block.start_as_identity()
    x = torch.rand(1, 4, 4, 4, 4)
    assert torch.equal(block(x), x)


def test_a_network_from_outside_the_table() -> None:
    network = build_network("autoseg.networks.unet:PlainUNet", dim=2, in_channels=1, out_channels=2, **TWO_STAGES)
    assert network.eval()(torch.zeros(1, 1, 4, 4)).shape == (1, 2, 4, 4)


def test_wrong_names_and_options_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match="Did you mean 'plain_unet'"):
        build_network("plain_net", dim=2, in_channels=1, out_channels=2)
    with pytest.raises(ValueError, match="depth"):
        build_network("plain_unet", dim=2, in_channels=1, out_channels=2, depth=3)
    wrong = {
        "one fewer": {"decoder_convs": [1, 1]},
        "2 numbers": {"kernel_sizes": [[3, 3, 3]] * 2},
        "first stage": {"strides": [[2, 2], [2, 2]]},
        "odd": {"kernel_sizes": [[2, 2]] * 2},
    }
    for message, options in wrong.items():
        with pytest.raises(ValueError, match=message):
            build_network("plain_unet", dim=2, in_channels=1, out_channels=2, **(TWO_STAGES | options))
    with pytest.raises(ValueError, match="dim 2 or 3"):
        build_network("plain_unet", dim=4, in_channels=1, out_channels=2, **TWO_STAGES)


def test_a_class_derived_from_a_network_of_the_table_has_its_entry() -> None:
    assert network_spec("autoseg.networks.residual_unet:ResidualUNet").planned == "residual"
    assert network_spec("autoseg.networks.dense_vnet:DenseVNet").pointwise_head is False
    outside = network_spec("autoseg.networks.vgg_unet:conze_unet")
    assert (outside.factory, outside.paper, outside.planned) == ("autoseg.networks.vgg_unet:conze_unet", "", None)
    with pytest.raises(ValueError, match="cannot be imported"):
        network_spec("autoseg.networks.vnet:WNet")
