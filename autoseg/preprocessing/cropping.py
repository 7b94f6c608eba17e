"""Cropping to the non-zero region of an image."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..data.labels import foreground_box
from ..schema import Box


def nonzero_box(image: np.ndarray) -> tuple[Box, np.ndarray]:
    """Finds the region of an image ``(C, Z, Y, X)`` or ``(C, Y, X)`` that has data; an image of zeros counts as data everywhere.

    Returns:
        The bounding box of the mask, and the mask: voxels that are not zero in some channel, with enclosed holes filled, in the shape of
        the spatial axes.
    """
    mask = np.zeros(image.shape[1:], bool)
    for channel in image:
        mask |= channel != 0
    box = bounding_box(mask)
    if box is None:
        return tuple((0, size) for size in image.shape[1:]), np.ones_like(mask)
    inside = mask[slices_of(box)]
    if not inside.all():
        inside |= enclosed(~inside)
    return box, mask


def bounding_box(mask: np.ndarray) -> Box | None:
    """The smallest box around a mask; None where it is empty."""
    return foreground_box(mask) if mask.any() else None


def slices_of(box: Box) -> tuple[slice, ...]:
    """Converts a box to an index of slices."""
    return tuple(slice(start, stop) for start, stop in box)


def enclosed(background: np.ndarray) -> np.ndarray:
    """Voxels of the background from which no path over faces leads to the array's border: the mask's holes, in one pass."""
    parts, count = ndimage.label(background)
    enclosed = np.ones(count + 1, bool)
    for axis in range(parts.ndim):
        enclosed[np.take(parts, 0, axis)] = False
        enclosed[np.take(parts, -1, axis)] = False
    enclosed[0] = False
    return enclosed[parts]
