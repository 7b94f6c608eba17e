"""PIPO-FAN: equal depth, score maps of every scale, adaptive fusion."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoseg.networks.pipo_fan import PipoFan
from autoseg.networks.pyramid_blocks import ResidualBlock, ScaleBatchNorm


def small(dim: int = 2, **options: Any) -> PipoFan:
    torch.manual_seed(0)
    return PipoFan(**{"dim": dim, "in_channels": 2, "out_channels": 3, "features": (4, 6, 8)} | options)


def image(*size: int, n: int = 2) -> Tensor:
    return torch.randn(n, 2, *size, generator=torch.Generator().manual_seed(1))


def with_fixed_norms(network: PipoFan) -> PipoFan:
    """In training mode, but each image is computed apart from the others of its batch."""
    network.train()
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm2d, ScaleBatchNorm)):
            module.eval()
    return network


class CountConvolutions(nn.Module):
    """In place of a convolution: how many convolutions the deepest channel of its input has gone through, and one more."""

    def forward(self, x: Tensor) -> Tensor:
        return x.amax(1, keepdim=True) + 1


def counting(network: PipoFan) -> PipoFan:
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, (nn.Conv2d, nn.Conv3d)):
                setattr(module, name, CountConvolutions())
            elif isinstance(child, (nn.BatchNorm2d, nn.BatchNorm3d, ScaleBatchNorm, nn.ReLU)):
                setattr(module, name, nn.Identity())
        if isinstance(module, ResidualBlock):
            module.bridge = nn.Module()
            module.bridge.forward = lambda x: torch.zeros(())
    return network


def depths_joined_by_the_encoder(network: PipoFan) -> list[list[float]]:
    seen: list[list[float]] = []
    for stage in network.encoder.stages:
        stage.register_forward_pre_hook(lambda _module, args: seen.append(args[0].unique().tolist()))
    counting(network).eval()(torch.zeros(1, 2, *(16,) * (2 if network.mode == "bilinear" else 3)))
    return seen


@pytest.mark.parametrize("dim", [2, 3])
def test_what_the_encoder_joins_is_equally_deep(dim: int) -> None:
    options = {"dim": dim, "features": (2,) * 5, "adaptive_fusion": False}
    assert depths_joined_by_the_encoder(small(**options)) == [[2], [4], [6], [8]]
    assert depths_joined_by_the_encoder(small(**options, equal_depth=False)) == [[2], [2, 4], [2, 6], [2, 8]]


def test_every_output_is_19_convolutions_deep() -> None:
    options = {"features": (2,) * 5, "adaptive_fusion": False}
    x = torch.zeros(1, 2, 16, 16)
    assert [one.unique().tolist() for one in counting(small(**options)).train()(x)] == [[19.0]] * 5
    unequal = counting(small(**options, equal_depth=False)).train()(x)
    assert [one.unique().tolist() for one in unequal] == [[19.0], [17.0], [15.0], [13.0], [11.0]]


def test_the_carried_map_is_as_deep_as_what_it_is_added_to() -> None:
    network = counting(small(features=(2,) * 4, input_scales=2, output_scales=1)).eval()
    seen: list[Tensor] = []
    network.encoder.carried.register_forward_hook(lambda module, args, out: seen.append(out))
    network.encoder.pools[1].register_forward_hook(lambda module, args, out: seen.append(out))
    network(torch.zeros(1, 2, 8, 8))
    assert [one.unique().tolist() for one in seen] == [[4.0], [4.0]]


@pytest.mark.parametrize(("scales", "times"), [(1, 1), (2, 2), (None, 3)])
def test_the_first_block_is_shared_by_all_input_scales_which_are_averages(scales: int | None, times: int) -> None:
    network, x, seen = small(input_scales=scales), image(16, 8), []
    network.encoder.first.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    network(x)
    assert len(seen) == times
    assert all(torch.allclose(one, F.avg_pool2d(x, 2**scale), atol=1e-6) for scale, one in enumerate(seen))


FLAT = [[1, 1, 1], [1, 2, 2], [2, 2, 2]]


@pytest.mark.parametrize(
    ("strides", "size", "coarser"),
    [
        (None, (16, 8), [(8, 4), (4, 2)]),
        (None, (13, 5), [(7, 3), (4, 2)]),
        (None, (1, 2, 1), [(1, 1, 1), (1, 1, 1)]),
        (None, (4, 6, 5), [(2, 3, 3), (1, 2, 2)]),
        (FLAT, (5, 8, 12), [(5, 4, 6), (3, 2, 3)]),
    ],
)
def test_any_size_gives_score_maps_of_every_scale(strides, size, coarser) -> None:
    network, x = small(len(size), strides=strides, adaptive_fusion=False).train(), image(*size, n=1)
    scores = network(x)
    assert [tuple(one.shape) for one in scores] == [(1, 3, *edges) for edges in (size, *coarser)]
    assert all(torch.isfinite(one).all() for one in scores)
    with torch.no_grad():
        assert network.eval()(x).shape == (1, 3, *size)


def test_fused_logits_are_the_weighted_sum_of_upsampled_scores() -> None:
    network, x = with_fixed_norms(small()), image(16, 8)
    with torch.no_grad():
        fused, weights = network(x), network.fusion_weights(x)
        network.set_fusing(False)
        scores = network(x)
        assert torch.equal(network.eval()(x), scores[0])
        full = [F.interpolate(one, size=(16, 8), mode="bilinear", align_corners=False) for one in scores]
        network.set_fusing(True)
        assert torch.equal(network.eval()(x), fused)
    assert weights.shape == (2, 3)
    assert torch.allclose(weights.sum(1), torch.ones(2))
    assert not torch.allclose(weights[0], weights[1])
    assert torch.allclose(fused, sum(w.view(2, 1, 1, 1) * one for w, one in zip(weights.unbind(1), full, strict=True)), atol=1e-6)


def test_fusion_weights_follow_mean_plus_maximum() -> None:
    network, x = small().eval(), image(8, 8)
    network.fusion.shared = nn.Conv2d(3, 1, 1)
    with torch.no_grad():
        weights = network.fusion_weights(x)
        network = with_fixed_norms(network)
        network.set_fusing(False)
        maps = [network.fusion.shared(one) for one in network(x)]
        expected = torch.stack([one.mean((1, 2, 3)) + one.amax((1, 2, 3)) for one in maps], dim=1).softmax(1)
    assert torch.allclose(weights, expected, atol=1e-6)


def test_fusing_is_on_from_the_start_is_switched_by_hand_and_is_no_weight() -> None:
    network = small().train()
    assert network.fusing
    assert network(image(8, 8)).shape == (2, 3, 8, 8)
    assert not any("fusing" in key for key in network.state_dict())
    network.set_fusing(False)
    assert isinstance(network(image(8, 8)), tuple)
    assert not small(adaptive_fusion=False).fusing
    assert not small(output_scales=1).fusing


@pytest.mark.parametrize("options", [{}, {"input_scales": 2}, {"equal_depth": False}, {"residual": False}, {"norm": "instance"}])
def test_every_parameter_gets_a_gradient(options: dict[str, Any]) -> None:
    network = small(**options).train()
    network(image(16, 16)).square().mean().backward()
    assert [key for key, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()] == []
    network.zero_grad()
    network.set_fusing(False)
    sum(one.square().mean() for one in network(image(16, 16))).backward()
    untouched = {key for key, p in network.named_parameters() if p.grad is None}
    assert untouched == {f"fusion.{key}" for key, _ in network.fusion.named_parameters()}


@pytest.mark.parametrize("call", [lambda network: network.set_fusing(True), lambda network: network.fusion_weights(image(8, 8))])
def test_without_adaptive_fusion_there_is_none_to_ask_for(call) -> None:
    with pytest.raises(ValueError, match="adaptive fusion"):
        call(small(adaptive_fusion=False))


def test_each_scale_of_a_shared_block_has_running_statistics_of_its_own():
    """What evaluation sees must be what training saw, although coarse scales of the image look otherwise than fine ones."""
    torch.manual_seed(0)
    network = PipoFan(dim=2, in_channels=1, out_channels=2, features=[4, 6, 8])
    image = torch.randn(4, 1, 32, 32)
    with torch.no_grad():
        for _ in range(200):
            network(image)
        trained = network(image)
        evaluated = network.eval()(image)
    assert float((evaluated - trained).std() / trained.std()) < 0.05
    norm = network.encoder.first[1]
    assert norm.running_var.shape == (3, 4)
    assert bool((norm.running_var[0] > 1.5 * norm.running_var[2]).all()), "noise that was averaged varies less"
