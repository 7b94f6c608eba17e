"""The end-to-end cascade: what the second network sees, that both learn, and that any two networks can be joined."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autoseg.networks.cascaded import AutoContext, cascaded, normalised, unet_cascade, vgg16_unet_cascade, vgg19_unet_cascade

TINY = {"features": (4, 6, 8, 8, 8)}
PLAIN = {
    "features": [4, 8, 8],
    "strides": [[1, 1], [2, 2], [2, 2]],
    "kernel_sizes": [[3, 3]] * 3,
    "convs_per_stage": [1] * 3,
    "decoder_convs": [1] * 2,
}


def build(factory=vgg16_unet_cascade, *, in_channels: int = 1, out_channels: int = 1, **options) -> AutoContext:
    torch.manual_seed(0)
    options = options if factory is cascaded else TINY | options
    return factory(dim=2, in_channels=in_channels, out_channels=out_channels, **options).eval()


def test_maps_have_zero_mean_and_unit_variance_per_sample_and_channel() -> None:
    maps = torch.randn(2, 3, 9, 7) * torch.tensor([1.0, 5.0, 20.0])[None, :, None, None] + 4
    result = normalised(maps)
    assert torch.allclose(result.mean((2, 3)), torch.zeros(2, 3), atol=1e-5)
    assert torch.allclose(result.var((2, 3), unbiased=False), torch.ones(2, 3), atol=1e-3)
    assert torch.equal(normalised(maps[:1]), result[:1])
    assert torch.equal(normalised(torch.full((1, 1, 4, 4), 3.0)), torch.zeros(1, 1, 4, 4))
    assert torch.equal(normalised(torch.full((1, 1, 1, 1), 3.0)), torch.zeros(1, 1, 1, 1))
    assert normalised(maps.bfloat16()).dtype is torch.float32


@pytest.mark.parametrize(
    ("factory", "channels", "classes", "order"),
    [(vgg16_unet_cascade, 1, 1, [0, 0]), (unet_cascade, 1, 1, [0]), (vgg19_unet_cascade, 2, 1, [0, 1]), (vgg16_unet_cascade, 2, 4, [0, 1])],
)
def test_the_second_network_sees_the_maps_and_the_image_as_often_as_channels_are_missing(factory, channels, classes, order) -> None:
    network, image, seen = build(factory, in_channels=channels, out_channels=classes), torch.randn(2, channels, 16, 16), []
    network.second.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    assert network(image).shape == (2, classes, 16, 16)
    assert torch.equal(seen[0], torch.cat((normalised(network.first(image)), image[:, order]), 1))


def test_both_start_from_weights_of_their_own() -> None:
    network = build()
    assert not torch.equal(network.first.encoder.features[2].weight, network.second.encoder.features[2].weight)


def test_any_two_networks_can_be_joined() -> None:
    second = "autoseg.networks.vgg_unet:vgg16_unet"
    network = build(cascaded, out_channels=3, first="plain_unet", second=second, first_options=PLAIN, second_options=TINY)
    assert type(network.first).__name__ == "PlainUNet"
    assert network.second.encoder.features[0].in_channels == 4
    assert network.train()(torch.rand(2, 1, 16, 16)).shape == (2, 3, 16, 16)


def test_only_the_second_is_deeply_supervised() -> None:
    network, image = build(cascaded, out_channels=3, first="plain_unet", first_options=PLAIN).train(), torch.rand(2, 1, 16, 16)
    assert isinstance(network.first(image), Tensor)
    assert [one.shape[2:] for one in network(image)] == [(16, 16), (8, 8)]


def test_a_first_network_that_always_returns_several_gives_its_finest() -> None:
    class Several(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return 2 * x, x[..., ::2, ::2]

    image = torch.rand(1, 1, 8, 8)
    assert torch.equal(AutoContext(Several(), nn.Identity())(image), torch.cat((normalised(2 * image), image), 1))


@pytest.mark.parametrize(("factory", "options"), [(vgg16_unet_cascade, TINY), (cascaded, {"first": "vgg16_unet", "first_options": TINY})])
def test_pretrained_weights_go_into_both(factory, options, tmp_path) -> None:
    weights = {key: torch.randn_like(one) for key, one in build().first.encoder.state_dict().items()}
    torch.save(weights, tmp_path / "weights.pth")
    network = build(factory, pretrained=str(tmp_path / "weights.pth"), **options)
    for half in (network.first, network.second):
        assert all(torch.equal(one, weights[key]) for key, one in half.encoder.state_dict().items())
