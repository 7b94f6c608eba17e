"""Roth's 3D U-Net: its published size, valid convolutions, and how these fill a whole patch."""

from __future__ import annotations

import pytest
import torch

from autoseg.networks import build_network
from autoseg.networks.roth_unet import RothUNet

SMALL = {"dim": 2, "in_channels": 1, "out_channels": 2, "width": 2}


def on_meta(**options: object) -> torch.nn.Module:
    with torch.device("meta"):
        return build_network("roth_unet", **{"dim": 3, "in_channels": 1, "out_channels": 2, **options})


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_the_published_number_of_weights() -> None:
    network = on_meta()
    weights = [p.numel() for key, p in network.named_parameters() if p.dim() == 5 and not key.startswith("head")]
    assert sum(weights) == 19_065_696
    assert count(network) == 19_070_498


def test_the_number_of_cicek_with_one_number_per_normalised_channel() -> None:
    channels = 32 + 64 + 64 + 128 + 128 + 256 + 256 + 512 + 256 + 256 + 128 + 128 + 64 + 64
    assert count(on_meta(in_channels=3, out_channels=3)) - channels == 19_069_955


def test_valid_convolutions_give_the_papers_size() -> None:
    network = on_meta(valid=True)
    assert network.valid_forward(torch.empty(1, 1, 132, 132, 116, device="meta")).shape == (1, 2, 44, 44, 28)
    assert network.valid_forward(torch.empty(1, 1, 92, 100, 108, device="meta")).shape == (1, 2, 4, 12, 20)
    assert count(network) == count(on_meta())


def test_a_valid_network_gives_logits_of_the_inputs_size() -> None:
    network = on_meta(valid=True)
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
    network = on_meta(valid=True)
    for size in ((132, 132, 117), (132, 132, 84)):
        with pytest.raises(ValueError, match="92, 100, 108"):
            network.valid_forward(torch.empty(1, 1, *size, device="meta"))
    with pytest.raises(ValueError, match="valid=True"):
        on_meta().valid_forward(torch.empty(1, 1, 132, 132, 116, device="meta"))


@pytest.mark.parametrize("valid", [False, True])
def test_logits_are_the_head_of_the_features(valid: bool) -> None:
    network = RothUNet(**SMALL, valid=valid).eval()
    x = torch.randn(1, 1, 9, 5)
    with torch.no_grad():
        assert torch.equal(network(x), network.head(network.features(x)))
    assert network.features(x).shape == (1, network.feature_channels, 9, 5)


def test_instance_norm_in_place_of_batch_norm() -> None:
    assert count(on_meta(norm="instance")) == count(on_meta())
    assert not [key for key, _ in on_meta(norm="instance").named_buffers()]
