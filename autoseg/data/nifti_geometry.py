"""The one rule by which the geometry of a NIfTI file follows from its header, also where the header contradicts itself.

A header says where its voxels lie up to three times: by the *sform* (a matrix), by the *qform* (a rotation, with the spacing from pixdim),
and by pixdim alone. Programs prefer one or the other, so that files whose readings differ look right in one and wrong in the next.

1. Of a form with code 0 nothing is read; where both have, pixdim alone is taken, at the origin. Negative pixdims count by their amount.
2. The sform is taken where its scale agrees with pixdim; with a warning where a qform has another place: a corner is further away than
   `SAME_PLACE` of the smallest spacing. The user may ask for the qform there.
3. Where the scales differ, one of exactly 1, 1, 1 (or none at all: 0, NaN, infinite, singular) was lost; the other reading is taken, with
   a warning.
4. Where two other scales differ, the file is refused, unless the user says which reading is true.

Metres and microns are converted to mm, with a warning; where that gives voxels outside of `CONVERTED_MM`, unit or numbers are wrong, and
the header is refused.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

FORMS = ("sform", "qform")

SAME_PLACE = 0.1
"""Two geometries are the same where no corner of the volume is further away than this share of the smallest spacing."""

MOST_SKEW = 2e-4
"""Largest cosine between two axes that count as orthogonal."""

PIXDIM = "pixdim"
"""Name of the reading of a header without forms, which says nothing of the orientation in the patient."""

MOST_TILT = 0.7
"""Cosine of the largest angle to the axial plane (45 degrees) of a picture whose axes are the patient's."""

CONVERTED_MM = (0.01, 50.0)
"""Voxels in mm that a header in metres or microns may have: millimetres that are only called so have others."""

_UNIT_NAMES = {1: "metres", 3: "microns"}
_UNIT_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_LPS = np.diag([-1.0, -1.0, 1.0])
"""NIfTI's world runs to the right and anterior, ITK's to the left and posterior."""


@dataclass(frozen=True)
class FormReading:
    """One reading of a header, in ITK's conventions: spacing in mm, origin, and a direction matrix ``(3, 3)`` in axis order (x, y, z)."""

    name: str
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: np.ndarray

    def __str__(self) -> str:
        spacing, origin = (", ".join(f"{value:.6g}" for value in some) for some in (self.spacing, self.origin))
        rows = "; ".join(" ".join(f"{value:.3g}" for value in row) for row in self.direction + 0.0)
        return f"{self.name}: spacing {spacing} mm (x, y, z), origin {origin}, direction {rows}"

    def skew(self, axes: int = 3) -> float:
        """Largest cosine between two of the first `axes` axes."""
        gram = self.direction[:, :axes].T @ self.direction[:, :axes]
        return float(np.abs(gram - np.diag(np.diag(gram))).max())

    def direction_of(self, axes: int) -> tuple[np.ndarray, bool]:
        """Direction matrix ``(axes, axes)`` of a volume or picture, and whether it says how that lies in the patient.

        That of a picture is the nearest rotation (or mirroring) in the axial plane, and made up (1) where its plane is not nearly axial.
        """
        if axes == 3:
            return self.direction, self.name != PIXDIM
        plane = self.direction[:2, :2]
        u, tilt, vt = np.linalg.svd(plane)
        if tilt.min() <= MOST_TILT:
            return np.eye(2), False
        return (plane if tilt.min() > 1 - 1e-6 else u @ vt), self.name != PIXDIM

    def corners(self, size: Sequence[int]) -> np.ndarray:
        """Positions of the corner voxels ``(8, 3)`` in mm of a volume of `size` (x, y, z)."""
        index = np.array(list(itertools.product(*((0, n - 1) for n in size))), float)
        return index @ (self.direction * self.spacing).T + np.array(self.origin)


@dataclass(frozen=True)
class ResolvedForms:
    """What the rule makes of a header.

    Attributes:
        reading: Taken; None where the header is ambiguous.
        readings: All that there are.
        contradiction: In words; empty where the header says one thing.
        converted: The unit of the header's lengths, which were converted to mm; empty where it is mm or none.
    """

    reading: FormReading | None
    readings: tuple[FormReading, ...]
    contradiction: str = ""
    converted: str = ""

    def __str__(self) -> str:
        return f"{self.contradiction}: {'; '.join(map(str, self.readings))}"


def resolve_forms(orientation: Sequence[float], size: Sequence[int], wanted: str | None = None) -> ResolvedForms:
    """Applies the rule.

    Args:
        orientation: The 25 fields of `nifti_header.read_orientation`.
        size: Voxels along x, y, z (two numbers for a picture).
        wanted: The reading of headers that are ambiguous; ``qform`` also where it lies elsewhere than the sform.

    Raises:
        ValueError: There is no valid reading, or its unit cannot be right; in words that begin with what was expected.
    """
    check_form(wanted)
    if int(orientation[0]) not in _UNIT_MM:
        raise ValueError(f"expected a unit of length (xyzt_units) of 0 to 3, found {int(orientation[0])}")
    unit = _UNIT_MM[int(orientation[0])]
    resolved = _resolved(orientation, size, unit, wanted)
    converted = _UNIT_NAMES.get(int(orientation[0]), "")
    if converted:
        _check_converted(converted, resolved, size)
    return replace(resolved, converted=converted)


def _resolved(orientation: Sequence[float], size: Sequence[int], unit: float, wanted: str | None) -> ResolvedForms:
    sform = _sform(orientation, unit) if orientation[6] > 0 else None
    pixdim, has_pixdim = _pixdim(orientation, size, (1.0, 1.0, 1.0) if sform is None else np.array(sform.spacing) / unit)
    pixdim, size = pixdim * unit, (*size, 1)[:3]
    qform = _qform(orientation, pixdim, unit) if orientation[5] > 0 and has_pixdim else None
    if sform is None:
        return _without_sform(orientation, qform, pixdim if has_pixdim else None)
    by_pixdim = (
        FormReading("sform with the spacing of pixdim", tuple(pixdim.tolist()), sform.origin, sform.direction) if has_pixdim else None
    )
    other = qform or by_pixdim
    if by_pixdim is None or other is None:
        return ResolvedForms(sform, (sform,), "pixdim is 0 or not finite")
    if _same_place(sform, by_pixdim, size):
        if qform is None and orientation[5] > 0:
            return ResolvedForms(sform, (sform,), "the qform is not finite")
        if qform is None or (_same_place(by_pixdim, qform, size) and by_pixdim.skew() <= MOST_SKEW):
            return ResolvedForms(FormReading("sform", *_parts(by_pixdim)), (sform,))
        if _same_place(by_pixdim, qform, size):
            return ResolvedForms(qform, (sform, qform))  # the sform's axes are not orthogonal, but nearly the qform's
        taken = qform if wanted == "qform" else FormReading("sform", *_parts(by_pixdim))
        return ResolvedForms(taken, (sform, qform), "sform and qform lie in different places")
    contradiction = f"the scale of the sform ({_numbers(sform.spacing)}) is not pixdim ({_numbers(pixdim)})"
    if _is_unit(sform.spacing, unit):
        return ResolvedForms(other, (sform, other), contradiction)
    if _is_unit(pixdim, unit):
        return ResolvedForms(sform, (sform, other), contradiction)
    chosen = {None: None, "sform": sform, "qform": other}[wanted]
    return ResolvedForms(chosen, (sform, other), contradiction)


def _check_converted(unit: str, resolved: ResolvedForms, size: Sequence[int]) -> None:
    """Raises a ValueError where the voxels of a header in another unit than mm are not of `CONVERTED_MM` (axes of one voxel excepted)."""
    least, most = CONVERTED_MM
    spacing = [value for value, n in zip(resolved.reading.spacing, size, strict=False) if n > 1] if resolved.reading else []
    if not all(least <= value <= most for value in spacing):
        raise ValueError(
            f"expected voxels of {least:g} to {most:g} mm, found {_numbers(spacing)} mm, as the unit of length (xyzt_units) is {unit}:"
            " if the numbers are millimetres, say so there, else write them in millimetres"
        )


def check_form(wanted: str | None) -> None:
    """Raises a ValueError for other readings than ``sform`` and ``qform``; None is no wish."""
    if wanted is not None and wanted not in FORMS:
        raise ValueError(f"--nifti-geometry: expected sform or qform, got {wanted!r}")


def _without_sform(orientation: Sequence[float], qform: FormReading | None, pixdim: np.ndarray | None) -> ResolvedForms:
    lost = "the sform is singular or not finite" if orientation[6] > 0 else ""
    if qform is not None:
        return ResolvedForms(qform, (qform,), lost)
    if pixdim is None:
        raise ValueError(f"expected a spacing, found pixdim {_numbers(orientation[2:5])} and no valid sform")
    if orientation[5] > 0 or lost:
        raise ValueError("expected a valid sform or qform, found one that is singular or not finite")
    only = FormReading(PIXDIM, tuple(pixdim.tolist()), (0.0, 0.0, 0.0), np.eye(3))
    return ResolvedForms(only, (only,))


def straightened(orientation: Sequence[float], reading: FormReading) -> tuple[float, ...]:
    """The 25 fields of a header that says `reading` and nothing else, with the nearest orthogonal axes (polar decomposition)."""
    unit = _UNIT_MM[int(orientation[0])]
    u, _, vt = np.linalg.svd(reading.direction)
    spacing = np.array(reading.spacing) / unit
    rows = _LPS @ np.column_stack([u @ vt * spacing, np.array(reading.origin) / unit])
    return (orientation[0], 1.0, *spacing.tolist(), 0.0, orientation[6] or 1.0, *[0.0] * 6, *rows.ravel().tolist())


def _pixdim(orientation: Sequence[float], size: Sequence[int], default: Sequence[float] | np.ndarray) -> tuple[np.ndarray, bool]:
    """Amounts of pixdim (`default` for axes of one voxel without one, and for the third of a picture), and whether they are a spacing."""
    values = np.abs(np.array(orientation[2:5], float))
    valid = np.isfinite(values) & (values > 0)
    replaced = np.array([False, False, len(size) == 2]) | (~valid & (np.array((*size, 1)[:3]) == 1))
    values[replaced] = np.array(default)[replaced]
    return values, bool((valid | replaced).all())


def _sform(orientation: Sequence[float], unit: float) -> FormReading | None:
    """None where it is not finite or singular."""
    rows = np.array(orientation[13:25], float).reshape(3, 4)
    if not np.isfinite(rows).all():
        return None
    axes = _LPS @ rows[:, :3]
    scale = np.linalg.norm(axes, axis=0)
    if not (scale > 0).all() or abs(np.linalg.det(axes / scale)) < 1e-3:
        return None
    return FormReading("sform", tuple((scale * unit).tolist()), tuple((_LPS @ rows[:, 3] * unit).tolist()), axes / scale)


def _qform(orientation: Sequence[float], pixdim: np.ndarray, unit: float) -> FormReading | None:
    """None where the quaternion or the offset is not finite, or the quaternion is far too long."""
    quaternion, offset = np.array(orientation[7:10], float), np.array(orientation[10:13], float)
    squared = float((quaternion**2).sum())
    if not np.isfinite([*quaternion, *offset]).all() or squared > 1.01:
        return None
    b, c, d = quaternion if 1 - squared >= 1e-7 else quaternion / np.sqrt(squared)
    a = np.sqrt(1 - squared) if 1 - squared >= 1e-7 else 0.0
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    spacing = pixdim / unit
    matrix = (rotation * spacing * np.array([1.0, 1.0, -1.0 if orientation[1] < 0 else 1.0])).astype(np.float32).astype(float)
    direction = _LPS @ matrix
    direction = direction / np.linalg.norm(direction, axis=0)
    return FormReading("qform", tuple(pixdim.tolist()), tuple((_LPS @ offset * unit).tolist()), direction)


def _parts(reading: FormReading) -> tuple[tuple[float, ...], tuple[float, ...], np.ndarray]:
    return reading.spacing, reading.origin, reading.direction


def _same_place(first: FormReading, second: FormReading, size: Sequence[int]) -> bool:
    distance = np.linalg.norm(first.corners(size) - second.corners(size), axis=1).max()
    scales = np.allclose(first.spacing, second.spacing, rtol=1e-2)  # also of axes of one voxel, whose corners are one
    return bool(scales and distance <= SAME_PLACE * min(*first.spacing, *second.spacing))


def _is_unit(spacing: Sequence[float] | np.ndarray, unit: float) -> bool:
    return bool(np.allclose(np.array(spacing) / unit, 1.0, rtol=0, atol=1e-6))


def _numbers(values: Sequence[float] | np.ndarray) -> str:
    return ", ".join(f"{float(value):.6g}" for value in values)
