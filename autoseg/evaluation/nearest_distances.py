"""Distances between two sets of grid points, each to its nearest point of the other set.

A tree of the points is searched instead of computing a distance transform of the volume: the distances are the same, and only those that
are needed are computed (`benchmarks/metrics.py` has both).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def nearest_distances(points: np.ndarray, others: np.ndarray, spacing_mm: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Distance from each point to the nearest of the others, and from each of those to the nearest point.

    Args:
        points: ``(N, D)`` grid indices, N > 0, each once, in the order of the array that they come from.
        others: ``(M, D)`` likewise.
        spacing_mm: D numbers; the distances are ``(N,)`` and ``(M,)`` float64, mm.
    """
    low = np.minimum(points.min(0), others.min(0))
    size = np.maximum(points.max(0), others.max(0)) - low + 1
    keys, other_keys = (np.ravel_multi_index(tuple((some - low).T), tuple(size)) for some in (points, others))
    spacing = np.asarray(spacing_mm, float)
    forward = _search(points, ~_contained(keys, other_keys), others, spacing)
    return forward, _search(others, ~_contained(other_keys, keys), points, spacing)


def _contained(keys: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which keys are among the others, both ascending."""
    return others[np.searchsorted(others, keys).clip(max=len(others) - 1)] == keys


def _search(points: np.ndarray, apart: np.ndarray, others: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Distances of the points that are `apart`, 0 for the rest: of a good prediction most coincide with the reference's."""
    distances = np.zeros(len(points))
    if apart.any():
        from scipy.spatial import cKDTree  # takes a while to load, and prediction needs none

        selected = points[apart]
        tree = cKDTree(others * spacing, leafsize=32, balanced_tree=False)
        nearest = others[tree.query(selected * spacing)[1]]
        # from whole numbers of voxels, so that a distance equal to the tolerance is not off by a rounding error
        distances[apart] = np.sqrt((((selected - nearest) * spacing) ** 2).sum(1))
    return distances
