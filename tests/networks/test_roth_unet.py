"""Roth's 3D U-Net: valid convolutions, and how these fill a whole patch."""

from __future__ import annotations

import pytest
import torch

from autoseg.networks.roth_unet import RothUNet

SMALL = {"dim": 2, "in_channels": 1, "out_channels": 2, "width": 2}


def on_meta(*, valid: bool = True) -> RothUNet:
    with torch.device("meta"):
        return RothUNet(dim=3, in_channels=1, out_channels=2, valid=valid)


def test_valid_convolutions_give_the_papers_size() -> None:
    network = on_meta()
    assert network.valid_forward(torch.empty(1, 1, 132, 132, 116, device="meta")).shape == (1, 2, 44, 44, 28)
    assert network.valid_forward(torch.empty(1, 1, 92, 100, 108, device="meta")).shape == (1, 2, 4, 12, 20)


def test_a_valid_network_gives_logits_of_the_inputs_size() -> None:
    network = on_meta()
    for size in ((44, 44, 28), (1, 7, 12), (64, 61, 65)):
        assert network(torch.empty(2, 1, *size, device="meta")).shape == (2, 2, *size)
        assert network.features(torch.empty(2, 1, *size, device="meta")).shape == (2, 64, *size)


def test_within_enough_surroundings_forward_and_valid_forward_agree() -> None:
    """Outside of the image the border voxels are repeated: where they are all alike, nothing is missing."""
    torch.manual_seed(0)
    network = RothUNet(**SMALL, valid=True).eval()
    whole = torch.zeros(1, 1, 108, 100)
    whole[..., 48:60, 46:52] = torch.randn(12, 6)
    inner = whole[..., 44:64, 44:56]
    with torch.no_grad():
        expected = network.valid_forward(whole)
        assert expected.shape == (1, 2, 20, 12)
        assert torch.allclose(network(inner), expected, atol=1e-5)
        assert torch.allclose(network(inner[..., :19, :9]), expected[..., :19, :9], atol=1e-5)


def test_same_and_valid_convolutions_agree_where_no_border_is_near() -> None:
    torch.manual_seed(0)
    same, valid = RothUNet(**SMALL).eval(), RothUNet(**SMALL, valid=True).eval()
    valid.load_state_dict(same.state_dict())
    x = torch.randn(1, 1, 116, 108)
    with torch.no_grad():
        whole = same(torch.nn.functional.pad(x, (2, 0, 2, 0)))  # so that both pool the same pairs of voxels
        assert torch.allclose(whole[..., 46:-44, 46:-44], valid.valid_forward(x), atol=1e-5)


def test_sizes_that_valid_convolutions_cannot_take_are_refused() -> None:
    network = on_meta()
    for size in ((132, 132, 117), (132, 132, 84)):
        with pytest.raises(ValueError, match="92, 100, 108"):
            network.valid_forward(torch.empty(1, 1, *size, device="meta"))
    with pytest.raises(ValueError, match="valid=True"):
        on_meta(valid=False).valid_forward(torch.empty(1, 1, 132, 132, 116, device="meta"))


def test_logits_of_a_valid_network_are_the_head_of_its_features() -> None:
    network, x = RothUNet(**SMALL, valid=True).eval(), torch.randn(1, 1, 9, 5)
    with torch.no_grad():
        assert torch.equal(network(x), network.head(network.features(x)))
