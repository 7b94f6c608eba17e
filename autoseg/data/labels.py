"""Conversion between file and internal values (`autoseg.schema.conventions`), masks of organs, and left-right pairs of organs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ..schema import Box, Labels, Mirroring
from ..schema.conventions import OUTSIDE

LEFT = frozenset({"left", "l", "lt", "lft", "links", "linke", "linker", "linkes", "gauche", "sinister", "sinistra"})
RIGHT = frozenset({"right", "r", "rt", "rgt", "rechts", "rechte", "rechter", "rechtes", "droite", "droit", "dexter", "dextra"})

ASYMMETRIC = frozenset(
    (
        *("ventricle", "ventricles", "ventricular", "ventrikel", "atrium", "atria", "atrial", "vorhof"),
        *("auricle", "appendage", "heart", "cardiac", "coronary", "pulmonary", "lobe", "lobes"),
        *("liver", "hepatic", "portal", "brachiocephalic", "bronchus", "bronchi", "colon", "colic", "gastric", "spleen"),
    )
)
"""Words of organs whose left and right member differ in shape, so that a flipped image does not show the other one."""

MIRRORED = frozenset(
    ["lateral", "lat", "brain", "cerebral", "cerebellar", "cerebellum", "frontal", "temporal", "parietal", "occipital", "insular", "limbic"]
)
"""Words that make an organ with a word of `ASYMMETRIC` symmetric after all: the brain's lateral ventricles and its lobes."""

_TABLE_LIMIT = 1 << 16
_BLOCK = 1 << 18


def to_internal_values(array: np.ndarray, labels: Labels, *, source: str) -> np.ndarray:
    """Converts file values (integers of any shape) to internal values, int16.

    Raises:
        ValueError: Values that the dataset does not declare, with their counts; the message begins with the file `source`.
    """
    internal = {0: 0} | {value: i + 1 for i, value in enumerate(labels.base_values)}
    if labels.ignore is not None and labels.internal_ignore is not None:
        internal[labels.ignore] = labels.internal_ignore
    undeclared = undeclared_values(array, labels)
    if undeclared:
        listing = ", ".join(f"{value} ({count} voxels)" for value, count in undeclared.items())
        raise ValueError(f"{source}: expected the label values {sorted(internal)}, found also {listing}")
    return _translate(array, internal)


def undeclared_values(array: np.ndarray, labels: Labels) -> dict[int, int]:
    """Counts the voxels of each value that the dataset does not declare."""
    declared = {0, *labels.base_values} | ({labels.ignore} if labels.ignore is not None else set())
    return {value: count for value, count in value_counts(array).items() if value not in declared}


def value_counts(array: np.ndarray) -> dict[int, int]:
    """Counts the voxels of each value in an integer array of any shape."""
    if array.size == 0:
        return {}
    low, high = int(array.min()), int(array.max())
    if high - low < _TABLE_LIMIT:
        counts = np.zeros(high - low + 1, np.int64)
        for block in _blocks(array):
            counts += np.bincount(np.subtract(block, low, dtype=np.int64), minlength=len(counts))
        return {int(i) + low: int(counts[i]) for i in np.flatnonzero(counts)}
    values, counts = np.unique(array, return_counts=True)
    return {int(value): int(count) for value, count in zip(values, counts, strict=True)}


def to_file_values(array: np.ndarray, labels: Labels) -> np.ndarray:
    """Converts internal values to file values, in the smallest sufficient unsigned type; `OUTSIDE` becomes 0."""
    table = [0, *labels.base_values] + ([labels.ignore] if labels.ignore is not None else [])
    return apply_table(array, np.array([0, *table], np.min_scalar_type(max(table))), OUTSIDE)


def organ_mask(array: np.ndarray, labels: Labels, index: int) -> np.ndarray:
    """Mask (bool, same shape) of the organ or region ``labels.names[index]`` in a label map of internal values."""
    return values_mask(array, labels.internal_members[index])


def values_mask(array: np.ndarray, values: Sequence[int]) -> np.ndarray:
    """Mask (bool, same shape) of the voxels with one of some values, of which there is at least one."""
    mask = array == values[0]
    for value in values[1:]:
        mask |= array == value
    return mask


def foreground_box(mask: np.ndarray) -> Box:
    """Smallest box that holds the foreground of a bool mask; ``(0, 0)`` on every axis of an empty mask."""
    box = []
    for axis in range(mask.ndim):
        used = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append((int(used[0]), int(used[-1]) + 1) if len(used) else (0, 0))
    return tuple(box)


def union_of_boxes(boxes: Sequence[tuple[slice, ...] | None]) -> tuple[slice, ...] | None:
    """The smallest box around several, None where all are."""
    known = [box for box in boxes if box is not None]
    return tuple(slice(min(s.start for s in sides), max(s.stop for s in sides)) for sides in zip(*known, strict=True)) if known else None


def left_right_pairs(names: Sequence[str]) -> tuple[tuple[tuple[int, int], ...], tuple[int, ...]]:
    """Pairs of indices (left, right) of organs that are each other's mirror image by their names, and organs whose partner is missing.

    "kidney_left" and "Right Kidney" are a pair, "lungL" and "lungR" too. Organs of `ASYMMETRIC` (the heart's ventricles, lobes of the lung)
    count as organs without a side: a network tells them by shape.
    """
    sides: dict[tuple[str, ...], dict[str, list[int]]] = {}
    for index, name in enumerate(names):
        side, organ = side_and_organ(name)
        if side and not (ASYMMETRIC & set(organ) and not MIRRORED & set(organ)):
            sides.setdefault(tuple(sorted(organ)), {"left": [], "right": []})[side].append(index)
    pairs, unpaired = [], []
    for both in sides.values():
        if len(both["left"]) == len(both["right"]) == 1:
            pairs.append((both["left"][0], both["right"][0]))
        else:
            unpaired += both["left"] + both["right"]
    return tuple(sorted(pairs)), tuple(sorted(unpaired))


def plan_mirroring(labels: Labels, dim: int, lateral_axis: int | None) -> tuple[Mirroring, str]:
    """Decides which flips keep anatomy valid, and says why in a sentence.

    Args:
        lateral_axis: Axis of the patch from right to left; None where the cases disagree; a number that is no axis of the patch
            (-1, for slices that are seen from the side) where the patch does not contain it.
    """
    all_axes = tuple(range(dim))
    pairs, unpaired = left_right_pairs(labels.names)
    if not pairs and not unpaired:
        return Mirroring(all_axes), "no label names a left or right organ: every axis may be flipped"
    if lateral_axis is None:
        return Mirroring(), "labels name left and right organs, but the lateral axis differs between cases: no flips"
    if lateral_axis not in all_axes:
        return Mirroring(all_axes), "labels name left and right organs, but the patch lacks the lateral axis: every axis may be flipped"
    others = tuple(axis for axis in all_axes if axis != lateral_axis)
    if unpaired:
        named = ", ".join(labels.names[i] for i in unpaired)
        return Mirroring(others), f"{named}: a side without its partner: axis {lateral_axis} (left-right) is not flipped"
    if not _swap_keeps_regions(labels, pairs):
        return Mirroring(others), f"regions that exchanging left and right would break: axis {lateral_axis} (left-right) is not flipped"
    named = ", ".join(f"{labels.names[i]} <-> {labels.names[j]}" for i, j in pairs)
    return Mirroring(all_axes, lateral_axis, pairs), f"a flip of axis {lateral_axis} (left-right) exchanges {named}"


def _translate(array: np.ndarray, internal: Mapping[int, int]) -> np.ndarray:
    """`array` with every value replaced, int16; all of its values are keys of `internal`."""
    keys = np.array(sorted(internal), np.int64)
    values = np.array([internal[int(key)] for key in keys], np.int16)
    if keys[-1] >= _TABLE_LIMIT:
        return values[np.searchsorted(keys, array)]
    table = np.zeros(int(keys[-1]) + 1, np.int16)
    table[keys] = values
    return apply_table(array, table, 0)


def apply_table(array: np.ndarray, table: np.ndarray, low: int) -> np.ndarray:
    """Returns ``table[array - low]`` for integers of any shape, computed in blocks to limit the memory for NumPy's 8 byte indices."""
    result = np.empty(array.size, table.dtype)
    position = 0
    for block in _blocks(array):
        result[position : position + block.size] = table[np.subtract(block, low, dtype=np.int64)]
        position += block.size
    return result.reshape(array.shape)


def _blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Flat pieces of an array, in order."""
    flat = array.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        yield flat[start : start + _BLOCK]


def _swap_keeps_regions(labels: Labels, pairs: Sequence[tuple[int, int]]) -> bool:
    """True where every pair consists of single values and exchanging them turns each region into itself or into its partner."""
    swap: dict[int, int] = {}
    partner: dict[int, int] = {}
    for i, j in pairs:
        if len(labels.members[i]) != 1 or len(labels.members[j]) != 1:
            return False
        swap |= {labels.members[i][0]: labels.members[j][0], labels.members[j][0]: labels.members[i][0]}
        partner |= {i: j, j: i}
    return all(
        {swap.get(value, value) for value in members} == set(labels.members[partner.get(index, index)])
        for index, members in enumerate(labels.members)
    )


def side_and_organ(name: str) -> tuple[str, list[str]]:
    """Side ("left", "right" or "") of an organ's name and its other words, lower case."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    sides, organ = set(), []
    for word in re.findall(r"[^\W_]+", spaced.lower()):
        joined = re.fullmatch(r"(left|right)(\w{3,})", word)
        if joined:
            sides.add(joined[1])
            organ.append(joined[2])
        elif word in LEFT or word in RIGHT:
            sides.add("left" if word in LEFT else "right")
        else:
            organ.append(word)
    return (sides.pop() if len(sides) == 1 else ""), organ
