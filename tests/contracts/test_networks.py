"""What every network must satisfy. A new one needs its line in `NETWORKS` and small options in `SMALL`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from autoseg.networks import NETWORKS, build_network

SMALL: dict[str, dict[str, Any]] = {
    "plain_unet": {"features": [8, 12, 16], "convs_per_stage": [2, 2, 2], "decoder_convs": [2, 2]},
    "residual_unet": {"features": [8, 12, 16], "blocks_per_stage": [1, 2, 2], "decoder_convs": [1, 1]},
}
"""Options of a network with three stages; strides and kernels are added by `small`."""

TWO_STAGES: dict[str, Any] = {
    "features": [4, 8],
    "strides": [[1, 1], [2, 2]],
    "kernel_sizes": [[3, 3], [3, 3]],
    "convs_per_stage": [1, 1],
    "decoder_convs": [1],
}

SIZE = {2: (16, 24), 3: (8, 8, 16)}
IN, OUT = 2, 3


def small(name: str, dim: int, *, deep_supervision: bool = True) -> torch.nn.Module:
    """A network of a few thousand parameters; in 3D the first step down leaves axis 0 as it is."""
    torch.manual_seed(0)
    strides, kernels = [[1, 1, 1], [1, 2, 2], [2, 2, 2]], [[1, 3, 3], [3, 3, 3], [3, 3, 3]]
    grid = {"strides": [one[-dim:] for one in strides], "kernel_sizes": [one[-dim:] for one in kernels]}
    return build_network(name, dim=dim, in_channels=IN, out_channels=OUT, deep_supervision=deep_supervision, **grid, **SMALL[name])


def batch(dim: int, n: int = 2) -> torch.Tensor:
    return torch.randn(n, IN, *SIZE[dim], generator=torch.Generator().manual_seed(1))


def test_every_network_has_small_options() -> None:
    assert set(SMALL) == set(NETWORKS)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("name", NETWORKS)
class TestContract:
    def test_evaluation_returns_the_finest_logits(self, name: str, dim: int) -> None:
        with torch.no_grad():
            logits = small(name, dim).eval()(batch(dim))
        assert logits.shape == (2, OUT, *SIZE[dim])
        assert torch.isfinite(logits).all()

    def test_training_returns_every_decoder_stage_finest_first(self, name: str, dim: int) -> None:
        logits = small(name, dim).train()(batch(dim))
        expected = {2: [(16, 24), (8, 12)], 3: [(8, 8, 16), (8, 4, 8)]}[dim]
        assert isinstance(logits, tuple)
        assert [tuple(one.shape) for one in logits] == [(2, OUT, *size) for size in expected]

    def test_without_deep_supervision_training_returns_one_tensor(self, name: str, dim: int) -> None:
        assert small(name, dim, deep_supervision=False).train()(batch(dim)).shape == (2, OUT, *SIZE[dim])

    def test_modes_agree(self, name: str, dim: int) -> None:
        network = small(name, dim)
        with torch.no_grad():
            assert torch.equal(network.train()(batch(dim))[0], network.eval()(batch(dim)))

    def test_every_parameter_gets_a_gradient(self, name: str, dim: int) -> None:
        network = small(name, dim).train()
        sum(one.square().mean() for one in network(batch(dim))).backward()
        assert [key for key, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()] == []

    def test_weights_survive_a_file(self, name: str, dim: int, tmp_path: Path) -> None:
        network = small(name, dim).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.01)
            torch.save(network.state_dict(), tmp_path / "weights.pt")
            other = small(name, dim).eval()
            assert not torch.equal(other(batch(dim)), network(batch(dim)))
            other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
            assert torch.equal(other(batch(dim)), network(batch(dim)))

    def test_the_same_seed_gives_the_same_weights(self, name: str, dim: int) -> None:
        pairs = zip(small(name, dim).parameters(), small(name, dim).parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)

    def test_channels_last_changes_nothing(self, name: str, dim: int) -> None:
        layout = torch.channels_last_3d if dim == 3 else torch.channels_last
        with torch.no_grad():
            expected = small(name, dim).eval()(batch(dim))
            logits = small(name, dim).eval().to(memory_format=layout)(batch(dim).to(memory_format=layout))
        assert torch.allclose(logits, expected, atol=1e-5)

    def test_a_size_that_does_not_fit_is_refused_by_name(self, name: str, dim: int) -> None:
        with pytest.raises(ValueError, match=r"multiples of .*got \(1, 2, 10"):
            small(name, dim)(torch.zeros(1, IN, *(10,) * dim))
        with pytest.raises(ValueError, match="one voxel"):
            small(name, dim)(torch.zeros(1, IN, *{2: (4, 4), 3: (2, 4, 4)}[dim]))
        with pytest.raises(ValueError, match="expected"):
            small(name, dim)(torch.zeros(1, IN, *SIZE[dim][1:]))


@pytest.mark.parametrize("name", NETWORKS)
def test_one_batch_can_be_learnt(name: str) -> None:
    network, target = small(name, 2).train(), torch.zeros(2, *SIZE[2], dtype=torch.long)
    target[0, 4:12, 6:18], target[1, 2:9, 3:11], target[1, 8:15, 14:22] = 1, 1, 2
    image = 0.3 * batch(2)
    image[:, 0] += target
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(80):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(image)[0], target)
        loss.backward()
        optimiser.step()
    accuracy = (network.eval()(image).argmax(1) == target).float().mean().item()
    assert accuracy > 0.95


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
