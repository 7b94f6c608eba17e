"""Convolutions whose weight gradient is a matrix product, against torch's own gradients."""

import pytest
import torch
from torch import nn

from autoseg.networks import convolutions
from autoseg.networks.blocks import convolution, transposed_convolution

LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}


def gradients(layer: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    layer.zero_grad()
    result = layer(x)
    result.square().sum().backward()
    return result, [parameter.grad for parameter in layer.parameters()]


def of_torch(layer: nn.Module) -> nn.Module:
    """The same layer of torch's own class."""
    kinds = {kind: getattr(nn, kind.__name__) for kind in (convolutions.Conv2d, convolutions.Conv3d)}
    kinds |= {kind: getattr(nn, kind.__name__) for kind in (convolutions.ConvTranspose2d, convolutions.ConvTranspose3d)}
    size = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride)
    plain = kinds[type(layer)](*size, padding=layer.padding)
    plain.load_state_dict(layer.state_dict())
    return plain


@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 3, 3), (5, 3, 1), (3, 3), (1, 5)])
def test_of_one_channel(kernel, monkeypatch):
    dim, calls = len(kernel), []
    monkeypatch.setattr(convolutions.OneChannelConvolution, "apply", counted(convolutions.OneChannelConvolution.apply, calls))
    layer = convolution(dim)(1, 4, kernel, padding=[edge // 2 for edge in kernel]).to(memory_format=LAYOUTS[dim])
    image = torch.randn(2, 1, *[7, 8, 6][:dim]).to(memory_format=LAYOUTS[dim])
    found, ours = gradients(layer, image)
    expected, theirs = gradients(of_torch(layer), image)
    assert calls == [1]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 2), (3, 1, 2), (2, 2)])
@pytest.mark.parametrize("wanted", [True, False])
def test_of_a_transposed_convolution(stride, wanted, monkeypatch):
    dim, calls = len(stride), []
    monkeypatch.setattr(convolutions.UpConvolution, "apply", counted(convolutions.UpConvolution.apply, calls))
    layer = transposed_convolution(dim)(5, 4, stride, stride).to(memory_format=LAYOUTS[dim])
    x = torch.randn(2, 5, *[4, 3, 6][:dim]).to(memory_format=LAYOUTS[dim]).requires_grad_(wanted)
    found, ours = gradients(layer, x)
    of_x, x.grad = x.grad, None
    expected, theirs = gradients(of_torch(layer), x)
    assert calls == [1]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    if wanted:
        torch.testing.assert_close(of_x, x.grad, rtol=1e-4, atol=1e-4)


def test_others_are_left_to_torch(monkeypatch):
    calls = []
    for kind in (convolutions.OneChannelConvolution, convolutions.UpConvolution):
        monkeypatch.setattr(kind, "apply", counted(kind.apply, calls))
    x = torch.randn(1, 1, 18, 18).to(memory_format=torch.channels_last)
    layer = convolution(2)(1, 4, 3, padding=1).to(memory_format=torch.channels_last)
    convolution(2)(1, 4, 3, stride=2, padding=1)(x)
    transposed_convolution(2)(1, 4, 3, 2)(x)
    layer(x.clone().requires_grad_())
    with torch.no_grad():
        layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer(x)
    layer.double()(x.double())
    assert calls == []


def counted(function, calls):
    return staticmethod(lambda *given: calls.append(1) or function(*given))
