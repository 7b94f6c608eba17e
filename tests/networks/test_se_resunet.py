"""The SE-ResUNet and its squeeze-and-excitation."""

from __future__ import annotations

import pytest
import torch

from autoseg.networks import build_network
from autoseg.networks.se_resunet import SEResidualBlock, SEResUNet, SqueezeExcitation


def count(dim: int, **options: object) -> int:
    with torch.device("meta"):
        network = build_network("se_resunet", dim=dim, in_channels=1, out_channels=2, **options)
    return sum(p.numel() for p in network.parameters())


def block(inputs: int, outputs: int, kernel: int) -> int:
    """Parameters of a residual block: two convolutions, their norms, the gate, and the projection."""
    hidden = outputs // 16
    gate = outputs * hidden + hidden + hidden * outputs + outputs
    projection = inputs * outputs + 2 * outputs if inputs != outputs else 0
    return kernel * (inputs + outputs) * outputs + 4 * outputs + gate + projection


@pytest.mark.parametrize(
    ("dim", "widths", "published"), [(2, (64, 128, 256, 512, 1024), 32_656_378), (3, (64, 128, 256, 320, 320), 31_573_302)]
)
def test_the_number_of_parameters(dim: int, widths: tuple[int, ...], published: int) -> None:
    pairs = list(zip(widths[:-1], widths[1:], strict=True))
    encoder = sum(block(a, b, 3**dim) for a, b in [(1, widths[0]), *pairs])
    decoder = sum(block(2 * above, above, 3**dim) + below * above * 2**dim + above for above, below in pairs)
    assert count(dim) == encoder + decoder + 2 * widths[0] + 2 == published


def test_a_wider_network_is_not_made_narrower_by_the_limit_of_its_levels() -> None:
    with torch.device("meta"):
        network = SEResUNet(dim=3, in_channels=1, out_channels=2, width=400, levels=2)
    assert network.features(torch.empty(1, 1, 4, 4, 4, device="meta")).shape == (1, 400, 4, 4, 4)


def test_the_gate_scales_each_channel_by_one_number() -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 8, 3, 4, 5) + 0.5
    ratio = (SqueezeExcitation(3, 8, 4)(x) / x).flatten(2)
    assert torch.allclose(ratio, ratio[..., :1].expand_as(ratio), atol=1e-6)
    assert ((ratio > 0) & (ratio < 1)).all()
    assert len(set(ratio[..., 0].flatten().tolist())) == 16


def test_a_block_without_weights_passes_its_input_on() -> None:
    unit = SEResidualBlock(2, (4, 4), reduction=2, norm="batch").eval()
    for parameter in unit.body.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.rand(1, 4, 5, 5)
    assert torch.equal(unit(x), x)


@pytest.mark.parametrize("dim", [2, 3])
def test_the_last_feature_map_has_64_channels_and_gives_the_logits(dim: int) -> None:
    network = SEResUNet(dim=dim, in_channels=1, out_channels=3, levels=2).eval()
    x = torch.randn(1, 1, *(5, 6, 3)[:dim])
    with torch.no_grad():
        features = network.features(x)
        assert features.shape == (1, 64, *x.shape[2:])
        assert network.feature_channels == 64
        assert torch.equal(network.head(features), network(x))


def test_options_that_describe_no_network_are_refused() -> None:
    with pytest.raises(ValueError, match="levels"):
        count(2, levels=0)
    with pytest.raises(ValueError, match="batch, instance"):
        count(2, norm="layer")
    assert count(2, norm="instance") == count(2)
