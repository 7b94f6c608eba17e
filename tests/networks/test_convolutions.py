"""Small convolutions leave mixed precision on processors, large ones do not; the rest is torch's."""

import subprocess
import sys

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


@pytest.mark.parametrize("kernel", [(1, 3, 3), (1, 1, 1), (1, 3, 5), (3, 3, 3)])
@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2), (2, 2, 2)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_a_convolution_of_single_slices_is_the_same_numbers_in_the_same_layout(kernel, stride, layout):
    layer = convolution(3)(4, 6, kernel, stride=stride, padding=[k // 2 for k in kernel]).to(memory_format=layout)
    ours = torch.randn(2, 4, 5, 12, 14).to(memory_format=layout).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    found = layer(ours)
    expected = nn.functional.conv3d(theirs, layer.weight, layer.bias, stride, layer.padding)
    torch.testing.assert_close(found, expected)
    if layout is torch.channels_last_3d:
        assert found.is_contiguous(memory_format=layout)
    found.square().sum().backward()
    gradient = layer.weight.grad.clone()
    layer.weight.grad = None
    expected.square().sum().backward()
    torch.testing.assert_close(gradient, layer.weight.grad, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_single_pixels_with_a_stride_are_taken_out_first(layout):
    layer = convolution(2)(4, 6, 1, stride=2).to(memory_format=layout)
    for _ in range(20):  # torch's own ends the process after some of them, with AVX2
        image = torch.randn(10, 4, 12, 14).to(memory_format=layout).requires_grad_()
        layer(image).square().sum().backward()
    expected = torch.einsum("oi,bihw->bohw", layer.weight[:, :, 0, 0], image[:, :, ::2, ::2]) + layer.bias[:, None, None]
    torch.testing.assert_close(layer(image), expected)
    (gradient,) = torch.autograd.grad(expected.square().sum(), image)
    torch.testing.assert_close(image.grad, gradient)


LARGE_SLICES = """
import torch
from autoseg.networks.blocks import convolution
layer = convolution(3)(32, 32, (1, 3, 3), padding=(0, 1, 1)).to(memory_format=torch.channels_last_3d)
image = torch.randn(1, 32, 2, 256, 192).to(memory_format=torch.channels_last_3d).requires_grad_()
for _ in range(3):
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(image)
    found.float().sum().backward()
    scratch = [torch.randn(size) for size in (10, 1000, 100_000)]
assert torch.isfinite(layer.weight.grad).all()
"""


def test_gradients_of_large_slices_stay_within_their_memory():
    """In a process of its own: where this goes wrong, the process ends."""
    done = subprocess.run([sys.executable, "-c", LARGE_SLICES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
