"""The U-Nets of Conze et al. 2021: exact sizes, torchvision's numbering of the encoder, what happens to channels and sizes."""

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


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def mirrored(features: tuple[int, ...], convs: tuple[int, ...], bottom: int) -> int:
    """Parameters of the 2D decoder: up-convolution 2x2, convolutions 3x3 from twice the channels on, and a 1x1 convolution to one map."""
    total = features[0] + 1
    for here, below, n in zip(features, (*features[1:], bottom), convs, strict=True):
        total += 4 * below * here + here + 9 * 2 * here * here + here + (n - 1) * (9 * here * here + here)
    return total


@pytest.mark.parametrize(
    ("factory", "encoder", "features", "convs", "bottom"),
    [
        (vgg16_unet, 14_714_688, (64, 128, 256, 512), (2, 2, 3, 3), 512),
        (vgg19_unet, 20_024_384, (64, 128, 256, 512), (2, 2, 4, 4), 512),
        (conze_unet, 2_351_840, (32, 64, 128, 256), (2, 2, 2, 2), 256),
    ],
)
def test_parameters_of_the_paper_s_networks(factory, encoder, features, convs, bottom) -> None:
    with torch.device("meta"):
        network = factory(dim=2, in_channels=1 if factory is conze_unet else 3, out_channels=1)
    assert count(network.encoder) == encoder
    assert count(network.decoder) == mirrored(features, convs, bottom)
    assert count(network) == {vgg16_unet: 28_804_545, vgg19_unet: 37_064_129, conze_unet: 5_137_569}[factory]


def test_vgg19_s_decoder_has_four_convolutions_more_than_the_plain_one() -> None:
    def convolutions(factory) -> int:
        return sum(isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3) for m in tiny(factory).decoder.modules())

    assert convolutions(vgg19_unet) - convolutions(conze_unet) == 4


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
    assert tiny(in_channels=5)(torch.rand(1, 5, 16, 16)).shape == (1, 2, 16, 16)


@pytest.mark.parametrize("factory", [conze_unet, vgg16_unet, vgg19_unet])
@pytest.mark.parametrize("size", [(1, 1), (5, 33), (3, 17, 9), (10, 16, 16)])
def test_any_size_is_accepted(factory, size: tuple[int, ...]) -> None:
    network = tiny(factory, len(size)).train()
    logits = network(torch.rand(2, 1, *size))
    assert logits.shape == (2, 2, *size)
    assert torch.isfinite(logits).all()


def test_missing_voxels_are_zeros_at_the_end() -> None:
    network, x = tiny(), torch.rand(1, 1, 19, 16)
    padded = torch.zeros(1, 1, 32, 16)
    padded[:, :, :19] = x
    assert torch.equal(network(x), network(padded)[:, :, :19])


def test_deep_supervision_is_ignored() -> None:
    one, other = tiny(deep_supervision=True).train(), tiny(deep_supervision=False)
    assert one.state_dict().keys() == other.state_dict().keys()
    x = torch.rand(1, 1, 16, 16)
    assert torch.equal(one(x), other(x))


def test_strides_may_leave_an_axis_as_it_is() -> None:
    strides = [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2], [1, 2, 2]]
    network = tiny(dim=3, strides=strides)
    assert network.divisors == (2, 16, 16)
    assert [one.shape[2] for one in network.encoder(torch.rand(1, 3, 4, 16, 16))] == [4, 4, 4, 2, 2]
    assert network(torch.rand(1, 1, 5, 16, 20)).shape == (1, 2, 5, 16, 20)


@pytest.mark.parametrize("factory", [conze_unet, vgg19_unet])
def test_every_parameter_gets_a_gradient(factory) -> None:
    network = tiny(factory, features=(8, 12, 16, 16, 16)).train()
    network(torch.randn(2, 1, 32, 32)).square().mean().backward()
    assert [key for key, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_wrong_options_and_inputs_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match=r"5 features and 5 strides of 2 numbers.*\[4, 8\]"):
        tiny(features=(4, 8))
    with pytest.raises(ValueError, match="first all ones"):
        tiny(strides=[[2, 2]] * 5)
    with pytest.raises(ValueError, match="3 numbers"):
        tiny(dim=3, strides=[[1, 1]] * 5)
    with pytest.raises(ValueError, match="2 features"):
        tiny(conze_unet, features=(4,))
    with pytest.raises(ValueError, match="dim 2 or 3"):
        tiny(dim=4)
    with pytest.raises(ValueError, match=r"expected \(B, 1, \*spatial\), got \(1, 2, 16, 16\)"):
        tiny()(torch.zeros(1, 2, 16, 16))
    with pytest.raises(ValueError, match="2 spatial axes"):
        tiny()(torch.zeros(1, 1, 16, 16, 16))
