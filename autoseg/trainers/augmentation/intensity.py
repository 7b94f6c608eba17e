"""Intensity transforms: noise, blur, brightness, contrast, gamma, low resolution.

Every function changes one image ``(C, *spatial)`` float32 in place, channel by channel; a channel whose parameter is None is left alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

EPSILON = 1e-7
"""Smallest divisor: an image of one value stays as it is."""


def add_noise(image: Tensor, std: float, seed: int) -> None:
    """Adds independent Gaussian noise of standard deviation `std`, reproducible by `seed` on the same kind of device."""
    generator = torch.Generator(image.device).manual_seed(seed)
    image.add_(torch.randn(image.shape, generator=generator, device=image.device, dtype=image.dtype), alpha=std)


def blur(image: Tensor, sigmas: Sequence[Sequence[float] | None]) -> None:
    """Gaussian smoothing with reflected borders; per channel one sigma (voxels) for each spatial axis."""
    for channel, per_axis in zip(image, sigmas, strict=True):
        if per_axis is not None:
            smooth = channel
            for axis, sigma in enumerate(per_axis):
                smooth = _blur_axis(smooth, axis, gaussian_kernel(sigma))
            channel.copy_(smooth)


def gaussian_kernel(sigma: float) -> list[float]:
    """Weights of a Gaussian whose width is the odd number nearest to ``6 * sigma + 0.5``, summing to 1."""
    radius = max(0, math.floor((6 * sigma + 0.5) / 2))
    weights = [math.exp(-0.5 * (x / sigma) ** 2) for x in range(-radius, radius + 1)]
    return [weight / sum(weights) for weight in weights]


def _blur_axis(array: Tensor, axis: int, kernel: Sequence[float]) -> Tensor:
    n, radius = array.shape[axis], len(kernel) // 2
    index = torch.arange(-radius, n + radius, device=array.device)
    # Reflection about the border voxel with period 2(n-1), so that an axis may be shorter than the kernel.
    period = max(1, 2 * (n - 1))
    index = index.remainder(period)
    padded = array.index_select(axis, torch.minimum(index, period - index).clamp_(max=n - 1))
    result = padded.narrow(axis, radius, n) * kernel[radius]
    for offset in range(radius):
        # The kernel is symmetric: both neighbours at this distance share a weight.
        pair = padded.narrow(axis, offset, n) + padded.narrow(axis, 2 * radius - offset, n)
        result.add_(pair, alpha=kernel[offset])
    return result


def add_offset(image: Tensor, offsets: Sequence[float | None]) -> None:
    """Adds its offset to each channel."""
    for channel, offset in zip(image, offsets, strict=True):
        if offset is not None:
            channel.add_(offset)


def change_brightness(image: Tensor, factors: Sequence[float | None]) -> None:
    """Multiplies each channel by its factor."""
    for channel, factor in zip(image, factors, strict=True):
        if factor is not None:
            channel.mul_(factor)


def change_contrast(image: Tensor, factors: Sequence[float | None]) -> None:
    """Stretches each channel about its mean by its factor, clipped to the range it had before."""
    for channel, factor in zip(image, factors, strict=True):
        if factor is not None:
            mean = channel.mean()
            low, high = torch.aminmax(channel)
            channel.sub_(mean).mul_(factor).add_(mean).clamp_(low, high)


def change_gamma(image: Tensor, gammas: Sequence[float | None], *, invert: bool) -> None:
    """Raises each channel, scaled to 0..1, to the power of its gamma; mean and standard deviation are kept.

    Args:
        gammas: One exponent a channel.
        invert: Apply it to the negative image, so that bright values rather than dark ones are spread.
    """
    for channel, gamma in zip(image, gammas, strict=True):
        if gamma is None:
            continue
        if invert:
            channel.neg_()
        mean, std = channel.mean(), channel.std()
        low, high = torch.aminmax(channel)
        extent = high - low
        channel.sub_(low).div_(extent.clamp(min=EPSILON)).pow_(gamma).mul_(extent).add_(low)
        new_mean, new_std = channel.mean(), channel.std()
        channel.sub_(new_mean).mul_(std / new_std.clamp(min=EPSILON)).add_(mean)
        if invert:
            channel.neg_()


def lower_resolution(image: Tensor, zooms: Sequence[float | None], *, first_axis: int = 0) -> None:
    """Simulates a coarser scan: nearest sampling on a smaller grid, linear interpolation back.

    Args:
        zooms: Per channel the size of the small grid relative to the patch, 0..1.
        first_axis: Spatial axes before this one keep their resolution.
    """
    for channel, zoom in zip(image, zooms, strict=True):
        if zoom is not None:
            coarse = channel
            for axis in range(first_axis, channel.ndim):
                coarse = _coarsen_axis(coarse, axis, max(1, round(channel.shape[axis] * zoom)))
            channel.copy_(coarse)


def _coarsen_axis(array: Tensor, axis: int, few: int) -> Tensor:
    """Axis reduced to `few` samples (nearest) and back (linear) in one gather and one interpolation."""
    n, device = array.shape[axis], array.device
    if few >= n:
        return array
    # Places on the axis are computed on the processor: not every device has float64.
    sampled = ((torch.arange(few, dtype=torch.float64) + 0.5) * n / few).long().clamp_(max=n - 1)
    position = ((torch.arange(n, dtype=torch.float64) + 0.5) * few / n - 0.5).clamp_(min=0)
    low = position.long().clamp_(max=few - 1)
    high = (low + 1).clamp_(max=few - 1)
    fraction = (position - low).to(array.dtype).reshape([-1 if other == axis else 1 for other in range(array.ndim)])
    lower, upper = (array.index_select(axis, sampled[end].to(device)) for end in (low, high))
    return torch.lerp(lower, upper, fraction.to(device))
