"""Display of volumes: turned to radiological orientation, cut through the organs, in an intensity window that suits them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..data.ct_windows import SOFT_TISSUE, Window, find_window
from ..preprocessing.normalization import default_scheme
from ..preprocessing.orientation import orientation_of, orientation_transform, reorient
from ..schema import Box, Geometry
from .directions import UPRIGHT, Directions

MARGIN_MM = 12.0
MARGIN_SHARE = 0.3
"""Around the organs at least this much is shown, or this share of their extent if that is more."""

LEAST_CT_WIDTH = 350.0
"""HU; a narrower window shows noise."""


UNKNOWN = Directions()
"""Of a volume of which no file says how it lies."""

NO_EDGES = ("", "", "", "")
"""Of a picture that has no place in a patient."""


@dataclass(frozen=True)
class Cut:
    """A slice through a volume.

    Attributes:
        axis: Across it; None for a 2D image.
        title: Plane, which slice of how many, and where that lies.
        box: Rows and columns that are shown, before turning the head up.
        pixel: mm from row to row and from column to column.
        edges: Letters of the patient's sides at the top, bottom, left and right; empty where nobody knows.
    """

    axis: int | None
    index: int
    title: str
    box: Box
    pixel: tuple[float, float]
    edges: tuple[str, str, str, str] = NO_EDGES

    @property
    def size_mm(self) -> tuple[float, float]:
        """Height and width of what is shown."""
        (top, bottom), (left, right) = self.box
        return (bottom - top) * self.pixel[0], (right - left) * self.pixel[1]

    def of(self, array: np.ndarray) -> np.ndarray:
        """This part of an array ``(Z, Y, X)`` or ``(Y, X)``: rows from top to bottom, the head up."""
        plane = array if self.axis is None else np.take(array, self.index, axis=self.axis)
        plane = plane[tuple(slice(*span) for span in self.box)]
        return plane[::-1] if self.axis in (1, 2) else plane


def upright(array: np.ndarray, geometry: Geometry) -> np.ndarray:
    """A volume ``(Z, Y, X)`` turned to `UPRIGHT`, a view; 2D images and oblique volumes stay as they lie."""
    return array if array.ndim == 2 else reorient(array[None], *orientation_transform(orientation_of(geometry), UPRIGHT))[0]


def upright_spacing(geometry: Geometry) -> tuple[float, ...]:
    """Spacing of the turned volume, mm."""
    if geometry.dim == 2:
        return geometry.spacing
    order, _ = orientation_transform(orientation_of(geometry), UPRIGHT)
    return tuple(geometry.spacing[axis] for axis in order)


def cuts(labels: np.ndarray, spacing: Sequence[float], directions: Directions = UNKNOWN) -> list[Cut]:
    """The slices that show most of the organs, cropped to their surroundings: three of a volume, the image itself in 2D.

    Args:
        labels: ``(Z, Y, X)`` or ``(Y, X)``; what is above 0 is an organ.
        spacing: mm.
        directions: Of the volume as it is displayed.
    """
    box = surroundings(labels > 0, spacing)
    if labels.ndim == 2:
        return [best_cut(labels, None, spacing, box)]
    return [best_cut(labels, axis, spacing, box, directions) for axis in range(3) if min(np.delete(labels.shape, axis)) > 1]


def best_cut(labels: np.ndarray, axis: int | None, spacing: Sequence[float], box: Box, directions: Directions = UNKNOWN) -> Cut:
    """The `best_slice` across an axis, cropped to a box; a 2D image itself for None."""
    if axis is None:
        return Cut(None, 0, "", box, (spacing[0], spacing[1]))
    index = best_slice(labels, axis)
    rows, columns = (i for i in range(3) if i != axis)
    place = directions.place(axis, index)
    title = f"{directions.planes[axis]} {index + 1} / {labels.shape[axis]}" + (f", {place}" if place else "")
    edges = NO_EDGES
    if directions.sides:
        vertical, horizontal = directions.sides[rows], directions.sides[columns]
        edges = (*(vertical[::-1] if axis in (1, 2) else vertical), *horizontal)  # the head is up
    return Cut(axis, index, title, (box[rows], box[columns]), (spacing[rows], spacing[columns]), edges)


def best_slice(labels: np.ndarray, axis: int) -> int:
    """Index along `axis` of the slice that shows most of all organs, each measured by its own largest slice; the middle if there are none.

    Args:
        labels: ``(Z, Y, X)``.
        axis: 0, 1 or 2.
    """
    score = np.zeros(labels.shape[axis])
    others = tuple(i for i in range(labels.ndim) if i != axis)
    for value in np.unique(labels[labels > 0]):
        area = (labels == value).sum(axis=others)
        score += area / area.max()
    return int(score.argmax()) if score.any() else labels.shape[axis] // 2


def grey_window(image: np.ndarray, foreground: np.ndarray) -> tuple[float, float]:
    """Intensities drawn black and white: around the organs' median, as wide as their upper half needs.

    Only the upper half counts, as the lower one may hold air (stomach, lung) that would take the contrast from soft tissue.
    Without organs the whole image decides.
    """
    finite = image[np.isfinite(image)]
    if not finite.size:
        return 0.0, 1.0
    values = image[foreground & np.isfinite(image)]
    if values.size:
        middle, bright = (float(value) for value in np.percentile(values, (50, 98)))
        low, high = middle - 4 * (bright - middle), middle + 2 * (bright - middle)
        low, high = max(low, float(finite.min())), min(high, float(finite.max()))
    else:
        low, high = (float(value) for value in np.percentile(finite, (1, 99.5)))
    return low, max(high, low + 1e-6)


def surroundings(mask: np.ndarray, spacing: Sequence[float]) -> Box:
    """The box of a mask with a margin, kept inside the volume; all of it where the mask is empty."""
    box = []
    for axis, (n, size) in enumerate(zip(mask.shape, spacing, strict=True)):
        inside = np.flatnonzero(mask.any(axis=tuple(i for i in range(mask.ndim) if i != axis)))
        if not inside.size:
            return tuple((0, n) for n in mask.shape)
        extent = (inside[-1] - inside[0] + 1) * size
        margin = int(np.ceil(max(MARGIN_MM, MARGIN_SHARE * extent) / size))
        box.append((max(0, int(inside[0]) - margin), min(n, int(inside[-1]) + 1 + margin)))
    return tuple(box)


def window_for(
    image: np.ndarray, foreground: np.ndarray, channel: str, organs: Sequence[str], dataset_windows: Mapping[str, Window]
) -> tuple[tuple[float, float], str]:
    """Intensities drawn black and white, and the same in words.

    CT is shown in the window of its organs (`autoseg.data.ct_windows`) if they share one, else in that of soft tissue, moved to the organs'
    intensities. Other images have no fixed scale: between the 1st and the 99.5th percentile of the organs' surroundings.

    Args:
        image: ``(Z, Y, X)`` or ``(Y, X)``.
        foreground: Where the organs are, bool.
        dataset_windows: Organ to the dataset's own window.
    """
    if default_scheme(channel) == "ct":
        known = {find_window(organ, dataset_windows) for organ in organs}
        shared = known.pop() if len(known) == 1 else None
        if shared is not None:
            width, level = shared
        else:
            low, high = grey_window(image, foreground)
            width = max(LEAST_CT_WIDTH, min(high - low, 3 * SOFT_TISSUE[0]))
            level = round((low + high) / 2 if foreground.any() else SOFT_TISSUE[1])
        return (level - width / 2, level + width / 2), f"CT window: width {width:.0f} HU, level {level:.0f} HU"
    values = image[tuple(slice(*span) for span in surroundings(foreground, (1.0,) * image.ndim))]
    values = values[np.isfinite(values)]
    low, high = (float(value) for value in np.percentile(values, (1, 99.5))) if values.size else (0.0, 1.0)
    words = f"black below {_plain(low)}, white above {_plain(high)} (1st and 99.5th percentile around the organs)"
    return (low, max(high, low + 1e-6)), words


def _plain(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def grey(image: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Intensities as grey values 0..255, uint8; what is not finite is black."""
    low, high = window
    return np.nan_to_num(np.clip((image - low) / (high - low), 0, 1) * 255).round().astype(np.uint8)
