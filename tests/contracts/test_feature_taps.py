"""Of networks with a pointwise head `FeatureTap` gives features and head whose 1x1 convolution are the logits; it refuses others."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from network_contract import ODD, OUT, batch, sizes, small, train_once

from autoseg.networks import NETWORKS
from autoseg.networks.feature_taps import FeatureTap

CUT = [(name, dim) for name, spec in NETWORKS.items() if spec.pointwise_head for dim in spec.dims]


def head(tap: FeatureTap, features: torch.Tensor) -> torch.Tensor:
    weight = tap.weight.reshape(*tap.weight.shape, *[1] * (features.dim() - 2))
    return (F.conv3d if features.dim() == 5 else F.conv2d)(features, weight, tap.bias)


@pytest.mark.parametrize(("name", "dim"), CUT)
def test_the_head_of_the_features_gives_the_logits(name: str, dim: int) -> None:
    network = small(name, dim)
    train_once(network, batch(dim))
    tap = FeatureTap(network.eval(), batch(dim, 1))
    for size in sizes(name, dim):
        x = batch(dim, size=size)
        features = tap.features(x)
        assert features.shape == (2, tap.weight.shape[1], *size)
        assert tap.weight.shape[0] == OUT
        with torch.no_grad():
            assert torch.allclose(head(tap, features), network(x), atol=1e-4)


@pytest.mark.parametrize("name", [name for name, spec in NETWORKS.items() if spec.planned])
def test_sizes_that_do_not_fit_are_padded(name: str) -> None:
    network = small(name, 2).eval()
    features = FeatureTap(network, batch(2, 1)).features(batch(2, size=ODD[2]))
    padded = F.pad(batch(2, size=ODD[2]), (0, -ODD[2][1] % 4, 0, -ODD[2][0] % 4))
    with torch.no_grad():
        expected = network(padded)[:, :, : ODD[2][0], : ODD[2][1]]
    assert torch.allclose(head(FeatureTap(network, batch(2, 1)), features), expected, atol=1e-4)


@pytest.mark.parametrize("name", [name for name, spec in NETWORKS.items() if not spec.pointwise_head])
def test_networks_without_such_a_head_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no 1x1 convolution of its last feature maps"):
        FeatureTap(small(name, 2).eval(), batch(2, 1))


def test_looking_at_the_features_leaves_no_hook_behind() -> None:
    network = small("plain_unet", 2).eval()
    FeatureTap(network, batch(2, 1)).features(batch(2))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
