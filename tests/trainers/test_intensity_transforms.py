"""Grey value transforms against SciPy, torch's interpolation and their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import correlate1d
from torch.utils._python_dispatch import TorchDispatchMode

from autoseg.trainers.augmentation import intensity


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randn((2, 9, 12, 10), generator=torch.Generator().manual_seed(3)) * 2 + 1


def test_noise_has_its_deviation_and_repeats():
    first, second, other = torch.zeros(3, 1, 40, 40, 40)
    for noisy, seed in ((first, 5), (second, 5), (other, 6)):
        intensity.add_noise(noisy, 0.07, seed)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert first.std().item() == pytest.approx(0.07, rel=0.02)


@pytest.mark.parametrize(("sigma", "width"), [(0.5, 3), (0.75, 5), (1.0, 7)])
def test_kernel_width_is_the_odd_number_nearest_to_six_sigma(sigma, width):
    kernel = intensity.gaussian_kernel(sigma)
    assert len(kernel) == width
    assert sum(kernel) == pytest.approx(1)


def test_blur_is_a_separable_convolution_with_mirrored_borders(image):
    before, sigmas = image.clone(), (0.5, 0.8, 1.0)
    intensity.blur(image, (sigmas, None))
    expected = before[0].numpy().astype(float)
    for axis, sigma in enumerate(sigmas):
        expected = correlate1d(expected, intensity.gaussian_kernel(sigma), axis=axis, mode="mirror")
    np.testing.assert_allclose(image[0], expected, atol=1e-5)
    assert torch.equal(image[1], before[1])


def test_a_constant_stays_in_axes_shorter_than_the_blurs_kernel_and_with_gamma():
    image = torch.full((1, 1, 2, 3), 4.0)
    intensity.blur(image, ((1.0, 1.0, 1.0),))
    torch.testing.assert_close(image, torch.full((1, 1, 2, 3), 4.0))
    intensity.change_gamma(image, (0.7,), invert=False)
    torch.testing.assert_close(image, torch.full((1, 1, 2, 3), 4.0))


def test_brightness_and_contrast(image):
    before = image.clone()
    intensity.change_brightness(image, (1.2, None))
    torch.testing.assert_close(image[0], before[0] * 1.2)
    assert torch.equal(image[1], before[1])
    image = before.clone()
    intensity.change_contrast(image, (0.8, 1.25))
    torch.testing.assert_close(image[0].std(), before[0].std() * 0.8)
    torch.testing.assert_close(image[0].mean(), before[0].mean())
    assert image[1].min() == before[1].min()
    assert image[1].max() == before[1].max()


@pytest.mark.parametrize("invert", [False, True])
def test_gamma_keeps_mean_deviation_and_order(image, invert):
    before = image.clone()
    intensity.change_gamma(image, (1.4, None), invert=invert)
    torch.testing.assert_close(image[0].mean(), before[0].mean(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(image[0].std(), before[0].std())
    assert torch.equal(image[0].flatten().argsort(), before[0].flatten().argsort())
    assert torch.equal(image[1], before[1])
    # An exponent above 1 spreads what lies at the top; inverted, what lies at the bottom.
    median_moves = (image[0].max() - image[0].median()) - (before[0].max() - before[0].median())
    assert (median_moves > 0) != invert


@pytest.mark.parametrize("zoom", [0.5, 0.63, 0.9])
@pytest.mark.parametrize("first_axis", [0, 1])
def test_low_resolution_is_nearest_down_and_linear_up(image, zoom, first_axis):
    before = image.clone()
    intensity.lower_resolution(image, (None, zoom), first_axis=first_axis)
    size = [n if axis < first_axis else round(n * zoom) for axis, n in enumerate(before.shape[1:])]
    small = F.interpolate(before[1][None, None], size, mode="nearest-exact")
    torch.testing.assert_close(image[1], F.interpolate(small, before.shape[1:], mode="trilinear")[0, 0], atol=1e-4, rtol=1e-4)
    assert torch.equal(image[0], before[0])


class _Watch(TorchDispatchMode):
    """Stands for a device without float64: fails where a tensor of that type is made on the meta device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for one in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(one, torch.Tensor) and one.device.type == "meta":
                assert one.dtype != torch.float64, function
        return result


def test_devices_without_float64_are_served():
    image = torch.empty((1, 9, 12, 10), device="meta")
    with _Watch():
        intensity.lower_resolution(image, (0.6,))
        intensity.blur(image, ((0.7, 0.7, 0.7),))
        intensity.change_gamma(image, (1.2,), invert=True)
        intensity.change_contrast(image, (1.2,))
    with pytest.raises(AssertionError), _Watch():
        torch.arange(3, device="meta", dtype=torch.float64)
