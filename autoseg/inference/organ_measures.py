"""Size of each organ of a label map, and the intensities of the image in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..schema import Geometry, Image, Labels

MM3_PER_ML = 1000

SLAB = 16
"""Slices that are measured at once: never more than a slab in whole numbers of eight bytes."""


@dataclass(frozen=True)
class OrganMeasures:
    """One organ of one case, of regions the whole region.

    Attributes:
        voxels: Of its mask; pixels of a 2D image.
        size: In `unit`; NaN where nobody knows the spacing.
        unit: ``ml``, or ``mm2`` of a 2D image.
        mean: Mean intensity in the mask, one number a channel, in the units of the file (HU of CT); NaN of an empty one, empty where it was
            not asked for.
        deviation: Standard deviation, likewise.
    """

    voxels: int
    size: float
    unit: str = "ml"
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()


def measure_organs(label_map: np.ndarray, labels: Labels, geometry: Geometry, image: Image | None = None) -> dict[str, OrganMeasures]:
    """Measures every organ of a label map.

    Args:
        label_map: ``(Z, Y, X)`` or ``(Y, X)``, internal values.
        labels: Its organs.
        geometry: Of the map.
        image: On the same grid, for the intensities; None measures sizes only.

    Returns:
        Organ to its measures, also of those that the map does not have.
    """
    counts, sums, squares = _totals(label_map, labels, () if image is None else list(image.array))
    voxel = math.prod(geometry.spacing) / (MM3_PER_ML if geometry.dim == 3 else 1) if geometry.has_spacing else math.nan
    found = {}
    for organ, members in zip(labels.names, labels.internal_members, strict=True):
        inside = list(members)
        count = int(counts[inside].sum())
        mean = sums[:, inside].sum(axis=1) / count if count else np.full(len(sums), math.nan)
        variance = squares[:, inside].sum(axis=1) / count - mean**2 if count else mean
        deviation = np.sqrt(np.maximum(variance, 0))
        unit = "ml" if geometry.dim == 3 else "mm2"
        found[organ] = OrganMeasures(count, count * voxel, unit, tuple(mean.tolist()), tuple(deviation.tolist()))
    return found


def _totals(
    label_map: np.ndarray, labels: Labels, channels: Sequence[np.ndarray] | np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Voxels of every internal value ``(values,)``, and of each channel the sums of intensities and of their squares ``(C, values)``."""
    size = len(labels.base_values) + 1
    counts, sums, squares = np.zeros(size, np.int64), np.zeros((len(channels), size)), np.zeros((len(channels), size))
    for start in range(0, len(label_map), SLAB):
        part = slice(start, start + SLAB)
        slab = np.maximum(label_map[part], 0).reshape(-1)
        inside = slab > 0
        slab = slab[inside].astype(np.int64)
        counts += np.bincount(slab, minlength=size)[:size]
        for channel, array in enumerate(channels):
            values = array[part].reshape(-1)[inside].astype(np.float64)
            sums[channel] += np.bincount(slab, values, minlength=size)[:size]
            squares[channel] += np.bincount(slab, values**2, minlength=size)[:size]
    return counts, sums, squares
