"""Directions in the patient of a volume's axes as it is displayed, and where its slices lie, in mm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..preprocessing.orientation import SIDES, orientation_of, orientation_transform
from ..schema import Geometry

UPRIGHT = "SPL"
"""Axes that grow to the head, to the back and to the left: the axial plane as usual, patient's left on the right of the picture."""

PLANES = ("axial", "coronal", "sagittal")
"""Name of the plane across each axis of a volume in this orientation."""

OBLIQUE = 0.34
"""From this cosine on (an axis 20 degrees off) a second direction is named, as viewers do: ``AL`` is mostly anterior, and left."""


@dataclass(frozen=True)
class Directions:
    """Of the axes ``(Z, Y, X)`` of a volume as it is displayed; of a 2D image, whose place in the patient its file does not say, nothing.

    Attributes:
        sides: Letters of the patient's side at each axis' beginning and at its end: ``("I", "S")``; empty where nobody knows.
        planes: Name of the plane across each axis.
        start_mm: Where the first slice across each axis lies, along the axis; of ITK's (and DICOM's) world, or from the first slice where
            the volume has no place in it.
        step_mm: From slice to slice; 0 where nobody knows.
    """

    sides: tuple[tuple[str, str], ...] = ()
    planes: tuple[str, ...] = PLANES
    start_mm: tuple[float, ...] = ()
    step_mm: tuple[float, ...] = ()

    def place(self, axis: int, index: int) -> str:
        """Where a slice lies, as ``S 34.5 mm``: so far from the world's origin to that side; empty where it is not known."""
        if not self.step_mm or not self.step_mm[axis]:
            return ""
        at = self.start_mm[axis] + index * self.step_mm[axis]
        side = self.sides[axis][1 if at >= 0 else 0]
        return f"{side} {abs(at):.1f} mm" if side else f"{at:.1f} mm"


def directions_of(geometry: Geometry) -> Directions:
    """Of a volume that lies so in its file, after it was turned for display (`autoseg.report.views.upright`)."""
    if geometry.dim == 2:
        return Directions()
    turned = orientation_of(geometry)
    order, flips = orientation_transform(turned, UPRIGHT)
    columns = np.asarray(geometry.direction, float).reshape(3, 3)[:, ::-1]
    sides, start, step = [], [], []
    for axis, of_file in enumerate(order):
        column = columns[:, of_file] / np.linalg.norm(columns[:, of_file])
        vector = -column if axis in flips else column
        first = geometry.shape[of_file] - 1 if axis in flips else 0
        sides.append((_letters(-vector), _letters(vector)) if geometry.oriented else ("", ""))
        corner = np.asarray(geometry.origin, float) + columns[:, of_file] * geometry.spacing[of_file] * first
        start.append(float(vector @ corner) if geometry.oriented else 0.0)
        step.append(float(geometry.spacing[of_file]) if geometry.has_spacing else 0.0)
    names = PLANES if turned else ("oblique",) * 3 if geometry.oriented else ("across z", "across y", "across x")
    return Directions(tuple(sides), names, tuple(start), tuple(step))


def _letters(vector: np.ndarray) -> str:
    """The patient's side that a vector of ITK's world points to, and the further ones of an oblique one, the nearest first."""
    order = np.argsort(-np.abs(vector), kind="stable")
    return "".join(SIDES[axis][0 if vector[axis] > 0 else 1] for n, axis in enumerate(order) if n == 0 or abs(vector[axis]) >= OBLIQUE)
