"""Sorts the slices of a DICOM series into volumes: by plane and position, never by the order of files or frames."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from ..runtime.dataset_folders import natural_key
from ..schema import Geometry
from .dicom_slices import DETAILS, Slice

MAX_GAP_DEVIATION = 0.05
"""Largest difference between a slice gap and the median gap, as a share of it."""

MAX_TILT_DEGREES = 0.1
"""Largest angle between the way from slice to slice and the slices' normal."""

MAX_SIDESTEP = 0.5
"""Largest distance in voxels of a slice from the straight line through the first and the last one."""

SAME_POSITION = 1e-3
"""Slices nearer to each other than this, in mm, lie at one position."""

_SURE = 20
"""So many of `DETAILS` tell volumes apart also where these differ in their number of slices; times do not."""


@dataclass(frozen=True)
class Volume:
    """A volume of a series, or why its slices are none.

    Attributes:
        part: What tells it from other volumes of its series (``b1000``), empty for the only one.
        slices: Sorted along their normal.
        geometry: None where `skip` or `fault` says why there is none.
        skip: Why its slices belong to no case.
        fault: Why its slices are no regular volume.
    """

    part: str
    slices: tuple[Slice, ...]
    geometry: Geometry | None = None
    skip: str = ""
    fault: str = ""


def volumes_of(slices: Sequence[Slice]) -> list[Volume]:
    """Divides the slices of one series into volumes; each slice is in exactly one of the results."""
    if fault := _placeless(slices):
        return [Volume("", tuple(slices), fault=fault)]
    planes = _by_plane(slices)
    most = max(map(len, planes))
    stacks = [plane for plane in planes if len(plane) > 1 or most == 1]
    found: list[Volume] = []
    for stack, name in zip(stacks, _plane_names(stacks)):
        others = [one for plane in planes if plane is not stack for one in plane]
        fault = next((text for one in others if (text := _belongs_to(stack, one))), "")
        parts = [] if fault else _by_details(stack)
        found += [_volume("-".join(filter(None, (name, part))), some) for part, some in parts] or [Volume(name, tuple(stack), fault=fault)]
    longest = max(len(volume.slices) for volume in found)
    alone = f"one slice alone, beside {longest} of the same series"
    found = [replace(one, geometry=None, skip=alone) if len(one.slices) == 1 < longest else one for one in found]
    return found + [Volume("", (plane[0],), skip=_unlike(plane[0], stacks[0][0], most)) for plane in planes if len(plane) == 1 < most]


def _placeless(slices: Sequence[Slice]) -> str:
    """Why no volume of a series is whole: some of its slices have no place, and nothing tells to which of the others they belong."""
    lacking = [(one, names) for one in slices if (names := _lacking(one))]
    if not lacking or len(lacking) == len(slices):
        return ""
    one, names = lacking[0]
    more = f" (and {len(lacking) - 1} more of its slices)" if len(lacking) > 1 else ""
    return (
        f"{one.file}: expected {names} as in the {len(slices) - len(lacking)} other slices of its series, found none{more};"
        " export the series anew, or take the file away if it is none of its slices"
    )


def _lacking(one: Slice) -> str:
    """The attributes of its place that a slice lacks."""
    values = {"ImagePositionPatient": one.position, "ImageOrientationPatient": one.axes, "PixelSpacing": one.spacing}
    return ", ".join(name for name, value in values.items() if value is None)


def _belongs_to(stack: Sequence[Slice], one: Slice) -> str:
    """Why a stack is no whole volume without a slice of another plane: that slice continues it at one of its ends."""
    if stack[0].axes is None or one.position is None or len(stack) < 2:
        return ""
    positions = np.array([other.position for other in stack])
    normal = _normal(stack[0])
    along = np.unique(np.round(positions @ normal, 2))
    gap = float(np.median(np.diff(along))) if len(along) > 1 else 0.0
    place = float(np.array(one.position) @ normal)
    beyond = min(abs(place - along[0] + gap), abs(place - along[-1] - gap))
    beside = np.linalg.norm((np.array(one.position) - positions[0]) - (place - positions[0] @ normal) * normal)
    if gap and beyond < 0.1 * gap and beside < 0.1 * min(stack[0].spacing or (1.0,)):
        return f"{one.file}: lies where the next slice of the others belongs, but is unlike them: {_unlike(one, stack[0], len(stack))}"
    return ""


def _unlike(one: Slice, other: Slice, count: int) -> str:
    def described(slice_: Slice) -> str:
        spacing, axes = ([round(value, 4) for value in values or ()] for values in (slice_.spacing, slice_.axes))
        return f"{slice_.shape[0]} x {slice_.shape[1]} voxels of {spacing} mm with axes {axes}"

    return f"{described(one)} instead of {described(other)} as the {count} others"


def _by_plane(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Slices of equal size, orientation and voxel size."""
    planes: list[list[Slice]] = []
    for one in slices:
        fitting = next((plane for plane in planes if _same_plane(plane[0], one)), None)
        if fitting is None:
            planes.append([one])
        else:
            fitting.append(one)
    return planes


def _same_plane(first: Slice, second: Slice) -> bool:
    def close(one: Sequence[float] | None, other: Sequence[float] | None, relative: float, absolute: float) -> bool:
        return one is other or (one is not None and other is not None and np.allclose(one, other, relative, absolute))

    return (
        first.shape == second.shape
        and close(first.axes, second.axes, 0, 1e-4)
        and close(first.spacing, second.spacing, 1e-3, 0)
        and (first.position is None) == (second.position is None)
    )


def _plane_names(planes: Sequence[Sequence[Slice]]) -> list[str]:
    if len(planes) == 1:
        return [""]
    names = [("sagittal", "coronal", "axial")[int(np.argmax(np.abs(_normal(plane[0]))))] if plane[0].axes else "" for plane in planes]
    return [name if names.count(name) == 1 else f"{name}{names[:i].count(name) + 1}" for i, name in enumerate(names)]


def _normal(one: Slice) -> np.ndarray:
    axes = one.axes or (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    normal: np.ndarray = np.cross(axes[:3], axes[3:])
    return normal / np.linalg.norm(normal)


def _stations(slices: Sequence[Slice]) -> np.ndarray:
    """Number of the position of each slice along the normal, equal for slices at one position; all 0 where they have none."""
    if slices[0].position is None or slices[0].axes is None:
        return np.zeros(len(slices), int)
    along = np.array([one.position for one in slices]) @ _normal(slices[0])
    order = np.argsort(along, kind="stable")
    stations = np.empty(len(slices), int)
    stations[order] = np.concatenate([[0], np.cumsum(np.diff(along[order]) >= SAME_POSITION)])
    return stations


def _by_details(slices: Sequence[Slice]) -> list[tuple[str, list[Slice]]]:
    """Divides slices of which several lie at one position by what their headers say of time, echo, b-value ..., each part with its name.

    Slices that cannot be told apart come back as one part, which is no volume.
    """
    stations = _stations(slices)
    counts = np.bincount(stations)
    if counts.max() == 1 or slices[0].position is None:
        return [("", list(slices))]
    values = {key: [one.details.get(key, "") for one in slices] for key in DETAILS}
    pairs = {key: len(set(zip(stations.tolist(), values[key]))) for key in DETAILS}
    telling = [key for key in DETAILS if pairs[key] > len(counts)]
    sure = set(list(DETAILS)[:_SURE])
    for whole in (True, False):
        for size in (1, 2, 3):
            for keys in combinations(telling, size):
                parts = _divided(slices, stations, [values[key] for key in keys])
                even = all(len(part) == len(counts) for part in parts.values())
                if parts and (even if whole else len(parts) == counts.max() and sure.issuperset(keys)):
                    return _named(parts, keys)
    return [("", list(slices))]


def _divided(slices: Sequence[Slice], stations: np.ndarray, values: Sequence[Sequence[str]]) -> dict[tuple[str, ...], list[Slice]]:
    """Slices by their values; empty where some of one part lie at one position."""
    parts: dict[tuple[str, ...], list[Slice]] = defaultdict(list)
    seen: set[tuple[int, tuple[str, ...]]] = set()
    for one, station, value in zip(slices, stations.tolist(), zip(*values)):
        if (station, value) in seen:
            return {}
        seen.add((station, value))
        parts[value].append(one)
    return parts


def _named(parts: dict[tuple[str, ...], list[Slice]], keys: Sequence[str | int]) -> list[tuple[str, list[Slice]]]:
    """Parts with names such as ``b1000`` or ``TE4-6``; values that are no numbers are counted (``type2``)."""
    columns = [sorted(set(column), key=natural_key) for column in zip(*parts)]
    named = []
    for values in sorted(parts, key=lambda values: [natural_key(value) for value in values]):
        texts = [
            f"{DETAILS[key]}{_short(value) if all(map(_short, column)) else column.index(value) + 1}"
            for key, value, column in zip(keys, values, columns)
        ]
        named.append(("-".join(texts), parts[values]))
    return named


def _short(value: str) -> str:
    """A number as it may stand in a name, empty where the value is none."""
    return re.sub(r"\.0*$", "", value).replace(".", "-") if re.fullmatch(r"\d{1,6}(\.\d{1,3})?", value) else ""


def _volume(part: str, slices: Sequence[Slice]) -> Volume:
    try:
        geometry, order = _regular(slices)
    except ValueError as error:
        return Volume(part, tuple(slices), fault=str(error))
    return Volume(part, tuple(slices[i] for i in order), geometry)


def _regular(slices: Sequence[Slice]) -> tuple[Geometry, Sequence[int]]:
    """Geometry of slices of one plane, and their order along their normal; a ValueError where they are no regular grid."""
    first = slices[0]
    _agree(slices)
    if first.position is None or first.axes is None or first.spacing is None:
        if len(slices) > 1:
            lacking = "ImagePositionPatient" if first.position is None else "ImageOrientationPatient or PixelSpacing"
            raise ValueError(f"{len(slices)} slices without {lacking}: their order and place are unknown")
        spacing = first.spacing or (1.0, 1.0)
        place = (0.0,) * 3, tuple(np.eye(3).ravel().tolist())
        known = first.spacing is not None
        return Geometry((1, *first.shape), (first.thickness, *spacing), *place, oriented=False, has_spacing=known), [0]
    row, column, normal = np.array(first.axes[:3]), np.array(first.axes[3:]), _normal(first)
    positions = np.array([one.position for one in slices])
    order = np.argsort(positions @ normal, kind="stable").tolist()
    gap = _regular_gap(positions[order], normal, first.spacing) if len(slices) > 1 else first.thickness
    direction = np.stack([row / np.linalg.norm(row), column / np.linalg.norm(column), normal], axis=1)
    origin = tuple(positions[order[0]].tolist())
    return Geometry((len(slices), *first.shape), (gap, *first.spacing), origin, tuple(direction.ravel().tolist())), order


def _agree(slices: Sequence[Slice]) -> None:
    """Refuses slices of different kinds of values."""
    kinds = sorted({one.kind for one in slices})
    if len(kinds) > 1:
        raise ValueError(f"its slices are of different kinds: {', '.join(kinds)}")
    plain = [one.file for one in slices if one.rescale is None]
    if 0 < len(plain) < len(slices):
        raise ValueError(f"{plain[0]}: expected RescaleSlope and RescaleIntercept as in the other slices, found none")


def _regular_gap(positions: np.ndarray, normal: np.ndarray, spacing: Sequence[float]) -> float:
    """Millimetres from slice to slice; `positions` (N, 3) are sorted along `normal` (3,)."""
    along = positions @ normal
    gaps = np.diff(along)
    gap = float(np.median(gaps))
    if gaps.min() < SAME_POSITION:
        raise ValueError(
            f"expected one slice a position, found {int((gaps < SAME_POSITION).sum())} slices at the position of another, and nothing in"
            " their headers that divides them into volumes; separate the acquisitions first"
        )
    worst = int(np.argmax(np.abs(gaps - gap)))
    if abs(gaps[worst] - gap) > MAX_GAP_DEVIATION * gap:
        raise ValueError(
            f"expected even slice gaps of {gap:.4g} mm, found {gaps[worst]:.4g} mm between slices {worst + 1} and {worst + 2};"
            " slices are missing or unevenly spaced"
        )
    way = positions[-1] - positions[0]
    across = way - (way @ normal) * normal
    tilt = float(np.degrees(np.arctan2(np.linalg.norm(across), way @ normal)))
    if tilt > MAX_TILT_DEGREES:
        raise ValueError(
            f"expected slices stacked along their normal, found a gantry tilt of {tilt:.2f} degrees"
            f" ({np.linalg.norm(across):.1f} mm over the series); resample it to a straight grid first"
        )
    aside = positions - positions[0] - np.outer((along - along[0]) / (along[-1] - along[0]), way)
    beside = np.linalg.norm(aside - np.outer(aside @ normal, normal), axis=1)
    if beside.max() > MAX_SIDESTEP * min(spacing):
        raise ValueError(
            f"expected slices above each other, found slice {int(beside.argmax()) + 1} displaced by {beside.max():.4g} mm to the side"
        )
    return float((along[-1] - along[0]) / (len(along) - 1))
