"""Orientation of volumes in the patient, and reorientation by transposing and flipping axes.

An orientation is a word of one letter an array axis: the side of the patient towards which the index grows, of left/right, posterior/
anterior, superior/inferior. ITK's identity direction is ``SPL``: axes ``(Z, Y, X)`` that grow to superior, posterior and left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..schema import Geometry

SIDES = ("LR", "PA", "SI")
"""Of ITK's world axes x, y and z: the side where coordinates grow, and its opposite."""

MAX_OBLIQUE_DEGREES = 40.0
"""Volumes with an axis further than this from all of the patient's axes are oblique and keep their orientation: near 45 degrees (short axes
of the heart) the nearest axis is chance, and reorientation would mix slice directions of different patients."""


def orientation_of(geometry: Geometry) -> str:
    """The orientation of a volume, by the nearest axes of the patient; empty for 2D images, made-up directions and oblique volumes."""
    if geometry.dim != 3 or not geometry.oriented:
        return ""
    columns = np.asarray(geometry.direction, float).reshape(3, 3)[:, ::-1]
    world, closeness = np.abs(columns).argmax(axis=0), np.abs(columns).max(axis=0)
    clear = closeness >= math.cos(math.radians(MAX_OBLIQUE_DEGREES)) * np.linalg.norm(columns, axis=0)
    if not clear.all() or len(set(world.tolist())) < 3:
        return ""
    return "".join(SIDES[side][0 if columns[side, axis] > 0 else 1] for axis, side in enumerate(world))


def orientation_transform(source: str, target: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Indices for `numpy.transpose`, and axes of the result to reverse, from one orientation to another; no change where one is empty."""
    if not source or not target:
        return (0, 1, 2), ()
    side_of = {letter: side for side, letters in enumerate(SIDES) for letter in letters}
    sides = [side_of[letter] for letter in source]
    order = tuple(sides.index(side_of[letter]) for letter in target)
    return order, tuple(axis for axis, axis_of_source in enumerate(order) if source[axis_of_source] != target[axis])


def plan_transform(geometry: Geometry, transpose: Sequence[int], target: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the arguments of `reorient` that bring a file to the orientation `target` and then its axes into the order `transpose`."""
    if geometry.dim != 3:
        return tuple(transpose), ()
    order, flips = orientation_transform(orientation_of(geometry), target)
    return tuple(order[axis] for axis in transpose), tuple(place for place, axis in enumerate(transpose) if axis in flips)


def reorient(array: np.ndarray, transpose: Sequence[int], flips: Sequence[int] = ()) -> np.ndarray:
    """Transposes a file ``(C, Z, Y, X)`` or ``(C, Y, X)`` and flips axes of the result, as a view; a 2D image becomes one slice."""
    moved = np.flip(array.transpose(0, *(axis + 1 for axis in transpose)), tuple(axis + 1 for axis in flips))
    return moved[:, None] if moved.ndim == 3 else moved


def undo_reorient(array: np.ndarray, transpose: Sequence[int], flips: Sequence[int] = ()) -> np.ndarray:
    """Undoes `reorient`, as a view; a 2D image stays one slice."""
    order = transpose if len(transpose) == 3 else (0, *(axis + 1 for axis in transpose))
    return np.flip(array, tuple(axis + 1 for axis in flips)).transpose(0, *(int(axis) + 1 for axis in np.argsort(order)))
