"""Compares the geometries of volumes, and places their voxels in space."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from ..schema import Geometry
from .nifti_geometry import SAME_PLACE


def geometry_difference(expected: Geometry, found: Geometry) -> str:
    """Describes the difference of two geometries with its measure; empty where they are the same.

    The same means: equal shape, and no corner voxel displaced by more than `SAME_PLACE` times the smallest spacing. Of a picture without a
    spacing only the shape can be compared.
    """
    if expected.shape != found.shape:
        return f"shape {found.shape} instead of {expected.shape}"
    if not (expected.has_spacing and found.has_spacing):
        return ""
    if displacement(expected, found) <= SAME_PLACE * min(expected.spacing):
        return ""
    parts = []
    if not np.allclose(expected.spacing, found.spacing, rtol=1e-4):
        parts.append(f"spacing {_digits(found.spacing)} instead of {_digits(expected.spacing)} mm")
    distance = float(np.linalg.norm(np.subtract(expected.origin, found.origin)))
    if distance > 1e-3:
        parts.append(f"origin by {distance:.4g} mm")
    angle = _angle(expected, found)
    if angle > 1e-3:
        parts.append(f"direction by {angle:.4g} degrees")
    return ", ".join(parts) or f"corners by up to {displacement(expected, found):.4g} mm"


def displacement(expected: Geometry, found: Geometry) -> float:
    """Largest distance in mm between equal corners of two volumes of equal shape."""
    corners = np.array(list(itertools.product(*((0, size - 1) for size in expected.shape[::-1]))), float)
    return float(np.linalg.norm(to_world(expected, corners) - to_world(found, corners), axis=1).max())


def to_world(geometry: Geometry, points: np.ndarray) -> np.ndarray:
    """Voxel indices ``(N, dim)`` in ITK's order (x, y, z) -> millimetres in space, same shape."""
    matrix = np.array(geometry.direction).reshape(geometry.dim, geometry.dim) * np.array(geometry.spacing[::-1])
    return points @ matrix.T + np.array(geometry.origin)


def to_index(geometry: Geometry, points: np.ndarray) -> np.ndarray:
    """Inverse of `to_world`."""
    matrix = np.array(geometry.direction).reshape(geometry.dim, geometry.dim) * np.array(geometry.spacing[::-1])
    return np.linalg.solve(matrix, (points - np.array(geometry.origin)).T).T


def _angle(expected: Geometry, found: Geometry) -> float:
    """Largest angle in degrees between equal axes."""
    first, second = (np.array(g.direction).reshape(g.dim, g.dim) for g in (expected, found))
    cosines = (first * second).sum(axis=0) / (np.linalg.norm(first, axis=0) * np.linalg.norm(second, axis=0))
    return float(np.degrees(np.arccos(np.clip(cosines, -1, 1))).max())


def _digits(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in values)
