"""Layers that networks of several families use, `networks.layers`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autoseg.networks import layers

ONES = {2: (1, 1), 3: (1, 1, 1)}


@pytest.mark.parametrize("dim", [2, 3])
class TestBothDimensions:
    def test_pooling_takes_maximum_and_mean(self, dim: int) -> None:
        x = torch.arange(float(2**dim)).view(1, 1, *(2,) * dim)
        assert layers.max_pool(dim, 2)(x).item() == 2**dim - 1
        assert layers.average_pool(dim, 2)(x).item() == (2**dim - 1) / 2

    def test_dropout_takes_whole_channels(self, dim: int) -> None:
        torch.manual_seed(0)
        dropped = layers.dropout(dim, 0.5)(torch.ones(8, 8, *(3,) * dim)).flatten(2)
        assert set(dropped.mean(2).flatten().tolist()) == {0.0, 2.0}

    def test_norms_agree_with_torch_where_torch_works(self, dim: int) -> None:
        x = torch.randn(2, 3, *(4,) * dim)
        plain = {2: (nn.BatchNorm2d(3), nn.InstanceNorm2d(3)), 3: (nn.BatchNorm3d(3), nn.InstanceNorm3d(3))}[dim]
        for ours, theirs in zip((layers.batch_norm(dim, 3), layers.instance_norm(dim, 3)), plain, strict=True):
            assert torch.equal(ours(x), theirs(x))

    def test_one_value_per_channel_passes_the_batch_norm_by_its_running_statistics(self, dim: int) -> None:
        norm = layers.batch_norm(dim, 2)
        norm(3 + 2 * torch.randn(64, 2, *ONES[dim]))
        before = {key: value.clone() for key, value in norm.state_dict().items()}
        x = torch.randn(1, 2, *ONES[dim], requires_grad=True)
        trained = norm.train()(x)
        assert torch.equal(trained, norm.eval()(x))
        assert all(torch.equal(before[key], value) for key, value in norm.state_dict().items())
        trained.sum().backward()
        assert (x.grad != 0).all()

    def test_one_voxel_passes_the_instance_norm_scaled_and_shifted(self, dim: int) -> None:
        norm = layers.instance_norm(dim, 2)
        nn.init.constant_(norm.weight, 3.0)
        nn.init.constant_(norm.bias, 1.0)
        x = torch.tensor([[1.0, -2.0], [0.5, 4.0]]).view(2, 2, *ONES[dim])
        for mode in (True, False):
            assert norm.train(mode)(x).flatten().tolist() == [4.0, -5.0, 2.5, 13.0]

    @pytest.mark.parametrize(("norm", "biases"), [("batch", 0), ("instance", 0), ("none", 1)])
    def test_a_convolution_has_a_bias_only_without_norm(self, dim: int, norm: str, biases: int) -> None:
        unit = layers.normed_convolution(dim, (2, 3), 3, norm=norm, stride=2, dilation=2)
        assert (unit[0].bias is not None) == biases
        assert unit(torch.zeros(1, 2, *(7,) * dim)).shape == (1, 3, *(4,) * dim)


def test_an_unknown_norm_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"batch, instance, none.*'batch'"):
        layers.make_norm("bath", 2, 4)
