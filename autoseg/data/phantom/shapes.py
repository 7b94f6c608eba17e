"""Solid shapes as signed distances, and a canvas they are painted on with soft borders.

A distance is a float32 array ``(Z, Y, X)`` in millimetres, negative inside. Points are ``(x, y, z)``: towards the patient's left, towards
the back, towards the head (ITK's LPS). Distances are first-order approximations, good near the surface, which is all that painting needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

Point = tuple[float, float, float]
Window = tuple[slice, ...]


def as_point(values: Iterable[float]) -> Point:
    """A point from three numbers."""
    x, y, z = (float(value) for value in values)
    return x, y, z


@dataclass(frozen=True)
class Space:
    """Coordinates of every voxel in the (deformed) patient, mm, each ``(Z, Y, X)``."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray

    def moved(self, displacement: Sequence[np.ndarray]) -> Space:
        """The space seen through a displacement field of three arrays ``(Z, Y, X)`` in x, y, z."""
        return Space(self.x + displacement[0], self.y + displacement[1], self.z + displacement[2])

    def near(self, centre: Point, reach: Point) -> Window:
        """The smallest block of voxels outside of which every point is further than `reach` from `centre` along some axis."""
        window = []
        for (low, high), c, r in zip(self._profiles, centre, reach, strict=True):
            inside = np.flatnonzero((high >= c - r) & (low <= c + r))
            window.append(slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0))
        return tuple(reversed(window))

    def part(self, window: Window) -> Space:
        """The same coordinates for a block of voxels."""
        return Space(self.x[window], self.y[window], self.z[window])

    @cached_property
    def _profiles(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """Least and greatest x at each X index, y at each Y index, z at each Z index."""
        others = (((0, 1), self.x), ((0, 2), self.y), ((1, 2), self.z))
        return tuple((a.min(axis=axes), a.max(axis=axes)) for axes, a in others)


def ellipsoid(space: Space, centre: Point, radii: Point) -> np.ndarray:
    """Signed distance to an ellipsoid with axes along x, y, z."""
    u, v, w = ((a - c) / r for a, c, r in zip((space.x, space.y, space.z), centre, radii, strict=True))
    scaled = np.sqrt(u * u + v * v + w * w) + 1e-6
    gradient = np.sqrt((u / radii[0]) ** 2 + (v / radii[1]) ** 2 + (w / radii[2]) ** 2) + 1e-6
    return scaled * (scaled - 1) / gradient


def tube(space: Space, points: Sequence[Point], radii: Sequence[float]) -> np.ndarray:
    """Signed distance to a chain of round segments whose radius varies linearly between the points."""
    result: np.ndarray | None = None
    for (a, b), (ra, rb) in zip(zip(points, points[1:], strict=False), zip(radii, radii[1:], strict=False), strict=True):
        dx, dy, dz = (float(end - start) for start, end in zip(a, b, strict=True))  # NumPy's scalars would turn all into float64
        u, v, w = space.x - a[0], space.y - a[1], space.z - a[2]
        along = np.clip((u * dx + v * dy + w * dz) / (dx * dx + dy * dy + dz * dz), 0, 1)
        u, v, w = u - along * dx, v - along * dy, w - along * dz
        distance = np.sqrt(u * u + v * v + w * w) - (ra + (rb - ra) * along)
        result = distance if result is None else smooth_union(result, distance, 3.0)
    if result is None:
        raise ValueError(f"tube: expected at least two points, got {len(points)}")
    return result


def column(space: Space, centre: tuple[float, float], radii: tuple[float, float], power: float = 2.0) -> np.ndarray:
    """Signed distance, measured along the ray from the axis, to an upright cylinder whose cross-section is a superellipse."""
    u, v = space.x - centre[0] + 1e-3, space.y - centre[1]  # the axis itself has no ray
    scaled = (np.abs(u / radii[0]) ** power + np.abs(v / radii[1]) ** power) ** (1 / power)
    return np.sqrt(u * u + v * v) * (1 - 1 / scaled)


def smooth_union(first: np.ndarray, second: np.ndarray, width: float) -> np.ndarray:
    """Union whose seam is rounded over `width` mm (Quilez's polynomial smooth minimum)."""
    overlap = np.maximum(width - np.abs(first - second), 0) / width
    return np.minimum(first, second) - overlap * overlap * (width / 4)


def smooth_field(rng: np.random.Generator, shape: tuple[int, ...], cells: Sequence[float], amplitude: float) -> np.ndarray:
    """A random field ``(Z, Y, X)`` of standard deviation about `amplitude` that varies over `cells` voxels per axis."""
    coarse = tuple(max(4, int(np.ceil(n / cell)) + 3) for n, cell in zip(shape, cells, strict=True))
    nodes = rng.normal(0, amplitude, coarse).astype(np.float32)
    for axis, n in enumerate(shape):
        positions = 1 + np.arange(n) / max(n - 1, 1) * (coarse[axis] - 3)
        nodes = _interpolate(nodes, axis, positions)
    return nodes


def _interpolate(nodes: np.ndarray, axis: int, positions: np.ndarray) -> np.ndarray:
    spline = ndimage.spline_filter1d(nodes, order=3, axis=axis, output=np.float32, mode="mirror")
    basis = np.stack([_cubic_b_spline(positions - i) for i in range(nodes.shape[axis])], axis=1).astype(np.float32)
    return np.moveaxis(np.tensordot(basis, spline, axes=(1, axis)), 0, axis)


def _cubic_b_spline(t: np.ndarray) -> np.ndarray:
    t = np.abs(t)
    return np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.where(t < 2, (2 - t) ** 3 / 6, 0.0))


class Canvas:
    """An image in HU and its label map ``(Z, Y, X)``, painted shape by shape, later ones on top.

    `softness`: millimetres over which one tissue passes into the next: the partial volume of a voxel. `background`: HU to start from.
    """

    def __init__(self, shape: tuple[int, ...], *, softness: float, background: float) -> None:
        self.hu = np.full(shape, background, np.float32)
        self.labels = np.zeros(shape, np.uint8)
        self.softness = softness

    def paint(
        self, distance: np.ndarray, hu: float | np.ndarray, label: int | None = None, *, strength: float = 1.0, at: Window = (slice(None),)
    ) -> None:
        """Paints the inside of `distance` (mm, ``(Z, Y, X)``) in a block of the canvas.

        Args:
            hu: Of the tissue, a number or an array like `distance`.
            label: Written where the distance is negative; None leaves the labels as they are.
            strength: Share of the tissue that is replaced, 0..1.
        """
        cover = np.clip(0.5 - distance / self.softness, 0, 1) * np.float32(strength)
        block = self.hu[at]
        block += cover * (hu - block)
        if label is not None:
            self.labels[at][distance < 0] = label
