"""DeepMedic: the published widths, and what each pathway sees."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autoseg.networks import build_network
from autoseg.networks.deepmedic import DeepMedic

WIDTHS = (30, 30, 40, 40, 40, 40, 50, 50)
SMALL = {"widths": (2,) * 8, "joint_widths": (4, 4)}


@pytest.mark.parametrize(("dim", "expected"), [(2, 246_362), (3, 657_842)])
def test_the_number_of_parameters(dim: int, expected: int) -> None:
    with torch.device("meta"):
        network = build_network("deepmedic", dim=dim, in_channels=1, out_channels=2)
    pathway = sum(3**dim * a * b + 3 * b for a, b in zip((1, *WIDTHS[:-1]), WIDTHS, strict=True))  # weights, norm, PReLU
    joint = 100 * 150 + 150 * 150 + 2 * 3 * 150
    assert sum(p.numel() for p in network.parameters()) == 2 * pathway + joint + 150 * 2 + 2 == expected


def field(network: nn.Module, size: int, voxel: int) -> set[int]:
    """Voxels of a line on which the middle logits depend."""
    x = torch.randn(1, 1, size, 3, requires_grad=True)
    network(x)[..., voxel, 1].sum().backward()
    return set(x.grad[0, 0].abs().sum(1).nonzero().flatten().tolist())


def test_receptive_fields_of_both_pathways() -> None:
    """17 voxels, and 51: those of 17 blocks of three."""
    torch.manual_seed(0)
    network = DeepMedic(dim=2, in_channels=1, out_channels=2, **SMALL).eval()
    for module in network.modules():
        if isinstance(module, nn.PReLU):
            nn.init.ones_(module.weight)  # linear, so that no gradient is cut off
    assert field(network, 81, 40) == set(range(39 - 24, 39 + 27))
    nn.init.zeros_(network.context[-2][1].weight)
    assert field(network, 81, 40) == set(range(32, 49))


def test_the_context_is_as_large_as_the_patch_and_lies_on_it() -> None:
    torch.manual_seed(0)
    network = DeepMedic(dim=2, in_channels=1, out_channels=2, **SMALL).eval()
    x = torch.randn(1, 1, 12, 9)
    with torch.no_grad():
        network.normal[-2][1].weight.zero_()
        logits = network(x)
    blocks = logits.unfold(2, 3, 3).unfold(3, 3, 3)
    assert torch.equal(blocks, blocks[..., :1, :1].expand_as(blocks))
    assert len(logits[0, 0].unique()) == 12


def test_dropout_stands_before_the_last_two_convolutions() -> None:
    network = DeepMedic(dim=3, in_channels=1, out_channels=2, **SMALL)
    kinds = [type(m).__name__ for m in network.joint]
    assert kinds == ["Sequential", "PReLU", "Dropout"] * 2
    assert not [m for part in (network.normal, network.context) for m in part.modules() if isinstance(m, nn.Dropout)]


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("dim", [2, 3])
def test_one_tiny_image_can_be_trained_on(dim: int, norm: str) -> None:
    network = DeepMedic(dim=dim, in_channels=1, out_channels=2, norm=norm, **SMALL).train()
    for edge in (1, 4, 8):
        x = torch.randn(1, 1, *(edge,) * dim)
        network(x).square().mean().backward()
        assert network(x).shape == (1, 2, *(edge,) * dim)
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())
    x = torch.randn(1, 1, *(4,) * dim)
    assert torch.equal(network.eval()(x), network.head(network.features(x)))


def test_empty_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one width"):
        DeepMedic(dim=2, in_channels=1, out_channels=2, widths=())
