"""What MetaImage and NRRD headers say of spacing, units and values that ITK passes over: it is refused by name instead.

ITK takes 1 mm where no spacing is said, takes every number for millimetres, and stored numbers for the values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

MOST_DEVIATION = 1e-3
"""Largest entry of D^T D - 1 of a direction matrix D that is read: matrices are written with few digits."""

_MILLIMETRES = ("mm", "millimeter", "millimeters", "millimetre", "millimetres", "", "?", "???", "none")
"""Units of length that are read, also unknown ones: medical files without a unit are in millimetres."""

_META_SAME = (("TransformMatrix", "Rotation", "Orientation"), ("Offset", "Position", "Origin"))
"""Names for one thing, of which MetaIO takes the first."""

_SPATIAL_KINDS = ("domain", "space", "time", "none", "???", "")


def check_metaimage(path: Path, fields: Mapping[str, str]) -> None:
    """Raises a ValueError where a MetaImage header lacks its spacing, or says units, values or places that would not be read as meant."""
    if "ElementSpacing" not in fields and "ElementSize" not in fields:
        raise _wrong(path, "a spacing, in the field ElementSpacing", "none", "add a line ElementSpacing with the millimetres of a voxel")
    unit = fields.get("DistanceUnits", "")
    if unit.lower() not in _MILLIMETRES:
        raise _in_other_units(path, f"DistanceUnits = {unit}")
    for name, usual in (("ElementToIntensityFunctionSlope", 1.0), ("ElementToIntensityFunctionOffset", 0.0)):
        if name in fields and float(fields[name]) != usual:
            found = f"{name} = {fields[name]}, which few programs apply"
            raise _wrong(path, "stored numbers that are the values", found, "write the values themselves, without that field")
    for names in _META_SAME:
        given = {name: np.array([float(word) for word in fields[name].split()]) for name in names if name in fields}
        first = next(iter(given.values()), None)
        differing = [name for name, numbers in given.items() if first is not None and not np.array_equal(numbers, first)]
        if differing:
            raise _wrong(path, "one place", f"{next(iter(given))} and {differing[0]} that differ", "take the wrong one away")


def check_metaimage_axes(path: Path, fields: Mapping[str, str]) -> None:
    """Raises a ValueError where the axes of a MetaImage header are not orthonormal: ITK gives them length 1."""
    name = next((one for one in _META_SAME[0] if one in fields), None)
    if name is not None:
        n_axes = int(fields["NDims"])
        check_orthonormal(path, np.array([float(word) for word in fields[name].split()]).reshape(n_axes, n_axes).T, name)


class NotOrthonormalError(ValueError):
    """Axes of an image that are not at right angles, or not of length 1."""


def check_orthonormal(path: Path, matrix: np.ndarray, name: str = "a direction") -> None:
    """Raises a ValueError where the columns of a direction matrix are no unit vectors at right angles."""
    gram = matrix.T @ matrix
    lengths = np.sqrt(np.diag(gram))
    if np.abs(np.diag(gram) - 1).max() > MOST_DEVIATION:
        numbers = ", ".join(f"{length:.4g}" for length in lengths)
        raise _crooked(
            path,
            "image axes of length 1",
            f"{name} that is not orthonormal: its axes have the lengths {numbers}, so that it changes the spacing",
            "write the spacing as such, and axes of length 1",
        )
    cosine = float(np.abs(gram / np.outer(lengths, lengths) - np.eye(len(gram))).max())
    if cosine > MOST_DEVIATION:
        found = f"{name} that is not orthonormal (largest cosine between two axes {cosine:.2g})"
        raise _crooked(path, "orthogonal image axes", found, "resample it to a straight grid; small deviations autoseg_check --fix repairs")


def check_nrrd(path: Path, fields: Mapping[str, str], n_axes: int) -> None:
    """Raises a ValueError where an NRRD header lacks the spacing of a spatial axis, or says units or values that would not be read."""
    kinds = [kind.lower() for kind in fields.get("kinds", "").split()] or [""] * n_axes
    spatial = [axis for axis in range(n_axes) if axis < len(kinds) and kinds[axis] in _SPATIAL_KINDS][:3]
    known = _known_spacings(fields, n_axes)
    lacking = [axis + 1 for axis in spatial if not known[axis]]
    if lacking:
        found = "none" if not any(known) else f"none for axis {', '.join(map(str, lacking))}"
        remedy = "add a line 'spacings' (or 'space' and 'space directions') with the millimetres of a voxel"
        raise _wrong(path, "a spacing, in the field spacings or space directions", found, remedy)
    units = re.findall(r'"([^"]*)"', fields.get("units", ""))
    named = [*re.findall(r'"([^"]*)"', fields.get("space units", "")), *(units[axis] for axis in spatial if axis < len(units))]
    other = [unit for unit in named if unit.strip().lower() not in _MILLIMETRES]
    if other:
        raise _in_other_units(path, f"the unit {other[0]!r}")
    for name in ("old min", "oldmin", "old max", "oldmax"):
        if name in fields:
            found = f"{name}: {fields[name]}, the range that its numbers stand for and that few programs restore"
            raise _wrong(path, "stored numbers that are the values", found, "write the values themselves, without that field")


def _known_spacings(fields: Mapping[str, str], n_axes: int) -> list[bool]:
    """Whether the header says the spacing of each axis."""
    vectors = re.findall(r"none|\([^)]*\)", fields.get("space directions", "").lower())
    if vectors:
        return [axis < len(vectors) and vectors[axis] != "none" for axis in range(n_axes)]
    words: Sequence[str] = fields.get("spacings", "").split()
    return [axis < len(words) and bool(np.isfinite(float(words[axis]))) for axis in range(n_axes)]


def _in_other_units(path: Path, found: str) -> ValueError:
    return _wrong(path, "millimetres", f"{found}, which programs read differently", "write spacing and origin in mm")


def _crooked(path: Path, expected: str, found: str, remedy: str) -> NotOrthonormalError:
    return NotOrthonormalError(*_wrong(path, expected, found, remedy).args)


def _wrong(path: Path, expected: str, found: str, remedy: str) -> ValueError:
    return ValueError(f"{path}: cannot be read: expected {expected}, found in its header: {found}; {remedy}")
