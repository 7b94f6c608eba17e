"""DeepMedic: what each pathway sees."""

from __future__ import annotations

import torch
from torch import nn

from autoseg.networks.deepmedic import DeepMedic


def small() -> DeepMedic:
    torch.manual_seed(0)
    return DeepMedic(dim=2, in_channels=1, out_channels=2, widths=(2,) * 8, joint_widths=(4, 4))


def field(network: nn.Module, size: int, voxel: int) -> set[int]:
    """Voxels of a line on which the middle logits depend."""
    x = torch.randn(1, 1, size, 3, requires_grad=True)
    network(x)[..., voxel, 1].sum().backward()
    return set(x.grad[0, 0].abs().sum(1).nonzero().flatten().tolist())


def test_receptive_fields_of_both_pathways() -> None:
    """17 voxels, and 51: those of 17 blocks of three."""
    network = small().eval()
    for module in network.modules():
        if isinstance(module, nn.PReLU):
            nn.init.ones_(module.weight)  # linear, so that no gradient is cut off
    assert field(network, 81, 40) == set(range(39 - 24, 39 + 27))
    nn.init.zeros_(network.context[-2][1].weight)
    assert field(network, 81, 40) == set(range(32, 49))


def test_the_context_is_as_large_as_the_patch_and_lies_on_it() -> None:
    network = small().eval()
    x = torch.randn(1, 1, 12, 9)
    with torch.no_grad():
        network.normal[-2][1].weight.zero_()
        logits = network(x)
    blocks = logits.unfold(2, 3, 3).unfold(3, 3, 3)
    assert torch.equal(blocks, blocks[..., :1, :1].expand_as(blocks))
    assert len(logits[0, 0].unique()) == 12


def test_dropout_stands_before_the_last_two_convolutions() -> None:
    network = small()
    kinds = [type(m).__name__ for m in network.joint]
    assert kinds == ["Sequential", "PReLU", "Dropout"] * 2
    assert not [m for part in (network.normal, network.context) for m in part.modules() if isinstance(m, nn.Dropout)]
