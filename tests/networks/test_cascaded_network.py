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


def build(factory=vgg16_unet_cascade, *, dim: int = 2, in_channels: int = 1, out_channels: int = 1, **options) -> AutoContext:
    torch.manual_seed(0)
    return factory(dim=dim, in_channels=in_channels, out_channels=out_channels, **(TINY | options)).eval()


def input_of_second(network: AutoContext, image: Tensor) -> Tensor:
    seen = []
    hook = network.second.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    network(image)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        (vgg16_unet_cascade, 2 * 28_804_545),
        (vgg19_unet_cascade, 2 * 37_064_129),
        (unet_cascade, 2 * 5_137_569 + 32 * 9),
    ],
)
def test_parameters(factory, expected: int) -> None:
    with torch.device("meta"):
        network = factory(dim=2, in_channels=1, out_channels=1)
    assert sum(p.numel() for p in network.parameters()) == expected


def test_maps_have_zero_mean_and_unit_variance_per_sample_and_channel() -> None:
    maps = torch.randn(2, 3, 9, 7) * torch.tensor([1.0, 5.0, 20.0])[None, :, None, None] + 4
    result = normalised(maps)
    assert torch.allclose(result.mean((2, 3)), torch.zeros(2, 3), atol=1e-5)
    assert torch.allclose(result.var((2, 3), unbiased=False), torch.ones(2, 3), atol=1e-3)
    assert torch.equal(normalised(maps[:1]), result[:1])
    assert torch.equal(normalised(torch.full((1, 1, 4, 4), 3.0)), torch.zeros(1, 1, 4, 4))
    assert torch.equal(normalised(torch.full((1, 1, 1, 1), 3.0)), torch.zeros(1, 1, 1, 1))
    assert normalised(maps.bfloat16()).dtype is torch.float32


def test_the_second_vgg_sees_the_map_and_the_image_twice() -> None:
    network, image = build(), torch.randn(2, 1, 16, 16)
    seen = input_of_second(network, image)
    assert torch.equal(seen, torch.cat((normalised(network.first(image)), image, image), 1))


@pytest.mark.parametrize(("factory", "channels", "maps", "order"), [(unet_cascade, 1, 1, "0"), (vgg19_unet_cascade, 2, 1, "01")])
def test_where_no_channel_is_missing_none_is_repeated(factory, channels: int, maps: int, order: str) -> None:
    network, image = build(factory, in_channels=channels, out_channels=maps), torch.randn(1, channels, 16, 16)
    expected = [normalised(network.first(image)), *(image[:, [int(one)]] for one in order)]
    assert torch.equal(input_of_second(network, image), torch.cat(expected, 1))


def test_several_classes_give_several_maps() -> None:
    network, image = build(in_channels=2, out_channels=4), torch.randn(1, 2, 16, 16)
    seen = input_of_second(network, image)
    assert torch.equal(seen, torch.cat((normalised(network.first(image)), image), 1))
    assert network.second.encoder.features[0].in_channels == 6
    assert network(image).shape == (1, 4, 16, 16)


@pytest.mark.parametrize("factory", [unet_cascade, vgg16_unet_cascade, vgg19_unet_cascade])
@pytest.mark.parametrize("size", [(1, 1), (5, 33), (3, 17, 9)])
def test_any_size_is_accepted(factory, size: tuple[int, ...]) -> None:
    logits = build(factory, dim=len(size), out_channels=2).train()(torch.rand(2, 1, *size))
    assert logits.shape == (2, 2, *size)
    assert torch.isfinite(logits).all()


def test_gradients_of_the_result_run_through_both() -> None:
    network = build(features=(8, 12, 16, 16, 16), out_channels=2).train()
    network(torch.randn(2, 1, 32, 32)).square().mean().backward()
    without = [key for key, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_both_start_from_weights_of_their_own() -> None:
    network = build()
    assert not torch.equal(network.first.encoder.features[2].weight, network.second.encoder.features[2].weight)


def test_any_two_networks_can_be_joined() -> None:
    network = cascaded(
        dim=2,
        in_channels=1,
        out_channels=3,
        first="plain_unet",
        second="autoseg.networks.vgg_unet:vgg16_unet",
        first_options=PLAIN,
        second_options=TINY,
    )
    assert type(network.first).__name__ == "PlainUNet"
    assert network.second.encoder.features[0].in_channels == 4
    assert network.train()(torch.rand(2, 1, 16, 16)).shape == (2, 3, 16, 16)


def test_only_the_second_is_deeply_supervised() -> None:
    network = cascaded(dim=2, in_channels=1, out_channels=3, first="plain_unet", first_options=PLAIN).train()
    image = torch.rand(2, 1, 16, 16)
    assert isinstance(network.first(image), Tensor)
    assert [one.shape[2:] for one in network(image)] == [(16, 16), (8, 8)]
    single = cascaded(dim=2, in_channels=1, out_channels=3, deep_supervision=False, first="plain_unet", first_options=PLAIN)
    assert single.train()(image).shape == (2, 3, 16, 16)
    assert single.state_dict().keys() == network.state_dict().keys()


def test_a_first_network_that_always_returns_several_gives_its_finest() -> None:
    class Several(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return 2 * x, x[..., ::2, ::2]

    image = torch.rand(1, 1, 8, 8)
    assert torch.equal(AutoContext(Several(), nn.Identity())(image), torch.cat((normalised(2 * image), image), 1))


def test_pretrained_weights_go_into_both(tmp_path) -> None:
    weights = {key: torch.randn_like(one) for key, one in build().first.encoder.state_dict().items()}
    torch.save(weights, tmp_path / "weights.pth")
    path = str(tmp_path / "weights.pth")
    general = {"first": "vgg16_unet", "first_options": TINY}
    for network in (build(pretrained=path), cascaded(dim=2, in_channels=1, out_channels=1, pretrained=path, **general)):
        for half in (network.first, network.second):
            assert all(torch.equal(one, weights[key]) for key, one in half.encoder.state_dict().items())


def test_wrong_names_and_options_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match="Did you mean 'plain_unet'"):
        cascaded(dim=2, in_channels=1, out_channels=1, first="plain_net")
    with pytest.raises(ValueError, match="depth"):
        build(depth=3)
    with pytest.raises(ValueError, match="this network is 3D"):
        build(dim=3, pretrained="imagenet")
