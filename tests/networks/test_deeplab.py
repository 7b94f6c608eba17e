"""DeepLabV3: what its strides and dilations are, and where its logits lie."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autoseg.networks import build_network
from autoseg.networks.deeplab import AtrousPyramid, DeepLabV3


def on_meta(dim: int, output_stride: int) -> nn.Module:
    with torch.device("meta"):
        return build_network("deeplabv3", dim=dim, in_channels=1, out_channels=2, output_stride=output_stride)


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("dim", [2, 3])
def test_the_feature_map_is_coarser_by_the_output_stride(dim: int, output_stride: int) -> None:
    network = on_meta(dim, output_stride)
    x = torch.empty(1, 1, *(65,) * dim, device="meta")
    assert network.pyramid(network.backbone(x)).shape == (1, 256, *(64 // output_stride + 1,) * dim)
    assert network(x).shape == (1, 2, *x.shape[2:])


@pytest.mark.parametrize(
    ("output_stride", "backbones", "pyramids"),
    [(16, [1] * 13 + [2, 4, 8], [6, 12, 18]), (8, [1] * 7 + [2] * 6 + [4, 8, 16], [12, 24, 36])],
)
def test_dilations(output_stride: int, backbones: list[int], pyramids: list[int]) -> None:
    network = on_meta(2, output_stride)

    def dilations(part: nn.Module) -> list[int]:
        return [m.dilation[0] for m in part.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]

    assert dilations(network.backbone) == backbones
    assert dilations(network.pyramid) == pyramids


def test_a_mirrored_image_has_mirrored_logits() -> None:
    """Where the size begins and ends on a sample and weights are symmetric, nothing is shifted to one side."""
    torch.manual_seed(0)
    network = DeepLabV3(dim=2, in_channels=1, out_channels=2, width=4, blocks=(1, 1, 1, 1), pyramid_channels=8).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 4:
                parameter.copy_((parameter + parameter.flip(2)) / 2)
        x = torch.randn(1, 1, 33, 17)
        assert torch.allclose(network(x.flip(2)), network(x).flip(2), atol=1e-5)


def test_the_mean_of_the_image_reaches_every_voxel() -> None:
    pyramid = AtrousPyramid(2, (2, 4), (6,), norm="instance").eval()
    for branch in pyramid.branches:
        nn.init.zeros_(branch[0].weight)
    x = torch.zeros(1, 2, 9, 9, requires_grad=True)
    joined = torch.cat([*(branch(x) for branch in pyramid.branches), pyramid.image(x.mean((2, 3), keepdim=True)).expand(-1, -1, 9, 9)], 1)
    joined[..., 0, 0].sum().backward()
    assert (x.grad != 0).all()


def test_resnet_18_of_basic_blocks() -> None:
    with torch.device("meta"):
        network = build_network("deeplabv3", dim=2, in_channels=3, out_channels=2, block="basic", blocks=[2, 2, 2, 2])
    assert network.backbone(torch.empty(1, 3, 65, 65, device="meta")).shape == (1, 512, 5, 5)
    torch.manual_seed(0)
    small = DeepLabV3(dim=2, in_channels=1, out_channels=2, width=4, block="basic", blocks=(1, 1, 1, 1), pyramid_channels=8)
    small(torch.randn(2, 1, 33, 17)).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in small.parameters())
    with pytest.raises(ValueError, match="block: expected one of basic, bottleneck, got 'basis'. Did you mean 'basic'"):
        build_network("deeplabv3", dim=2, in_channels=3, out_channels=2, block="basis")
