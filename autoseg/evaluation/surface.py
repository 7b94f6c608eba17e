"""Surface elements of masks with their areas, and the distances between two surfaces.

The definition is that of the public package surface-distance (Nikolov et al., arXiv:1809.04430): at every corner where 2 x 2 x 2 voxels
meet (2 x 2 in 2D) and not all of them agree lies a surface element; its area is that of the marching cubes surface there (Lorensen &
Cline, SIGGRAPH 1987), its place the corner itself. Beyond the image there is background, so that a cut organ has a surface at the image's
border too.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..data.labels import foreground_box
from ..preprocessing.cropping import slices_of
from .nearest_distances import nearest_distances

Corner = tuple[int, ...]
"""Place of a voxel among the 2 x 2 x 2 (2 x 2) around a corner: 0 or 1 an axis."""


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """From every element of one surface to the nearest of the other: ``(N,)`` mm, ascending, and the elements' areas (mm²; 2D: mm)."""

    distances: np.ndarray
    areas: np.ndarray

    @property
    def mean(self) -> float:
        """Mean distance, weighted by area, mm."""
        return float((self.distances * self.areas).sum() / self.areas.sum())

    @property
    def maximum(self) -> float:
        """Largest distance, mm."""
        return float(self.distances[-1])

    def percentile(self, percent: float) -> float:
        """The smallest distance, mm, within which at least this share of the area lies."""
        share = np.cumsum(self.areas) / self.areas.sum()
        return float(self.distances[min(int(np.searchsorted(share, percent / 100)), len(share) - 1)])

    def area_within(self, tolerance_mm: float) -> float:
        """Area of the elements that are at most this far away."""
        return float(self.areas[: np.searchsorted(self.distances, tolerance_mm, side="right")].sum())


def surface_distances(
    reference: np.ndarray, prediction: np.ndarray, spacing_mm: Sequence[float]
) -> tuple[SurfaceDistances, SurfaceDistances]:
    """Distances between the surfaces of two masks that are not empty: from the reference's to the prediction's, and back."""
    (points, areas), (other_points, other_areas) = (surface_elements(mask, spacing_mm) for mask in (reference, prediction))
    forward, backward = nearest_distances(points, other_points, spacing_mm)
    return _sorted(forward, areas), _sorted(backward, other_areas)


def surface_elements(mask: np.ndarray, spacing_mm: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """The surface elements of a mask.

    Returns:
        ``(N, D)`` corners (the corner before voxel ``(0, 0, 0)`` is ``(0, 0, 0)``), in the order of the array, and ``(N,)`` areas.
    """
    box = foreground_box(mask)
    codes = neighbour_codes(mask[slices_of(box)])
    table = element_areas(tuple(float(value) for value in spacing_mm))
    points = np.argwhere((codes != 0) & (codes != len(table) - 1))
    areas = table[codes[tuple(points.T)]]
    return points + [start for start, _ in box], areas


def neighbour_codes(mask: np.ndarray) -> np.ndarray:
    """What lies around every corner of a mask, as a number.

    Returns:
        uint8, one longer along each axis: bit ``i + 2 j + 4 k`` is set where voxel ``corner - 1 + (i, j, k)`` is in the mask.
    """
    codes = np.pad(mask, 1).view(np.uint8)
    for axis in range(mask.ndim):
        slices = np.moveaxis(codes, axis, 0)
        codes = np.moveaxis(slices[:-1] | slices[1:] << np.uint8(1 << axis), 0, axis)
    return codes


@lru_cache(maxsize=64)
def element_areas(spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Area of the surface element of every code of `neighbour_codes`: ``(256,)`` mm², or ``(16,)`` mm of a contour."""
    dim = len(spacing_mm)
    corners = [corner[::-1] for corner in itertools.product((0, 1), repeat=dim)]
    faces = np.array([np.prod(np.delete(spacing_mm, axis)) for axis in range(dim)])
    areas = np.zeros(1 << len(corners))
    for code in range(len(areas)):
        inside = [corner for bit, corner in enumerate(corners) if code >> bit & 1]
        if 2 * len(inside) > len(corners):  # the surface around what is missing
            inside = [corner for corner in corners if corner not in inside]
        pieces = [piece for part in _connected(inside) for piece in _pieces(part, dim)]
        areas[code] = sum(float(np.linalg.norm(piece * faces)) for piece in pieces)
    areas.flags.writeable = False
    return areas


def _pieces(corners: Sequence[Corner], dim: int) -> list[np.ndarray]:
    """Plane pieces of the surface that cuts off connected corners of a unit cube half way along its edges: their area vectors, unsigned.

    Worked out by hand for each shape that up to half of the corners can have: a corner is cut off by a triangle, an edge by a rectangle;
    three corners by a triangle over the face and a trapezoid, the four of a face by a square, a corner with its three neighbours by a
    regular hexagon; a chain of four by a triangle, a trapezoid and a triangle on each side of the chain's middle edge, two of which lie
    in one plane.
    """
    axes = [_axis(one, other) for one, other in itertools.combinations(corners, 2) if _adjacent(one, other)]
    if len(corners) == 1:
        return [np.full(dim, 0.5 if dim == 2 else 0.125)]
    if len(corners) == 2:
        return [_along(dim, {axis: 1.0 if dim == 2 else 0.5 for axis in range(dim) if axis != axes[0]})]
    if len(axes) == 4:
        return [_along(dim, {axis: 1.0 for axis in range(dim) if axis not in axes})]
    if len(corners) == 3:
        return [_along(dim, {axis: 0.5 for axis in range(dim) if axis not in axes}), np.full(dim, 0.375)]
    ends = [corner for corner in corners if sum(_adjacent(corner, other) for other in corners) == 1]
    if len(ends) == 3:
        return [np.full(dim, 0.75)]
    middle = next(_axis(*pair) for pair in itertools.combinations([one for one in corners if one not in ends], 2))
    return [np.full(dim, 0.5), *(_along(dim, {middle: 0.25, axis: 0.25}) for axis in range(dim) if axis != middle)]


def _connected(corners: Sequence[Corner]) -> list[list[Corner]]:
    """The corners in groups that hang together along edges of the cube."""
    groups: list[list[Corner]] = []
    for corner in corners:
        touching = [group for group in groups if any(_adjacent(corner, other) for other in group)]
        groups = [group for group in groups if group not in touching] + [[corner, *itertools.chain(*touching)]]
    return groups


def _adjacent(first: Corner, second: Corner) -> bool:
    return sum(a != b for a, b in zip(first, second, strict=True)) == 1


def _axis(first: Corner, second: Corner) -> int:
    """Axis of the edge between two adjacent corners."""
    return next(axis for axis, (a, b) in enumerate(zip(first, second, strict=True)) if a != b)


def _along(dim: int, values: dict[int, float]) -> np.ndarray:
    return np.array([values.get(axis, 0.0) for axis in range(dim)])


def _sorted(distances: np.ndarray, areas: np.ndarray) -> SurfaceDistances:
    """By distance, equal ones by area: the percentile must not depend on where in the image an element lies."""
    order = np.lexsort((areas, distances))
    return SurfaceDistances(distances[order], areas[order])
