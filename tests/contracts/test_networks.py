"""What every network must satisfy. A new one needs its line in `NETWORKS` and small options in `SMALL`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from autoseg.networks import NETWORKS, build_network
from autoseg.networks.catalogue import PAPERS
from autoseg.networks.measure import measure

SMALL: dict[str, dict[str, Any]] = {
    "plain_unet": {"features": [8, 12, 16], "convs_per_stage": [2, 2, 2], "decoder_convs": [2, 2]},
    "residual_unet": {"features": [8, 12, 16], "blocks_per_stage": [1, 2, 2], "decoder_convs": [1, 1]},
    "conze_unet": {"features": [8, 12, 16]},
    "vgg16_unet": {"features": [8, 8, 8, 8, 8]},
    "vgg19_unet": {"features": [8, 8, 8, 8, 8]},
    "vgg19_unetpp": {"features": [8, 8, 8, 8, 8]},
    "cascaded": {"first": "conze_unet", "first_options": {"features": [8, 8]}, "second": "roth_unet", "second_options": {"width": 4}},
    "unet_cascade": {"features": [8, 12]},
    "vgg16_unet_cascade": {"features": [8, 8, 8, 8, 8]},
    "vgg19_unet_cascade": {"features": [8, 8, 8, 8, 8]},
    "roth_unet": {"width": 4},
    "se_resunet": {"width": 8, "levels": 3, "reduction": 4},
    "deeplabv3": {"width": 4, "blocks": [1, 1, 1, 1], "pyramid_channels": 32, "output_stride": 8},
    "vnet": {"width": 2},
    "dense_vnet": {"dropout": 0.1},
    "deepmedic": {"widths": [8, 8, 8], "joint_widths": [16, 16], "dropout": 0.1},
    "pipo_fan": {"features": [8, 8, 12], "norm": "instance"},
    "pipo_unet": {"features": [8, 8, 12]},
    "pipo_resunet": {"features": [8, 8, 12]},
    "dense_unet": {"growth_rate": 4, "blocks": [2, 2, 2], "stem": 8, "last_features": 8},
    "localisation_unet": {"features": 8, "levels": 3},
    "scn": {
        "features": 8,
        "levels": 3,
        "spatial_features": 4,
        "spatial_levels": 2,
        "downsampling": 2,
        "dropout": 0.0,
    },
}
"""Options of a network that is small enough for a test; strides and kernels of three stages are added to those in `PLANNED`."""

PLANNED = ("plain_unet", "residual_unet")
"""Networks that the planner gives strides: they take only sizes that fit these, and have more to satisfy (`TestPlannedNetworks`)."""

TWO_STAGES: dict[str, Any] = {
    "features": [4, 8],
    "strides": [[1, 1], [2, 2]],
    "kernel_sizes": [[3, 3], [3, 3]],
    "convs_per_stage": [1, 1],
    "decoder_convs": [1],
}

SIZE = {2: (16, 24), 3: (8, 8, 16)}
ODD = {2: (13, 7), 3: (5, 7, 10)}
IN, OUT = 2, 3
BUILDS = [(name, dim) for name in NETWORKS for dim in PAPERS[name].dims]


def small(name: str, dim: int, *, channels: tuple[int, int] = (IN, OUT), deep_supervision: bool = True, seed: int = 0) -> torch.nn.Module:
    """A network of a few thousand parameters; a planned one leaves axis 0 as it is in its first step down in 3D."""
    torch.manual_seed(seed)
    strides, kernels = [[1, 1, 1], [1, 2, 2], [2, 2, 2]], [[1, 3, 3], [3, 3, 3], [3, 3, 3]]
    grid = {"strides": [one[-dim:] for one in strides], "kernel_sizes": [one[-dim:] for one in kernels]} if name in PLANNED else {}
    shape = {"dim": dim, "in_channels": channels[0], "out_channels": channels[1]}
    return build_network(name, **shape, deep_supervision=deep_supervision, **grid, **SMALL[name])


def batch(dim: int, n: int = 2, *, channels: int = IN, size: tuple[int, ...] | None = None) -> torch.Tensor:
    return torch.randn(n, channels, *(size or SIZE[dim]), generator=torch.Generator().manual_seed(1))


def every_output(logits: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return logits if isinstance(logits, tuple) else (logits,)


def train_once(network: torch.nn.Module, x: torch.Tensor) -> None:
    """A step that moves every weight, and running statistics where there are some."""
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-2)
    sum(one.square().mean() for one in every_output(network.train()(x))).backward()
    optimiser.step()


def test_every_network_has_small_options_and_a_paper() -> None:
    assert set(SMALL) == set(NETWORKS) == set(PAPERS)


@pytest.mark.parametrize(("name", "dim"), BUILDS)
class TestContract:
    @pytest.mark.parametrize("channels", [(1, 2), (4, 5)])
    def test_logits_have_the_size_of_the_input(self, name: str, dim: int, channels: tuple[int, int]) -> None:
        network = small(name, dim, channels=channels)
        for size in (SIZE[dim],) if name in PLANNED else (SIZE[dim], ODD[dim]):
            x = batch(dim, channels=channels[0], size=size)
            with torch.no_grad():
                logits = network.eval()(x)
                outputs = every_output(network.train()(x))
            assert logits.shape == outputs[0].shape == (2, channels[1], *size)
            assert torch.isfinite(logits).all()
            for finer, coarser in zip(outputs, outputs[1:], strict=False):
                assert coarser.shape[:2] == (2, channels[1])
                assert all(a >= b for a, b in zip(finer.shape[2:], coarser.shape[2:], strict=True))

    def test_one_tiny_image_can_be_trained_on(self, name: str, dim: int) -> None:
        for edge in (8,) if name in PLANNED else (8, 3, 1):
            network = small(name, dim)
            train_once(network, batch(dim, 1, size=(edge,) * dim))
            assert all(torch.isfinite(p).all() for p in network.parameters()), edge
            assert torch.isfinite(network.eval()(batch(dim, 1, size=(edge,) * dim))).all(), edge

    def test_without_deep_supervision_training_returns_one_tensor(self, name: str, dim: int) -> None:
        assert small(name, dim, deep_supervision=False).train()(batch(dim)).shape == (2, OUT, *SIZE[dim])

    def test_deep_supervision_leaves_weights_and_evaluation_as_they_are(self, name: str, dim: int) -> None:
        with_maps, without = small(name, dim).eval(), small(name, dim, deep_supervision=False).eval()
        without.load_state_dict(with_maps.state_dict())
        with torch.no_grad():
            assert torch.equal(with_maps(batch(dim)), without(batch(dim)))

    def test_evaluation_is_repeatable_and_images_do_not_meet(self, name: str, dim: int) -> None:
        network, x = small(name, dim), batch(dim)
        train_once(network, x)
        with torch.no_grad():
            logits = network.eval()(x)
            assert torch.equal(network(x), logits)
            assert torch.allclose(network(x[1:]), logits[1:], atol=1e-4)

    def test_every_parameter_gets_a_finite_gradient(self, name: str, dim: int) -> None:
        network = small(name, dim).train()
        sum(one.square().mean() for one in every_output(network(batch(dim)))).backward()
        assert [key for key, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()] == []

    def test_weights_survive_a_file(self, name: str, dim: int, tmp_path: Path) -> None:
        network = small(name, dim)
        train_once(network, batch(dim))
        torch.save(network.state_dict(), tmp_path / "weights.pt")
        other = small(name, dim, seed=1).eval()
        with torch.no_grad():
            logits = network.eval()(batch(dim))
            assert not torch.equal(other(batch(dim)), logits)
            other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
            assert torch.equal(other(batch(dim)), logits)

    def test_the_same_seed_gives_the_same_weights(self, name: str, dim: int) -> None:
        pairs = zip(small(name, dim).parameters(), small(name, dim).parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)

    def test_half_precision_stays_finite(self, name: str, dim: int) -> None:
        network, x = small(name, dim).train(), batch(dim, size=(8,) * dim)
        with torch.autocast("cpu", torch.bfloat16):
            outputs = every_output(network(x))
        sum(one.float().square().mean() for one in outputs).backward()
        assert all(torch.isfinite(one).all() for one in outputs)
        assert all(torch.isfinite(p.grad).all() for p in network.parameters())
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            assert torch.isfinite(network.eval()(x)).all()

    def test_channels_last_changes_nothing(self, name: str, dim: int) -> None:
        layout = torch.channels_last_3d if dim == 3 else torch.channels_last
        with torch.no_grad():
            expected = small(name, dim).eval()(batch(dim))
            logits = small(name, dim).eval().to(memory_format=layout)(batch(dim).to(memory_format=layout))
        assert torch.allclose(logits, expected, atol=1e-4)


@pytest.mark.parametrize("name", [name for name, dim in BUILDS if dim == 2])
def test_the_cost_is_known_without_computing_anything(name: str) -> None:
    network = small(name, 2)
    cost = measure(network, 2, IN, OUT, SIZE[2])
    assert cost.parameters == sum(p.numel() for p in network.parameters())
    assert cost.flops > cost.parameters  # every weight of a convolution is used at least once, at two operations
    assert cost.elements > math.prod(SIZE[2])


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("name", PLANNED)
class TestPlannedNetworks:
    def test_training_returns_every_decoder_stage_finest_first(self, name: str, dim: int) -> None:
        logits = small(name, dim).train()(batch(dim))
        expected = {2: [(16, 24), (8, 12)], 3: [(8, 8, 16), (8, 4, 8)]}[dim]
        assert isinstance(logits, tuple)
        assert [tuple(one.shape) for one in logits] == [(2, OUT, *size) for size in expected]

    def test_modes_agree(self, name: str, dim: int) -> None:
        network = small(name, dim)
        with torch.no_grad():
            assert torch.equal(network.train()(batch(dim))[0], network.eval()(batch(dim)))

    def test_a_size_that_does_not_fit_is_refused_by_name(self, name: str, dim: int) -> None:
        with pytest.raises(ValueError, match=r"multiples of .*got \(1, 2, 10"):
            small(name, dim)(torch.zeros(1, IN, *(10,) * dim))
        with pytest.raises(ValueError, match="one voxel"):
            small(name, dim)(torch.zeros(1, IN, *{2: (4, 4), 3: (2, 4, 4)}[dim]))
        with pytest.raises(ValueError, match="expected"):
            small(name, dim)(torch.zeros(1, IN, *SIZE[dim][1:]))


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


QUICK = {(name, 2) for name in NETWORKS if name not in ("vgg19_unet", "vgg16_unet_cascade", "vgg19_unet_cascade")}
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
