"""The U-Nets of Conze et al. 2021: torchvision's numbering of the encoder, what happens to channels and sizes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autoseg.networks.vgg_unet import conze_unet, repeat_channels, vgg16_unet, vgg19_unet

TINY = {"features": (4, 6, 8, 8, 8)}
NUMBERS = {
    vgg16_unet: (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
    vgg19_unet: (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34),
}
"""N of every ``features.N.weight`` in torchvision's configurations D and E."""


def tiny(factory=vgg16_unet, dim: int = 2, in_channels: int = 1, **options) -> nn.Module:
    torch.manual_seed(0)
    return factory(dim=dim, in_channels=in_channels, out_channels=2, **(TINY | options)).eval()


@pytest.mark.parametrize("factory", NUMBERS)
def test_the_encoder_s_weights_have_torchvision_s_names(factory) -> None:
    expected = [f"features.{n}.{kind}" for n in NUMBERS[factory] for kind in ("weight", "bias")]
    assert list(tiny(factory).encoder.state_dict()) == expected


def test_the_skips_are_taken_before_each_pooling() -> None:
    encoder = tiny().encoder
    x = torch.rand(1, 3, 16, 16)
    stages = encoder(x)
    assert [tuple(one.shape[1:]) for one in stages] == [(4, 16, 16), (6, 8, 8), (8, 4, 4), (8, 2, 2), (8, 1, 1)]
    assert torch.equal(stages[0], encoder.features[:4](x))
    assert torch.equal(stages[-1], encoder.features(x))


def test_one_two_and_three_channels_become_three() -> None:
    a, b, c = torch.rand(3, 1, 1, 16, 16)
    inputs = {1: (a, (a, a, a)), 2: (torch.cat((a, b), 1), (a, b, a)), 3: (torch.cat((a, b, c), 1), (a, b, c))}
    for channels, (image, three) in inputs.items():
        network = tiny(in_channels=channels)
        assert network.input_channels == 3
        assert torch.equal(network(image), network(torch.cat(three, 1)))
    assert repeat_channels(a, 1) is a


def test_more_than_three_channels_and_the_plain_unet_take_what_is_there() -> None:
    assert tiny(in_channels=5).encoder.features[0].in_channels == 5
    assert tiny(conze_unet, in_channels=1).encoder.features[0].in_channels == 1


def test_strides_may_leave_an_axis_as_it_is() -> None:
    strides = [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2], [1, 2, 2]]
    network = tiny(dim=3, strides=strides)
    assert network.divisors == (2, 16, 16)
    assert [one.shape[2] for one in network.encoder(torch.rand(1, 3, 4, 16, 16))] == [4, 4, 4, 2, 2]
    assert network(torch.rand(1, 1, 5, 16, 20)).shape == (1, 2, 5, 16, 20)
