"""UNet++ with the VGG-19 encoder: its graph is Zhou's, node by node."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autoseg.networks.nested_unet import vgg19_unetpp
from autoseg.networks.vgg_unet import repeat_channels

TINY = {"features": (4, 6, 8, 8, 8)}


def tiny(dim: int = 2, in_channels: int = 1, **options) -> nn.Module:
    torch.manual_seed(0)
    return vgg19_unetpp(dim=dim, in_channels=in_channels, out_channels=2, **(TINY | options)).eval()


def test_parameters() -> None:
    with torch.device("meta"):
        network = vgg19_unetpp(dim=2, in_channels=3, out_channels=1)
    features = (64, 128, 256, 512, 512)
    decoder = 4 * (64 + 1)
    for row, (here, below) in enumerate(zip(features, features[1:], strict=False)):
        for column in range(1, 5 - row):
            decoder += 4 * below * here + here + 9 * (column + 1) * here * here + here + 9 * here * here + here
    assert sum(p.numel() for p in network.encoder.parameters()) == 20_024_384
    assert sum(p.numel() for p in network.decoder.parameters()) == decoder
    assert sum(p.numel() for p in network.parameters()) == 36_290_756


def test_every_node_sees_all_before_it_and_the_one_below() -> None:
    network, image = tiny(), torch.rand(1, 1, 16, 32)
    skips, decoder = network.encoder(repeat_channels(image, 3)), network.decoder

    def node(row: int, column: int) -> Tensor:
        if column == 0:
            return skips[row]
        before = [node(row, earlier) for earlier in range(column)]
        below = decoder.ups[column - 1][row](node(row + 1, column - 1))
        return decoder.nodes[column - 1][row](torch.cat((*before, below), dim=1))

    expected = [decoder.heads[column - 1](node(0, column)) for column in (4, 3, 2, 1)]
    with torch.no_grad():
        assert torch.equal(network(image), expected[0])
        several = network.train()(image)
    assert len(several) == 4
    assert all(torch.equal(one, other) for one, other in zip(several, expected, strict=True))


@pytest.mark.parametrize("size", [(1, 1), (5, 33), (3, 17, 9)])
def test_any_size_is_accepted_and_all_logits_have_it(size: tuple[int, ...]) -> None:
    logits = tiny(len(size)).train()(torch.rand(2, 1, *size))
    assert [tuple(one.shape) for one in logits] == [(2, 2, *size)] * 4


def test_without_deep_supervision_the_weights_are_the_same_and_one_map_is_returned() -> None:
    several, single = tiny(), tiny(deep_supervision=False).train()
    assert several.state_dict().keys() == single.state_dict().keys()
    image = torch.rand(1, 1, 16, 16)
    assert torch.equal(single(image), several(image))


def test_every_parameter_gets_a_gradient() -> None:
    network = tiny(features=(8, 12, 16, 16, 16)).train()
    sum(one.square().mean() for one in network(torch.randn(2, 1, 32, 32))).backward()
    assert [key for key, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_one_batch_can_be_learnt() -> None:
    network, target = tiny(features=(8, 12, 16, 16, 16)).train(), torch.zeros(1, 32, 32, dtype=torch.long)
    target[0, 6:20, 8:26] = 1
    image = target[:, None] + 0.3 * torch.randn(1, 1, 32, 32)
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(50):
        optimiser.zero_grad()
        sum(nn.functional.cross_entropy(one, target) for one in network(image)).backward()
        optimiser.step()
    assert (network.eval()(image).argmax(1) == target).float().mean() > 0.97


def test_weights_of_a_file_become_the_encoder_s(tmp_path) -> None:
    weights = {key: torch.randn_like(one) for key, one in tiny(in_channels=3).encoder.state_dict().items()}
    torch.save(weights, tmp_path / "weights.pth")
    network = tiny(pretrained=str(tmp_path / "weights.pth"))
    assert all(torch.equal(one, weights[key]) for key, one in network.encoder.state_dict().items())


def test_wrong_options_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match="node_convs of at least 1, got 0"):
        tiny(node_convs=0)
    with pytest.raises(ValueError, match="5 features"):
        tiny(features=(4, 8, 8))
    with pytest.raises(ValueError, match="this network is 3D"):
        tiny(3, pretrained="imagenet")
