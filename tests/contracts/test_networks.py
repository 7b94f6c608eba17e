"""Every network of the table satisfies the contract, and learns; a new one needs no line here."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from network_contract import IN, OUT, SIZE, NetworkContract, PlannedNetworkContract, batch, every_output, small

from autoseg.networks import NETWORKS, build_network, network_spec
from autoseg.networks.network_cost import measure
from autoseg.runtime.registry import allowed_code

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


def test_residual_blocks_start_as_identity() -> None:
    from autoseg.networks.residual_unet import ResidualBlock

    block = ResidualBlock(3, (4, 4), (3, 3, 3), (1, 1, 1))
    block.start_as_identity()
    x = torch.rand(1, 4, 4, 4, 4)
    assert torch.equal(block(x), x)


def test_a_network_from_outside_the_table() -> None:
    network = build_network("autoseg.networks.unet:PlainUNet", dim=2, in_channels=1, out_channels=2, **TWO_STAGES)
    assert network.eval()(torch.zeros(1, 1, 4, 4)).shape == (1, 2, 4, 4)


HIPPOCAMPUS = {
    "features": [32, 64, 128, 256],
    "strides": [[1, 1, 1], *[[2, 2, 2]] * 3],
    "kernel_sizes": [[3, 3, 3]] * 4,
    "convs_per_stage": [2] * 4,
    "decoder_convs": [2] * 3,
}
"""The plan for which nnU-Net's network has 5,603,177 parameters."""

RGB = {"in_channels": 3}
ONE_OUT = {"out_channels": 1}
PLAIN = {"in_channels": 3, "adaptive_fusion": False}


@pytest.mark.parametrize(
    ("name", "part", "options", "expected"),
    [
        ("plain_unet", "", {"dim": 3, "out_channels": 3, **HIPPOCAMPUS}, 5_603_177),
        ("vgg16_unet", "encoder", RGB, 14_714_688),
        ("vgg16_unet", "", ONE_OUT, 28_804_545),
        ("vgg19_unet", "encoder", RGB, 20_024_384),
        ("vgg19_unet", "", ONE_OUT, 37_064_129),
        ("vgg19_unetpp", "encoder", RGB, 20_024_384),
        ("vgg19_unetpp", "", ONE_OUT, 36_290_756),
        ("conze_unet", "encoder", {}, 2_351_840),
        ("conze_unet", "", ONE_OUT, 5_137_569),
        ("vgg16_unet_cascade", "", ONE_OUT, 2 * 28_804_545),
        ("vgg19_unet_cascade", "", ONE_OUT, 2 * 37_064_129),
        ("unet_cascade", "", ONE_OUT, 2 * 5_137_569 + 32 * 9),
        ("deeplabv3", "backbone", RGB, 23_508_032),
        ("deeplabv3", "", {}, 39_037_122),
        ("deeplabv3", "", {"dim": 3}, 90_001_986),
        ("deeplabv3", "", {"output_stride": 8, "norm": "instance"}, 39_037_122),
        ("deeplabv3", "backbone", {**RGB, "block": "basic", "blocks": [2, 2, 2, 2]}, 11_176_512),
        ("deepmedic", "", {}, 246_362),
        ("deepmedic", "", {"dim": 3}, 657_842),
        ("dense_unet", "encoder", RGB, 26_472_000),
        ("dense_unet", "", RGB, 49_524_162),
        ("dense_unet", "encoder", {**RGB, "growth_rate": 32, "blocks": (6, 12, 32, 32), "stem": 64}, 12_484_480),
        ("dense_vnet", "", {}, 289_118),
        ("dense_vnet", "", {"dim": 3}, 866_978),
        ("dense_vnet", "", {"dim": 3, "prior_size": 12}, 866_978 + 2 * 12**3),
        ("pipo_fan", "", {**PLAIN, "input_scales": 3, "output_scales": 1}, 15_981_634),
        ("pipo_fan", "", {**PLAIN, "output_scales": 1}, 24_740_034),
        ("pipo_fan", "", {**PLAIN, "input_scales": 3, "output_scales": 3}, 16_258_566),
        ("pipo_fan", "", {**PLAIN, "output_scales": 3}, 25_016_966),
        ("pipo_fan", "", PLAIN, 28_270_986),
        ("pipo_fan", "", {**PLAIN, "in_channels": 1}, 28_269_834),
        ("pipo_fan", "", {**PLAIN, "out_channels": 4}, 28_271_636),
        ("pipo_fan", "", {**RGB, "out_channels": 4}, 28_271_636 + 3 * 4 + 13),
        ("pipo_fan", "", {**PLAIN, "identity_shortcuts": True}, 27_907_082),
        ("pipo_fan", "", {**RGB, "input_scales": 1, "output_scales": 1}, 14_191_426),
        ("pipo_unet", "", RGB, 13_395_394),
        ("pipo_resunet", "", RGB, 14_191_426),
        ("roth_unet", "", {"dim": 3}, 19_070_498),
        ("roth_unet", "", {"dim": 3, "valid": True, "norm": "instance"}, 19_070_498),
        ("roth_unet", "", {"dim": 3, "in_channels": 3, "out_channels": 3}, 19_069_955 + 2336),  # Cicek's norms have half as many
        ("scn", "local", {"dim": 3, "out_channels": 5}, 637_573),
        ("scn", "spatial", {"dim": 3, "out_channels": 5}, 632_517),
        ("localisation_unet", "", {"dim": 3}, 637_474),
        ("se_resunet", "", {}, 32_656_378),
        ("se_resunet", "", {"dim": 3, "norm": "instance"}, 31_573_302),
        ("vnet", "", {"norm": "none"}, 13_275_346),
        ("vnet", "", {"dim": 3, "norm": "none"}, 65_175_314),
        ("vnet", "", {"dim": 3, "norm": "batch"}, 65_175_314 + 3456),
    ],
)
def test_the_number_of_parameters_is_the_published_one(name: str, part: str, options: dict[str, Any], expected: int) -> None:
    with torch.device("meta"):
        network = build_network(name, **{"dim": 2, "in_channels": 1, "out_channels": 2} | options)
    assert sum(p.numel() for p in network.get_submodule(part).parameters()) == expected


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("vnet", "none"),
        *(
            (name, norm)
            for name in ("deeplabv3", "deepmedic", "dense_unet", "dense_vnet", "pipo_fan", "roth_unet", "se_resunet", "vnet")
            for norm in ("batch", "instance")
        ),
    ],
)
def test_one_tiny_image_can_be_trained_on_with_any_norm(name: str, norm: str, dim: int) -> None:
    network = small(name, dim, norm=norm)
    for edge in (1, 4, 8):
        logits = every_output(network.train()(batch(dim, 1, size=(edge,) * dim)))
        sum(one.square().mean() for one in logits).backward()
        assert all(torch.isfinite(p.grad).all() for p in network.parameters())
        assert network.eval()(batch(dim, 1, size=(edge,) * dim)).shape == (1, OUT, *(edge,) * dim)


@pytest.mark.parametrize("name", ["conze_unet", "dense_unet", "se_resunet", "vgg16_unet", "vnet"])
def test_missing_voxels_count_as_zeros_at_the_end(name: str) -> None:
    network, x = small(name, 2).eval(), batch(2, size=(16, 16))
    x[:, :, 13:] = 0
    with torch.no_grad():
        assert torch.equal(network(x[:, :, :13]), network(x)[:, :, :13])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dense_unet", {"dropout": 0.5}),
        ("dense_unet", {"last_dropout": 0.5}),
        ("localisation_unet", {"dropout": 0.5}),
        ("scn", {"local_dropout": 0.0, "image_dropout": 0.0}),
        ("scn", {"local_dropout": 0.0, "salt_and_pepper": 0.0}),
        ("scn", {"image_dropout": 0.0, "salt_and_pepper": 0.0}),
    ],
)
def test_noise_of_training(name: str, options: dict[str, float]) -> None:
    """That evaluation has none is part of the contract."""
    network = small(name, 2, **options).train()
    with torch.no_grad():
        assert not torch.equal(network(batch(2, 8)), network(batch(2, 8)))


TINY = {"features": (4, 6, 8, 8, 8)}


@pytest.mark.parametrize(
    ("name", "options", "fact"),
    [
        ("plain_net", {}, "Did you mean 'plain_unet'"),
        ("plain_unet", {"depth": 3}, "depth"),
        ("plain_unet", {**TWO_STAGES, "decoder_convs": [1, 1]}, "one fewer"),
        ("plain_unet", {**TWO_STAGES, "kernel_sizes": [[3, 3, 3]] * 2}, "2 numbers"),
        ("plain_unet", {**TWO_STAGES, "strides": [[2, 2], [2, 2]]}, "first stage"),
        ("plain_unet", {**TWO_STAGES, "kernel_sizes": [[2, 2]] * 2}, "odd"),
        ("plain_unet", {**TWO_STAGES, "dim": 4}, "dim 2 or 3"),
        ("cascaded", {"first": "plain_net"}, "Did you mean 'plain_unet'"),
        ("unet_cascade", {"depth": 3}, "depth"),
        ("vgg16_unet_cascade", {"dim": 3, "pretrained": "imagenet"}, "this network is 3D"),
        ("vgg16_unet", {"features": (4, 8)}, r"5 features and 5 strides of 2 numbers.*\[4, 8\]"),
        ("vgg16_unet", {"strides": [[2, 2]] * 5}, "first all ones"),
        ("vgg16_unet", {"dim": 3, "strides": [[1, 1]] * 5}, "3 numbers"),
        ("vgg16_unet", {"dim": 4}, "dim 2 or 3"),
        ("conze_unet", {"features": (4,)}, "2 features"),
        ("vgg19_unetpp", {"node_convs": 0}, "node_convs.*got 0"),
        ("vgg19_unetpp", {"features": (4, 8, 8)}, "5 features"),
        ("vgg19_unetpp", {**TINY, "dim": 3, "pretrained": "imagenet"}, "this network is 3D"),
        ("deeplabv3", {"output_stride": 32}, "8 or 16"),
        ("deeplabv3", {"blocks": (1, 1)}, "four stages"),
        ("deepmedic", {"widths": ()}, "at least one width"),
        ("dense_unet", {"blocks": (3,)}, "two blocks or more"),
        ("dense_unet", {"blocks": (2, 0)}, "two blocks or more"),
        ("dense_unet", {"compression": 0.0}, "two blocks or more"),
        ("dense_vnet", {"prior_size": -1}, "prior_size"),
        ("pipo_fan", {"input_scales": 6}, "1 to 5 scales"),
        ("pipo_fan", {"output_scales": 0}, "1 to 5 scales"),
        ("scn", {"out_channels": 1}, "2 or more outputs"),
        ("localisation_unet", {"levels": 0}, "1 or more levels.*got 0"),
        ("se_resunet", {"levels": 0}, "levels"),
        ("se_resunet", {"norm": "layer"}, "batch, instance"),
    ],
)
def test_options_that_describe_no_network_are_refused(name: str, options: dict[str, Any], fact: str) -> None:
    with pytest.raises(ValueError, match=fact):
        build_network(name, **{"dim": 2, "in_channels": 1, "out_channels": 2} | options)


@pytest.mark.parametrize("name", ["dense_unet", "localisation_unet", "pipo_fan", "scn", "vgg16_unet"])
@pytest.mark.parametrize("shape", [(1, IN - 1, 8, 8), (1, IN, 8, 8, 8)])
def test_batches_of_other_channels_or_axes_are_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"expected \(B, .*spatial.*, {', '.join(map(str, shape[2:]))}\)"):
        small(name, 2)(torch.zeros(shape))


def test_a_class_derived_from_a_network_of_the_table_has_its_entry() -> None:
    assert network_spec("autoseg.networks.residual_unet:ResidualUNet").planned == "residual"
    assert network_spec("autoseg.networks.dense_vnet:DenseVNet").pointwise_head is False
    with allowed_code(["autoseg.networks.vgg_unet"]):
        outside = network_spec("autoseg.networks.vgg_unet:conze_unet")
    assert (outside.factory, outside.paper, outside.planned) == ("autoseg.networks.vgg_unet:conze_unet", "", None)
    with allowed_code(["autoseg.networks.vnet"]), pytest.raises(ValueError, match="cannot be imported"):
        network_spec("autoseg.networks.vnet:WNet")
