"""Small convolutions leave mixed precision on processors, large ones do not; the rest is torch's."""

import pytest
import torch
from torch import nn

from autoseg.networks.blocks import convolution, transposed_convolution


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("kind", [convolution, transposed_convolution])
def test_only_small_inputs_leave_autocast(dim, kind):
    layer = kind(dim)(2, 3, 2, 2)
    small, large = torch.randn(1, 2, *[4] * dim), torch.randn(1, 2, *[18] * dim)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(small).dtype is torch.float32
        assert layer(small.bfloat16()).dtype is torch.float32
        assert layer(large).dtype is torch.bfloat16
    assert torch.equal(layer(small), getattr(nn, type(layer).__name__).forward(layer, small))


def test_gradients_of_deep_wide_layers_are_finite():
    torch.manual_seed(0)
    layer = convolution(3)(320, 320, 3, padding=1)
    for _ in range(12):
        layer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            layer(torch.randn(2, 320, 2, 4, 4)).float().square().mean().backward()
        assert torch.isfinite(layer.weight.grad).all()
