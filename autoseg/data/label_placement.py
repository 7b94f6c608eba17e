"""Label maps that do not lie where their image lies: the two readings of their headers, and which of them the image supports.

Reading ``image``: the image's header is true of both, voxel i of the label map belongs to voxel i of the image. Reading ``label``: the
label map's header is true of it, so that it is resampled to the image's grid. Which is right cannot be told from the files alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..schema import Case, Geometry, Image, Labels
from .geometry import displacement, to_index, to_world
from .images import as_label, read_case_geometry, read_label
from .labels import foreground_box
from .sitk_images import to_sitk
from .slicer_segmentation import check_segments, on_grid, read_segments

Reading = Literal["image", "label"]

HEADER_TOLERANCE_VOXELS = 0.5
"""With equal shapes and no corner further away than this many of the smallest voxel edges both readings give the same label map."""

MARGIN = 2
"""Voxels around the foreground that its surface's gradient is computed from."""


@dataclass(frozen=True)
class LabelPlacement:
    """How a label map can be put on the grid of its image.

    Attributes:
        readings: Those that are possible: ``image`` needs equal shapes, ``label`` that the foreground lies inside the image.
        safe: The one to take without being asked; None where two are possible and differ, or the only one is doubtful.
    """

    readings: tuple[Reading, ...]
    safe: Reading | None


def read_case_label(case: Case, labels: Labels, stored: Image | None = None) -> Image:
    """Reads the label map of a case, as `read_label`; a picture without a spacing has its image's geometry.

    `stored` is what `read_stored` gave of it, where that was read already.

    Raises:
        ValueError: Also where the case has none, and as `as_segmented`.
    """
    if case.label is None:
        raise ValueError(f"{case.name}: expected a label map, found none")
    label = read_label(case.label, nifti_geometry=case.nifti_geometry) if stored is None else as_label(stored)
    if label.geometry.has_spacing:
        return as_segmented(label, case.label, labels, lambda: read_case_geometry(case))
    place = read_case_geometry(case)
    return replace(label, geometry=place) if place.shape == label.geometry.shape else label


def as_segmented(label: Image, path: Path, labels: Labels | None, expected: Callable[[], Geometry]) -> Image:
    """A label map as it is; one that Slicer segmented with its values compared with `labels`, and on the grid of its image.

    Raises:
        SegmentationError: Values, layers or place are others than those of the dataset and the image.
    """
    if not read_segments(path):
        return label
    if labels is not None:
        check_segments(path, labels)
    return on_grid(label, expected())


def placement(label: np.ndarray, found: Geometry, expected: Geometry) -> LabelPlacement:
    """Tells how a label map ``(Z, Y, X)`` or ``(Y, X)`` whose geometry is `found` fits an image whose geometry is `expected`.

    Safe are only headers that are inexact by less than a voxel's half, and another grid over the same field of view (a label map of another
    resolution): a crop that lost its origin, for one, has another field of view.
    """
    if found.dim != expected.dim:
        return LabelPlacement((), None)
    image: tuple[Reading, ...] = ("image",) if found.shape == expected.shape else ()
    label_reading: tuple[Reading, ...] = ("label",) if foreground_inside(label, found, expected) else ()
    safe: Reading | None = None
    if voxels_fit(expected, found):
        safe = "image"
    elif not image and label_reading and same_field_of_view(expected, found):
        safe = "label"
    return LabelPlacement(image + label_reading, safe)


def place_label(array: np.ndarray, found: Geometry, expected: Geometry, reading: Reading) -> np.ndarray:
    """The label map on the grid of its image in one of its readings: as it is, or resampled (nearest neighbour, background outside)."""
    if reading == "image":
        return array
    grid = to_sitk(np.zeros(expected.shape, np.int32), expected)
    kind = np.int32 if array.max(initial=0) < 2**31 else np.int64
    values = sitk.Resample(to_sitk(array.astype(kind), found), grid, sitk.Transform(), sitk.sitkNearestNeighbor)
    return sitk.GetArrayFromImage(values)


def voxels_fit(expected: Geometry, found: Geometry) -> bool:
    """Whether the voxels fit and only the header is inexact."""
    return expected.shape == found.shape and displacement(expected, found) <= HEADER_TOLERANCE_VOXELS * min(expected.spacing)


def foreground_inside(label: np.ndarray, found: Geometry, expected: Geometry) -> bool:
    """Whether the box around a label map's foreground lies inside the image by the headers of both, to one voxel."""
    if found.dim != expected.dim or not label.any():
        return False
    spans = [(float(start), float(stop - 1)) for start, stop in foreground_box(label)]
    index = _corners_in(expected, found, spans)
    return bool((index >= -1).all() and (index <= np.array(expected.shape[::-1])).all())


def same_field_of_view(expected: Geometry, found: Geometry) -> bool:
    """Whether two volumes fill the same space, to the larger of their voxels on each axis."""
    index = _corners_in(expected, found, [(-0.5, size - 0.5) for size in found.shape])
    steps = to_index(expected, to_world(found, np.eye(found.dim))) - to_index(expected, to_world(found, np.zeros((1, found.dim))))
    tolerance = np.maximum(1.0, np.abs(steps).max(axis=0))
    ends = np.array(expected.shape[::-1]) - 0.5
    return bool((np.abs(index.min(axis=0) + 0.5) <= tolerance).all() and (np.abs(index.max(axis=0) - ends) <= tolerance).all())


def surface_gradient(image: np.ndarray, label: np.ndarray, spacing: tuple[float, ...]) -> float:
    """Mean gradient magnitude of an image on the surfaces of a label map's organs, in the image's units per mm.

    Organs mostly end where intensities change: of two positions of a label map the right one has the larger value.

    Args:
        image: One channel ``(Z, Y, X)`` or ``(Y, X)``.
        label: Same shape.
        spacing: In mm, array order.

    Returns:
        NaN without a surface inside the image.
    """
    box = foreground_box(label)
    within = tuple(slice(max(start - MARGIN, 0), stop + MARGIN) for start, stop in box)
    part, values = label[within], image[within].astype(np.float64)
    cross = ndimage.generate_binary_structure(label.ndim, 1)
    surface = (part != 0) & (ndimage.minimum_filter(part, footprint=cross) != ndimage.maximum_filter(part, footprint=cross))
    axes = [axis for axis in range(part.ndim) if part.shape[axis] > 1]
    if not surface.any() or not axes:
        return float("nan")
    squares = np.sum([np.gradient(values, spacing[axis], axis=axis) ** 2 for axis in axes], axis=0)
    return float(np.sqrt(squares[surface]).mean())


def describe_readings(image: np.ndarray, label: np.ndarray, found: Geometry, expected: Geometry) -> str:
    """The possible readings of a misplaced label map with the image's mean gradient on the organs' surface in each."""
    parts = [
        f"{surface_gradient(image, place_label(label, found, expected, reading), expected.spacing):.4g} with the {reading}'s header"
        for reading in placement(label, found, expected).readings
    ]
    return f"mean gradient of the image on the label's surface, per mm: {', '.join(parts)}" if parts else ""


def _corners_in(expected: Geometry, found: Geometry, spans: list[tuple[float, float]]) -> np.ndarray:
    """Corners ``(2^dim, dim)`` of a box of voxels of `found`, given in array order, as indices (x, y, z) of `expected`."""
    corners = np.array(list(itertools.product(*reversed(spans))))
    return to_index(expected, to_world(found, corners))
