"""Where the organs of a label map lie along the patient's axes: the same in copies of an image that are turned or mirrored in the file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..data.labels import organ_mask, union_of_boxes
from ..schema import Geometry, Labels
from .postprocessing import Components


@dataclass(frozen=True)
class OrganPlace:
    """Where an organ's mask lies, in mm along the axes of ITK's world (left, posterior, superior; of a picture its own).

    Attributes:
        centre_mm: Centre of mass, from the middle of the image.
        from_others_mm: Centre of mass, from that of all voxels of other organs; empty where there are none.
        spread_mm: Standard deviation of its voxels.
        image_mm: Size of the image, of an oblique one that of the box around it.
        largest_share: Share of its voxels that lie in its largest component.
    """

    centre_mm: tuple[float, ...]
    from_others_mm: tuple[float, ...]
    spread_mm: tuple[float, ...]
    image_mm: tuple[float, ...]
    largest_share: float


@dataclass(frozen=True, eq=False)
class LabelMapPlaces:
    """Measures where masks lie in a label map and from its other organs.

    Attributes:
        sums: Internal value to the number of its voxels and the sums of their indices (x, y, z), of those that are there.
        boxes: Bounding box of every internal value, the first one's at the start.
    """

    labels: Labels
    geometry: Geometry
    sums: dict[int, np.ndarray]
    boxes: list[tuple[slice, ...] | None]

    @classmethod
    def of(cls, label_map: np.ndarray, labels: Labels, geometry: Geometry) -> LabelMapPlaces:
        """Of a label map ``(Z, Y, X)`` or ``(Y, X)`` of internal values."""
        boxes = ndimage.find_objects(np.maximum(label_map, 0), max_label=len(labels.base_values))
        return cls(labels, geometry, {value: _sums(label_map[box] == value, box) for value, box in enumerate(boxes, 1) if box}, boxes)

    def place(self, index: int, mask: np.ndarray, box: tuple[slice, ...]) -> OrganPlace | None:
        """Where a mask of the organ ``labels.names[index]`` lies that was cut out with a box; None of an empty one."""
        if not mask.any():
            return None
        geometry, members = self.geometry, self.labels.internal_members[index]
        to_mm = np.array(geometry.direction).reshape(geometry.dim, geometry.dim) * np.array(geometry.spacing[::-1])
        size, centre, sizes = np.array(geometry.shape[::-1]), _centre([_sums(mask, box)]), Components.of(mask).sizes
        others = [one for value, one in self.sums.items() if value not in members]
        return OrganPlace(
            centre_mm=_vector(to_mm @ (centre - (size - 1) / 2)),
            from_others_mm=_vector(to_mm @ (centre - _centre(others))) if others else (),
            spread_mm=_vector(np.sqrt(np.diag(to_mm @ _covariance(mask) @ to_mm.T))),
            image_mm=_vector(np.abs(to_mm) @ size),
            largest_share=float(sizes.max() / sizes.sum()),
        )


def organ_places(label_map: np.ndarray, labels: Labels, geometry: Geometry) -> dict[str, OrganPlace]:
    """Organ to its place, of those that a label map ``(Z, Y, X)`` or ``(Y, X)`` of internal values has."""
    measured, found = LabelMapPlaces.of(label_map, labels, geometry), {}
    for index, organ in enumerate(labels.names):
        box = union_of_boxes([measured.boxes[value - 1] for value in labels.internal_members[index]])
        place = None if box is None else measured.place(index, organ_mask(label_map[box], labels, index), box)
        if place is not None:
            found[organ] = place
    return found


def _vector(numbers: np.ndarray) -> tuple[float, ...]:
    return tuple(numbers.tolist())


def _sums(mask: np.ndarray, box: tuple[slice, ...]) -> np.ndarray:
    """Number of a mask's voxels, and the sums of their indices in the order (x, y, z); the mask was cut out with `box`."""
    counts = [_along(mask, axis) for axis in range(mask.ndim)]
    sums = [float(one @ np.arange(side.start, side.stop)) for one, side in zip(counts, box, strict=True)]
    return np.array([float(counts[0].sum()), *sums[::-1]])


def _centre(parts: list[np.ndarray]) -> np.ndarray:
    total = np.sum(parts, axis=0)
    return np.asarray(total[1:] / total[0])


def _covariance(mask: np.ndarray) -> np.ndarray:
    """Covariance of the voxels' indices, ``(dim, dim)`` in the order (x, y, z); from sums over slices, without a list of all voxels."""
    places = [np.arange(size, dtype=np.float64) for size in mask.shape]
    counts = [_along(mask, axis) for axis in range(mask.ndim)]
    total = counts[0].sum()
    centred = [place - count @ place / total for place, count in zip(places, counts, strict=True)]
    found = np.diag([count @ place**2 for place, count in zip(centred, counts, strict=True)])
    for first in range(mask.ndim):
        for second in range(first + 1, mask.ndim):
            rest = tuple(axis for axis in range(mask.ndim) if axis not in (first, second))
            found[first, second] = found[second, first] = centred[first] @ mask.sum(axis=rest, dtype=np.float64) @ centred[second]
    return np.asarray(found[::-1, ::-1] / total)


def _along(mask: np.ndarray, axis: int) -> np.ndarray:
    """Voxels of a mask at each place of an axis."""
    return np.asarray(np.count_nonzero(mask, axis=tuple(other for other in range(mask.ndim) if other != axis)), np.float64)
