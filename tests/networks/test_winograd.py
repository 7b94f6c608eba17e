"""Convolutions by minimal filtering, and how their source is translated."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from autoseg.networks import native, normalisation, winograd
from autoseg.networks.blocks import convolution

LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}

translated = pytest.mark.skipif(
    native.vector_library(winograd.SOURCE) is None, reason="needs Linux, a C compiler, and a processor with AVX-512 or AVX2"
)


def layer_and_batch(kernel: tuple[int, ...], channels: tuple[int, int], shape: tuple[int, ...]) -> tuple[nn.Module, torch.Tensor]:
    """A convolution and a channels-last batch of random numbers."""
    torch.manual_seed(0)
    dim = len(kernel)
    layer = convolution(dim)(*channels, kernel, padding=[edge // 2 for edge in kernel]).to(memory_format=LAYOUTS[dim])
    return layer, torch.randn(shape[0], channels[0], *shape[1:]).to(memory_format=LAYOUTS[dim])


def difference(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Largest, relative to the largest value."""
    return float((found - exact).detach().abs().max() / exact.detach().abs().max())


@translated
@pytest.mark.parametrize(
    ("kernel", "channels", "shape", "wide"),
    [
        ((3, 3, 3), (32, 16), (2, 13, 14, 15), False),  # no axis is a multiple of the tile
        ((3, 3, 3), (16, 48), (1, 12, 30, 17), True),
        ((3, 3, 3), (16, 32), (2, 9, 9, 9), False),  # smaller tiles
        ((1, 3, 3), (16, 48), (2, 5, 33, 30), False),
        ((3, 3), (48, 16), (2, 65, 70), False),
        ((3, 3), (32, 32), (2, 64, 57), True),
    ],
)
def test_values_and_gradients_are_those_of_the_definition(kernel, channels, shape, wide, monkeypatch):
    if wide:
        monkeypatch.setattr(winograd, "LARGEST_KERNELS", 0)
        monkeypatch.setattr(winograd, "WIDE_TILES", 36)
    layer, image = layer_and_batch(kernel, channels, shape)
    exact = nn.Module.double(convolution(len(kernel))(*channels, kernel, padding=layer.padding))
    exact.load_state_dict(layer.state_dict())
    x, same = image.clone().requires_grad_(), image.double().requires_grad_()
    assert winograd.takes(layer, x)
    found, expected = layer(x), exact(same)
    # As a part of a concatenation gets it.
    gradient = torch.randn(shape[0], channels[1] + 5, *shape[1:]).to(memory_format=LAYOUTS[len(kernel)])[:, : channels[1]]
    found.backward(gradient)
    expected.backward(gradient.double())
    assert difference(found, expected) < 3e-5
    assert difference(x.grad, same.grad) < 3e-5
    for one, other in zip(layer.parameters(), exact.parameters(), strict=True):
        assert difference(one.grad, other.grad) < 5e-5
    for one in (found, x.grad):
        assert one.is_contiguous(memory_format=LAYOUTS[len(kernel)])


@translated
def test_the_number_of_threads_changes_only_rounding():
    layer, image = layer_and_batch((3, 3, 3), (16, 16), (1, 16, 24, 24))
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            layer.zero_grad()
            result = layer(image)
            result.square().sum().backward()
            results.append((result.detach(), layer.weight.grad))
    finally:
        torch.set_num_threads(before)
    for result, gradient in results[1:]:
        assert torch.equal(result, results[0][0])
        assert difference(gradient, results[0][1]) < 1e-5


@translated
def test_what_it_cannot_compute_is_left_to_torch():
    layer, image = layer_and_batch((3, 3), (16, 16), (1, 96, 96))
    assert winograd.takes(layer, image)
    small = image[:, :, :20, :20].contiguous(memory_format=torch.channels_last)
    others = [image.contiguous(), image.double(), image.bfloat16(), small, image.to("meta")]
    assert not any(winograd.takes(layer, one) for one in others)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not winograd.takes(layer, image)
    for options in ({"stride": 2}, {"dilation": 2}, {"groups": 2}, {"padding": 0}, {"padding_mode": "reflect"}):
        assert not winograd.takes(convolution(2)(16, 16, 3, **{"padding": 1} | options), image)
    assert not winograd.takes(convolution(2)(16, 8, 3, padding=1), image)
    assert not winograd.takes(convolution(2)(16, 16, 5, padding=2), image)


@translated
def test_the_source_is_translated_once_and_kept(monkeypatch, tmp_path: Path):
    runs = []
    run = subprocess.run
    monkeypatch.setattr(native.subprocess, "run", lambda command, **options: runs.append(command) or run(command, **options))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for _ in range(2):
        assert native.vector_library.__wrapped__(normalisation.SOURCE) is not None
    assert len(runs) == 1
    assert [path.suffix for path in (tmp_path / "autoseg").iterdir()] == [".so"]


def test_without_a_compiler_or_with_one_that_fails_torch_computes(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(native.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(native.shutil, "which", lambda name: None)
    assert native.vector_library.__wrapped__(winograd.SOURCE) is None
    failing = tmp_path / "cc"
    failing.write_text("#!/bin/sh\nexit 1\n")
    failing.chmod(0o700)
    monkeypatch.setattr(native.shutil, "which", lambda name: str(failing))
    monkeypatch.setattr(native, "_features", lambda: "avx512f")
    assert native.vector_library.__wrapped__(winograd.SOURCE) is None
    assert not list(tmp_path.rglob("*.so*"))


PLAIN = """
import torch
from autoseg.networks import build_network, native
native.vector_library = lambda source: None
from autoseg.networks import normalisation, winograd
normalisation.vector_library = winograd.vector_library = native.vector_library
"""

NETWORK = """
import sys
import torch
from autoseg.networks import build_network
torch.manual_seed(0)
shape = {"features": [16, 32], "strides": [[1] * 3, [2] * 3], "kernel_sizes": [[3] * 3] * 2}
network = build_network("plain_unet", dim=3, in_channels=1, out_channels=2, convs_per_stage=[2, 2], decoder_convs=[2], **shape)
network = network.to(memory_format=torch.channels_last_3d)
image = torch.randn(2, 1, 16, 20, 24).to(memory_format=torch.channels_last_3d)
sum(one.square().mean() for one in network(image)).backward()
values = [parameter.grad for parameter in network.parameters()]
torch.save([network.eval()(image).detach(), *values], sys.argv[1])
"""


@translated
@pytest.mark.slow
def test_a_network_is_the_same_with_and_without(tmp_path: Path):
    results = []
    for name, code in (("plain", PLAIN + NETWORK), ("fast", NETWORK)):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], check=True)
        results.append(torch.load(tmp_path / name))
    largest = max(float(one.abs().max()) for one in results[0][1:])
    assert difference(results[1][0], results[0][0]) < 1e-4
    for one, other in zip(results[0][1:], results[1][1:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * largest)
