"""Configurations that see the middle of the slices only, or slices brought to a fixed number of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..schema import Box, Configuration


def with_center_crop(configuration: Configuration, size: Sequence[int]) -> tuple[Configuration, str]:
    """The configuration that crops every slice to `size` pixels about its centre, in the image's own pixels, before it is resampled.

    Crespi et al. 2023 crop slices of 512 x 512 to 320 x 320. What lies outside is background in prediction.

    Returns:
        The configuration, which reads a data folder of its own, and its suffix.

    Raises:
        ValueError: They are no two sizes of slices.
    """
    crop, suffix = _checked("--center-crop", size), f"c{'x'.join(map(str, size))}"
    median = (*configuration.median_shape[:-2], *map(min, configuration.median_shape[-2:], crop))
    return replace(configuration, center_crop=crop, median_shape=median, data=f"{configuration.data}_{suffix}"), suffix


def with_slice_shape(configuration: Configuration, shape: Sequence[int]) -> tuple[Configuration, str]:
    """The configuration that resamples every slice to `shape` pixels, whatever their size in mm.

    Fang & Yan (IEEE TMI 39, 2020) resize slices of 512 x 512 to 256 x 256. The whole slice is meant, with its margins of zeros, so that all
    slices of a dataset are scaled by the same factor where the files are of one size.

    Returns:
        As `with_center_crop`.

    Raises:
        ValueError: They are no two sizes of slices, or the network sees volumes.
    """
    pixels, suffix = _checked("--slice-shape", shape), f"s{'x'.join(map(str, shape))}"
    if configuration.dim == 3:
        raise ValueError(f"--slice-shape: expected a configuration of slices (2d, 2.5d), got {configuration.name}")
    sizes = zip(configuration.spacing, configuration.median_shape, pixels, strict=True)
    spacing = tuple(size * median / new for size, median, new in sizes)
    data = f"{configuration.data}_{suffix}"
    return replace(configuration, slice_shape=pixels, spacing=spacing, median_shape=pixels, data=data), suffix


def kept_box(box: Box, shape: Sequence[int], configuration: Configuration) -> Box:
    """The part of an image that a configuration sees.

    Args:
        box: Of the voxels that are not zero.
        shape: Of the whole image, transposed; as many axes as `box`.
    """
    plane = list(zip((0,) * 2, shape[-2:], strict=True)) if configuration.slice_shape else list(box[-2:])
    if configuration.center_crop:
        centre = [
            ((n - min(n, size)) // 2, (n + min(n, size) + 1) // 2) for n, size in zip(shape[-2:], configuration.center_crop, strict=True)
        ]
        inside = [(max(low, first), min(high, last)) for (low, high), (first, last) in zip(plane, centre, strict=True)]
        plane = inside if all(start < stop for start, stop in inside) else centre
    return (*box[:-2], *plane)


def _checked(option: str, sizes: Sequence[int]) -> tuple[int, ...]:
    if len(sizes) != 2 or any(type(size) is not int or size < 1 for size in sizes):
        raise ValueError(f"{option}: expected two numbers of pixels (rows columns), got {' '.join(map(str, sizes))}")
    return tuple(sizes)
