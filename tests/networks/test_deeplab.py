"""DeepLabV3: the size of its backbone, what its strides and dilations are, and where its logits lie."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autoseg.networks import build_network
from autoseg.networks.deeplab import AtrousPyramid, DeepLabV3, backbone

SMALL = {"width": 4, "blocks": (1, 1, 1, 1), "pyramid_channels": 8}


def on_meta(dim: int, **options: object) -> nn.Module:
    with torch.device("meta"):
        return build_network("deeplabv3", **{"dim": dim, "in_channels": 1, "out_channels": 2, **options})


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_the_backbone_is_a_resnet_50_without_classifier() -> None:
    with torch.device("meta"):
        assert count(backbone(2, 3, width=64, blocks=(3, 4, 6, 3), output_stride=16, norm="batch")) == 23_508_032


def test_the_number_of_parameters() -> None:
    stem_of_one_channel = 23_508_032 - 2 * 64 * 49
    pyramid = 256 * (2048 + 3 * 9 * 2048 + 2048 + 5 * 256) + 5 * 512 + 256  # convolutions, five norms, the bias of the image's branch
    assert count(on_meta(2)) == stem_of_one_channel + pyramid + 2 * 256 + 2 == 39_037_122
    assert count(on_meta(3)) == 90_001_986
    assert count(on_meta(2, output_stride=8)) == count(on_meta(2, norm="instance")) == count(on_meta(2))


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("dim", [2, 3])
def test_the_feature_map_is_coarser_by_the_output_stride(dim: int, output_stride: int) -> None:
    network = on_meta(dim, output_stride=output_stride)
    x = torch.empty(1, 1, *(65,) * dim, device="meta")
    assert network.pyramid(network.backbone(x)).shape == (1, 256, *(64 // output_stride + 1,) * dim)
    assert network(x).shape == (1, 2, *x.shape[2:])


@pytest.mark.parametrize(
    ("output_stride", "backbones", "pyramids"),
    [(16, [1] * 13 + [2, 4, 8], [6, 12, 18]), (8, [1] * 7 + [2] * 6 + [4, 8, 16], [12, 24, 36])],
)
def test_dilations(output_stride: int, backbones: list[int], pyramids: list[int]) -> None:
    network = on_meta(2, output_stride=output_stride)

    def dilations(part: nn.Module) -> list[int]:
        return [m.dilation[0] for m in part.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]

    assert dilations(network.backbone) == backbones
    assert dilations(network.pyramid) == pyramids


def test_logits_are_the_head_of_the_features() -> None:
    for dim in (2, 3):
        network = DeepLabV3(dim=dim, in_channels=2, out_channels=3, **SMALL).eval()
        x = torch.randn(2, 2, *(18, 20, 9)[:dim])
        with torch.no_grad():
            features = network.features(x)
            assert features.shape == (2, network.feature_channels, *x.shape[2:])
            assert torch.allclose(network.head(features), network(x), atol=1e-5)
    assert on_meta(3).feature_channels == 256


def test_a_mirrored_image_has_mirrored_logits() -> None:
    """Where the size begins and ends on a sample and weights are symmetric, nothing is shifted to one side."""
    torch.manual_seed(0)
    network = DeepLabV3(dim=2, in_channels=1, out_channels=2, **SMALL).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 4:
                parameter.copy_((parameter + parameter.flip(2)) / 2)
        x = torch.randn(1, 1, 33, 17)
        assert torch.allclose(network(x.flip(2)), network(x).flip(2), atol=1e-5)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_one_tiny_image_can_be_trained_on(dim: int, norm: str) -> None:
    torch.manual_seed(0)
    network = DeepLabV3(dim=dim, in_channels=1, out_channels=2, norm=norm, **SMALL).train()
    for edge in (1, 8):
        logits = network(torch.randn(1, 1, *(edge,) * dim))
        logits.square().mean().backward()
        assert logits.shape == (1, 2, *(edge,) * dim)
        assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_the_mean_of_the_image_reaches_every_voxel() -> None:
    pyramid = AtrousPyramid(2, (2, 4), (6,), norm="instance").eval()
    for branch in pyramid.branches:
        nn.init.zeros_(branch[0].weight)
    x = torch.zeros(1, 2, 9, 9, requires_grad=True)
    joined = torch.cat([*(branch(x) for branch in pyramid.branches), pyramid.image(x.mean((2, 3), keepdim=True)).expand(-1, -1, 9, 9)], 1)
    joined[..., 0, 0].sum().backward()
    assert (x.grad != 0).all()


def test_options_that_describe_no_network_are_refused() -> None:
    with pytest.raises(ValueError, match="8 or 16"):
        on_meta(2, output_stride=32)
    with pytest.raises(ValueError, match="four stages"):
        on_meta(2, blocks=(1, 1))
