"""Candidate regions: the voxels that a model segments at all, the patient's body or the surroundings of a first stage's organs.

A coarse-to-fine cascade trains and predicts inside such candidate regions only (Roth et al., Comput. Med. Imaging Graph. 66, 2018).
"""

from __future__ import annotations

import logging
import math

import numpy as np
from scipy import ndimage

from ..preprocessing.cropping import bounding_box, enclosed
from ..schema import Configuration

log = logging.getLogger(__name__)

AIR = 0.1
"""Voxels that exceed the darkest ones by less than this share of the image's range are no body."""
CONSTANT = 0.1
"""A single value that more of the voxels have than this is what surrounds the body (clipped air, or zeros around a mask)."""
CONSTANT_AIR = 0.02
"""Share of the range within which a voxel counts as that value."""
LARGE_PART = 0.25
"""Components of this share of the largest are body too: two legs, or two halves of a mask."""
NEARLY_ALL = 0.95
"""Share of the image above which a body is not cut out: its outside is too small to save time."""
COARSE = 2**24
"""Voxels above which the body is looked for on every second (third ...) voxel an axis: it need not be exact, and memory stays bounded."""
SAMPLE = 2**18
"""Voxels from which the threshold is taken."""
SLAB = 2**22
"""Voxels whose distances are computed at once."""


def body_mask(image: np.ndarray) -> np.ndarray:
    """The patient's body: threshold, largest component, holes filled in every plane.

    Takes a preprocessed image ``(C, Z, Y, X)`` (HU clipped and scaled, z-scored, or z-scored inside a mask with zeros around it), gives
    ``(Z, Y, X)`` bool; True everywhere where hardly anything is left out, or nothing stands out.
    """
    step = math.ceil((math.prod(image.shape[1:]) / COARSE) ** (1 / 3) - 1e-9)
    grid = (slice(None, None, max(1, step)),) * 3
    mask = np.logical_or.reduce([_foreground(channel[grid]) for channel in image])
    mask = _filled(_large_parts(mask | ndimage.binary_closing(mask)))
    if not mask.any() or mask.mean() > NEARLY_ALL:
        return np.ones(image.shape[1:], bool)
    if step > 1:
        mask = ndimage.binary_dilation(mask)
        for axis, size in enumerate(image.shape[1:]):
            mask = np.repeat(mask, step, axis).take(np.arange(size), axis)
    return mask


def _foreground(channel: np.ndarray) -> np.ndarray:
    """Voxels that differ from the air or the constant value around the body."""
    sample = channel.reshape(-1)[:: max(1, channel.size // SAMPLE)]
    low, high = (float(value) for value in np.percentile(sample, (0.5, 99.5)))
    values, counts = np.unique(sample, return_counts=True)
    most = int(counts.argmax())
    if counts[most] > CONSTANT * sample.size:
        return np.abs(channel - values[most]) > CONSTANT_AIR * (high - low)
    return channel > low + AIR * (high - low)


def _large_parts(mask: np.ndarray) -> np.ndarray:
    parts, count = ndimage.label(mask)
    sizes = np.bincount(parts.reshape(-1), minlength=count + 1)
    sizes[0] = 0
    return (sizes >= max(1, LARGE_PART * sizes.max()))[parts]


def _filled(mask: np.ndarray) -> np.ndarray:
    """The mask with its holes: what is cut off from the border of a plane across any axis (a lung may be open above)."""
    filled = mask.copy()
    for axis in range(mask.ndim):
        np.moveaxis(filled, axis, 0)[...] |= np.stack([enclosed(~plane) for plane in np.moveaxis(mask, axis, 0)])
    return filled


def distances(mask: np.ndarray, most: int) -> np.ndarray:
    """The smallest whole radius (voxels, Euclidean ball) with which the dilated mask reaches each voxel.

    ``(Z, Y, X)`` uint8: 0 in the mask, `most` + 1 where not even the largest radius of interest, `most` below 255, reaches.
    """
    result = np.full(mask.shape, most + 1, np.uint8)
    around = bounding_box(mask)
    if around is None:
        return result
    box = tuple(slice(max(0, start - most), stop + most) for start, stop in around)
    near, inside = result[box], mask[box]
    rows = max(2 * most + 1, SLAB // max(1, inside[0].size))
    for start in range(0, len(inside), rows):
        low, stop = max(0, start - most), min(len(inside), start + rows)
        part = inside[low : stop + most]
        if part.any():
            away = ndimage.distance_transform_edt(~part)[start - low : stop - low]
            near[start:stop] = np.minimum(np.ceil(away), most + 1)
    return result


def dilated(mask: np.ndarray, radius: int) -> np.ndarray:
    """All voxels within `radius` (voxels, Euclidean) of the mask ``(Z, Y, X)``; computed around it only, slab by slab."""
    return mask.astype(bool) if radius == 0 else distances(mask, radius) <= radius


def candidate_region_mask(
    configuration: Configuration, image: np.ndarray, organs: np.ndarray | None, *, source: str = "image"
) -> np.ndarray | None:
    """The candidate region of a configuration in a case.

    Args:
        configuration: With the kind of its `region`.
        image: Preprocessed, ``(C, Z, Y, X)``.
        organs: Label map of the previous stage, ``(Z, Y, X)``.
        source: Name of the case.

    Returns:
        ``(Z, Y, X)`` bool, or None where every voxel is segmented: without a region, or where the previous stage found nothing.

    Raises:
        ValueError: The region is around the previous stage's organs and those are missing.
    """
    region = configuration.region
    if region is None:
        return None
    if region.source == "body":
        return dilated(body_mask(image), region.radius)
    if organs is None:
        raise ValueError(f"{source}: {configuration.name} needs the organs of {configuration.previous_stage}, which are missing")
    mask = organs > 0
    if not mask.any():
        log.warning("%s: %s found no organ; %s segments the whole volume", source, configuration.previous_stage, configuration.name)
        return None
    return dilated(mask, region.radius)
