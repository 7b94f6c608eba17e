"""What every network must satisfy, as classes of checks: for the networks of the table, and for the example of CONTRIBUTING.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from autoseg.networks import build_network, network_spec

SIZE = {2: (16, 24), 3: (8, 8, 16)}
ODD = {2: (13, 7), 3: (5, 7, 10)}
IN, OUT = 2, 3


def small(name: str, dim: int, *, channels: tuple[int, int] = (IN, OUT), seed: int = 0, **options: Any) -> torch.nn.Module:
    """A network of a few thousand parameters; a planned one leaves axis 0 as it is in its first step down in 3D."""
    torch.manual_seed(seed)
    spec, strides, kernels = network_spec(name), [[1, 1, 1], [1, 2, 2], [2, 2, 2]], [[1, 3, 3], [3, 3, 3], [3, 3, 3]]
    grid = {"strides": [one[-dim:] for one in strides], "kernel_sizes": [one[-dim:] for one in kernels]} if spec.planned else {}
    return build_network(name, dim=dim, in_channels=channels[0], out_channels=channels[1], **grid | dict(spec.small) | options)


def sizes(name: str, dim: int) -> tuple[tuple[int, ...], ...]:
    """Image sizes that a network must take: any, or for a planned one those that fit its strides."""
    return (SIZE[dim],) if network_spec(name).planned else (SIZE[dim], ODD[dim])


def batch(dim: int, n: int = 2, *, channels: int = IN, size: tuple[int, ...] | None = None) -> torch.Tensor:
    return torch.randn(n, channels, *(size or SIZE[dim]), generator=torch.Generator().manual_seed(1))


def every_output(logits: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return logits if isinstance(logits, tuple) else (logits,)


def train_once(network: torch.nn.Module, x: torch.Tensor) -> None:
    """A step that moves every weight, and running statistics where there are some."""
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-2)
    sum(one.square().mean() for one in every_output(network.train()(x))).backward()
    optimiser.step()


class NetworkContract:
    @pytest.mark.parametrize("channels", [(1, 2), (4, 5)])
    def test_logits_have_the_size_of_the_input(self, name: str, dim: int, channels: tuple[int, int]) -> None:
        network = small(name, dim, channels=channels)
        for size in sizes(name, dim):
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
        for edge in (8,) if network_spec(name).planned else (8, 3, 1):
            network = small(name, dim)
            train_once(network, batch(dim, 1, size=(edge,) * dim))
            assert all(torch.isfinite(p).all() for p in network.parameters()), edge
            assert torch.isfinite(network.eval()(batch(dim, 1, size=(edge,) * dim))).all(), edge

    def test_deep_supervision_only_adds_outputs_to_training(self, name: str, dim: int) -> None:
        with_maps, without = small(name, dim).eval(), small(name, dim, deep_supervision=False).eval()
        without.load_state_dict(with_maps.state_dict())
        with torch.no_grad():
            assert torch.equal(with_maps(batch(dim)), without(batch(dim)))
            assert without.train()(batch(dim)).shape == (2, OUT, *SIZE[dim])

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
        zero = network_spec(name).planned == "residual"  # its blocks start as the identity, so that nothing reaches their convolutions
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
        assert zero or all(p.grad.any() for p in network.parameters())

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
        # Winograd's transforms round to about 1e-5 of the largest value.
        assert (logits - expected).abs().max() < max(1e-4, 3e-5 * float(expected.abs().max()))


class PlannedNetworkContract:
    def test_training_returns_every_decoder_stage_finest_first(self, name: str, dim: int) -> None:
        logits = small(name, dim).train()(batch(dim))
        expected = {2: [(16, 24), (8, 12)], 3: [(8, 8, 16), (8, 4, 8)]}[dim]
        assert isinstance(logits, tuple)
        assert [tuple(one.shape) for one in logits] == [(2, OUT, *size) for size in expected]

    def test_modes_agree(self, name: str, dim: int) -> None:
        network = small(name, dim)
        for module in network.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        with torch.no_grad():
            assert torch.equal(network.train()(batch(dim))[0], network.eval()(batch(dim)))

    def test_a_size_that_does_not_fit_is_refused_by_name(self, name: str, dim: int) -> None:
        with pytest.raises(ValueError, match=r"multiples of .*got \(1, 2, 10"):
            small(name, dim)(torch.zeros(1, IN, *(10,) * dim))
        with pytest.raises(ValueError, match="one voxel"):
            small(name, dim)(torch.zeros(1, IN, *{2: (4, 4), 3: (2, 4, 4)}[dim]))
        with pytest.raises(ValueError, match="expected"):
            small(name, dim)(torch.zeros(1, IN, *SIZE[dim][1:]))
