"""Metrics of one organ's two masks: volumes, distances between borders and between surfaces, and the CHAOS score.

Two definitions of "the boundary of a mask" are in use, and their numbers differ; the name of a metric says which one it uses.

``..._border``
    Border voxels: those of the mask with a face neighbour (6 in 3D, 4 in 2D) that is not in it; a neighbour beyond the image does not
    count. Distances go from voxel centre to voxel centre. This is the CHAOS challenge's (Kavur et al., MedIA 2021).
``..._surface``
    Surface elements between the voxels, weighted by their area (`autoseg.evaluation.surface`). This is the public package
    surface-distance's (Nikolov et al., arXiv:1809.04430).

Where an organ is absent from both masks every metric is NaN. Where it is absent from one, the distances are the image's diagonal, a bound
for every other distance in it; shares and scores are 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..data.labels import foreground_box
from ..preprocessing.cropping import slices_of
from .chaos_challenge import chaos_score
from .components import ComponentMatches, match_components
from .counts import ConfusionCounts, dice, ravd
from .nearest_distances import nearest_distances
from .surface import SurfaceDistances, surface_distances

TOLERANCE_MM = 1.0
"""Default tolerance of surface distances (Thaler et al., 2021)."""

ROUNDING = 1e-6
"""Share by which a distance may exceed the tolerance: files keep spacings in 32 bits, and a voxel of 1.2 mm is read as 1.20000005."""

MM3_PER_ML = 1000


@dataclass(frozen=True, eq=False)
class MaskPair:
    """Reference and prediction of one organ; costly intermediates are computed once, on first use. Make it with `crop`.

    Attributes:
        reference: ``(Z, Y, X)`` or ``(Y, X)`` bool, cropped to the box of both masks and a voxel more where the image has one.
        prediction: The same shape.
        spacing_mm: Array order.
        diagonal_mm: Of the whole image.
        tolerance_mm: For the metrics that count what is within a tolerance.
    """

    reference: np.ndarray
    prediction: np.ndarray
    spacing_mm: tuple[float, ...]
    diagonal_mm: float
    tolerance_mm: float = TOLERANCE_MM

    @classmethod
    def crop(
        cls, reference: np.ndarray, prediction: np.ndarray, spacing_mm: Sequence[float], *, tolerance_mm: float = TOLERANCE_MM
    ) -> MaskPair:
        """Makes a pair of two masks of a whole image.

        Raises:
            ValueError: The shapes or the number of spacings do not fit together.
        """
        if reference.shape != prediction.shape or len(spacing_mm) != reference.ndim:
            raise ValueError(
                f"masks: expected two of the same shape and a spacing for each axis, found a reference of {reference.shape}, "
                f"a prediction of {prediction.shape} and the spacing {tuple(spacing_mm)}"
            )
        box = grow_box(slices_of(foreground_box(reference | prediction)), reference.shape)
        spacing = tuple(float(value) for value in spacing_mm)
        return cls(reference[box], prediction[box], spacing, diagonal(reference.shape, spacing), tolerance_mm)

    @cached_property
    def overlap(self) -> ConfusionCounts:
        """Voxels that agree and that do not."""
        both = int(np.count_nonzero(self.reference & self.prediction))
        return ConfusionCounts(both, int(np.count_nonzero(self.prediction)) - both, int(np.count_nonzero(self.reference)) - both)

    @cached_property
    def borders(self) -> tuple[np.ndarray, np.ndarray]:
        """Distances of the reference's border voxels from the prediction's, and back: ``(N,)`` and ``(M,)`` mm. Neither mask is empty."""
        points, others = (np.argwhere(border(mask)) for mask in (self.reference, self.prediction))
        return nearest_distances(points, others, self.spacing_mm)

    @cached_property
    def surfaces(self) -> tuple[SurfaceDistances, SurfaceDistances]:
        """Distances of the reference's surface elements from the prediction's, and back. Neither mask is empty."""
        return surface_distances(self.reference, self.prediction, self.spacing_mm)

    @cached_property
    def lesions(self) -> ComponentMatches:
        """The components of both masks, matched."""
        return match_components(self.reference, self.prediction)

    @property
    def within_mm(self) -> float:
        """The tolerance with room for the rounding of spacings."""
        return self.tolerance_mm * (1 + ROUNDING)


def volume(pair: MaskPair) -> float:
    """Volume of the prediction in ml (of a 2D image as if it were 1 mm thick); NaN where the organ is absent from both."""
    return _signed(pair, lambda overlap: overlap.n_prediction)


def reference_volume(pair: MaskPair) -> float:
    """Volume of the reference in ml (of a 2D image as if it were 1 mm thick); NaN where the organ is absent from both."""
    return _signed(pair, lambda overlap: overlap.n_reference)


def volume_error(pair: MaskPair) -> float:
    """Volume of the prediction minus that of the reference in ml; NaN where the organ is absent from both."""
    return _signed(pair, lambda overlap: overlap.n_prediction - overlap.n_reference)


def hd_border(pair: MaskPair) -> float:
    """Largest distance of a border voxel from the other border in mm: Hausdorff's, CHAOS's MSSD; NaN where absent from both."""
    return _unless_empty(pair, pair.diagonal_mm, lambda: float(max(distances.max() for distances in pair.borders)))


def hd95_border(pair: MaskPair) -> float:
    """95th percentile of the border voxels' distances in mm, interpolated, the larger of the two directions; NaN where absent from both."""
    return _unless_empty(pair, pair.diagonal_mm, lambda: float(max(np.percentile(distances, 95) for distances in pair.borders)))


def assd_border(pair: MaskPair) -> float:
    """Mean of the border voxels' distances in mm, those of both directions pooled as in CHAOS; NaN where absent from both."""
    return _unless_empty(pair, pair.diagonal_mm, lambda: float(np.concatenate(pair.borders).mean()))


def nsd_border(pair: MaskPair) -> float:
    """Share of both borders' voxels that are within the tolerance of the other border, 0..1; NaN where absent from both."""
    return _unless_empty(pair, 0.0, lambda: float((np.concatenate(pair.borders) <= pair.within_mm).mean()))


def hd_surface(pair: MaskPair) -> float:
    """Largest distance of a surface element from the other surface in mm; NaN where the organ is absent from both."""
    return _unless_empty(pair, pair.diagonal_mm, lambda: max(side.maximum for side in pair.surfaces))


def hd95_surface(pair: MaskPair) -> float:
    """Distance in mm within which 95 % of a surface's area lies, the larger of the two directions; NaN where absent from both."""
    return _unless_empty(pair, pair.diagonal_mm, lambda: max(side.percentile(95) for side in pair.surfaces))


def assd_surface(pair: MaskPair) -> float:
    """Mean distance between the surfaces in mm, weighted by area, the mean of the two directions; NaN where absent from both."""
    return _unless_empty(pair, pair.diagonal_mm, lambda: sum(side.mean for side in pair.surfaces) / 2)


def nsd_surface(pair: MaskPair) -> float:
    """Share of both surfaces' area that is within the tolerance of the other surface, 0..1; NaN where absent from both."""

    def share() -> float:
        return sum(side.area_within(pair.within_mm) for side in pair.surfaces) / sum(float(side.areas.sum()) for side in pair.surfaces)

    return _unless_empty(pair, 0.0, share)


def chaos(pair: MaskPair) -> float:
    """The CHAOS challenge's score, 0..100 (`autoseg.evaluation.chaos_challenge`); NaN where the organ is absent from both."""

    def score() -> float:
        return chaos_score(dice=dice(pair.overlap), ravd=ravd(pair.overlap), assd_mm=assd_border(pair), mssd_mm=hd_border(pair))

    return _unless_empty(pair, 0.0, score)


def border(mask: np.ndarray) -> np.ndarray:
    """Voxels with a face neighbour that is not in the mask, bool; of a mask that fills the image, the image's outermost voxels."""
    inner = mask.copy()
    for axis in range(mask.ndim):
        inner_slices, slices = np.moveaxis(inner, axis, 0), np.moveaxis(mask, axis, 0)
        inner_slices[:-1] &= slices[1:]
        inner_slices[1:] &= slices[:-1]
    if inner.all():
        inner[:] = False
        inner[tuple(slice(1, -1) if length > 1 else slice(None) for length in mask.shape)] = True
    return mask & ~inner


def grow_box(box: tuple[slice, ...], shape: Sequence[int]) -> tuple[slice, ...]:
    """The box with a voxel more on every side where the image has one."""
    return tuple(slice(max(one.start - 1, 0), min(one.stop + 1, length)) for one, length in zip(box, shape, strict=True))


def diagonal(shape: Sequence[int], spacing_mm: Sequence[float]) -> float:
    """Length of an image's diagonal in mm."""
    return math.hypot(*(length * spacing for length, spacing in zip(shape, spacing_mm, strict=True)))


def _signed(pair: MaskPair, voxels: Callable[[ConfusionCounts], int]) -> float:
    if not (pair.overlap.n_prediction or pair.overlap.n_reference):
        return math.nan
    return voxels(pair.overlap) * (math.prod(pair.spacing_mm) / MM3_PER_ML)


def _unless_empty(pair: MaskPair, worst: float, value: Callable[[], float]) -> float:
    """The value; `worst` where one mask is empty, NaN where both are."""
    overlap = pair.overlap
    if overlap.n_prediction and overlap.n_reference:
        return value()
    return worst if overlap.n_prediction or overlap.n_reference else math.nan
