"""Labels of a subset of a dataset's organs, and conversion of label maps between label sets."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..runtime.registry import unknown_name_error
from ..schema import Labels
from ..schema.conventions import OUTSIDE
from ..schema.names import same_file_key
from .labels import apply_table
from .region_order import rightly_painted

MAX_NAMES_SHOWN = 3
"""Number of organs that a folder name lists in full; of more it has the first two and the number of the others."""

MAX_TAG_BYTES = 100
"""Longest part of a folder name that organs make: file systems allow 255 bytes in all."""


def subset_labels(labels: Labels, organs: Sequence[str]) -> Labels:
    """Returns the labels of some organs, in the dataset's order with its file values and ignore label; all else becomes background.

    It is `labels` itself where no organ is left out.

    Raises:
        ValueError: A name is no organ of the dataset, or there is none.
    """
    for organ in organs:
        if organ not in labels.names:
            raise unknown_name_error("organ", organ, labels.names)
    if not organs:
        raise ValueError(f"organs: expected at least one of {', '.join(labels.names)}, got none")
    indices = [index for index, name in enumerate(labels.names) if name in organs]
    if len(indices) == len(labels.names):
        return labels
    members = tuple(labels.members[index] for index in indices)
    values = {value for member in members for value in member}
    order = labels.regions_class_order
    # A region may be painted with a value that belongs only to regions that were left out.
    kept_order = tuple(order[i] if order[i] in values else labels.members[i][0] for i in indices) if labels.regions else ()
    return Labels(tuple(labels.names[index] for index in indices), members, labels.ignore, labels.regions, kept_order)


def label_conflict(stored: Labels, target: Labels) -> str:
    """Why organs of one label set cannot be found in another by their names; empty where they can.

    Values may be others, and organs may be missing on either side; but organs that both have must overlap in the same way, and regions
    must be told apart without those that are missing.
    """
    if reason := _differing_overlaps(stored, target):
        return reason
    try:
        labels_as_in(stored, target)
    except ValueError as error:
        return str(error)
    return ""


def _differing_overlaps(stored: Labels, target: Labels) -> str:
    """Why values of one label set have no counterparts in another; empty where they have."""
    ours, theirs = _overlaps(stored, target), _overlaps(target, stored)
    if not theirs:
        return f"expected one of the organs {', '.join(target.names)}, found {', '.join(stored.names)}"
    differing = [shared for shared in {**theirs, **ours} if len(ours.get(shared, ())) != len(theirs.get(shared, ()))]
    if not differing:
        return ""
    names = [name for name in target.names if any(name in shared for shared in differing)]
    then, now = (
        ", ".join(f"{name} {list(members)}" for name, members in zip(one.names, one.members, strict=True) if name in names)
        for one in (stored, target)
    )
    return f"the regions are made of other labels: {then} then, {now} now"


def _overlaps(labels: Labels, other: Labels) -> dict[frozenset[str], list[int]]:
    """The organs that both sets have and that overlap somewhere, to the file values of `labels` that lie in exactly these."""
    found: dict[frozenset[str], list[int]] = {}
    for value in labels.base_values:
        within = zip(labels.names, labels.members, strict=True)
        if shared := frozenset(name for name, members in within if value in members and name in other.names):
            found.setdefault(shared, []).append(value)
    return found


def same_values(stored: Labels, target: Labels) -> dict[int, int]:
    """File values of one label set to those of another that stand for the same organs, by the organs' names.

    The value that a region is painted with becomes that which the other set paints it with. Values of organs that the other set lacks
    are missing.

    Raises:
        ValueError: The names do not tell.
    """
    if reason := _differing_overlaps(stored, target):
        raise ValueError(f"labels: {reason}")
    ours, theirs = _overlaps(stored, target), _overlaps(target, stored)
    found: dict[int, int] = {}
    painted = dict(zip(target.names, target.regions_class_order, strict=False))
    for shared, values in ours.items():
        there = theirs[shared]
        # Of values that differ in nothing but organs of one set, each keeps its number where both have it.
        found |= {value: value for value in values} if values == there else dict(zip(values, there, strict=True))
        for name, value in zip(stored.names, stored.regions_class_order, strict=False):
            if value in values and painted.get(name) in there:
                other = next(key for key in values if found[key] == painted[name])
                found[value], found[other] = found[other], found[value]
    return found


def labels_as_in(stored: Labels, target: Labels) -> Labels:
    """The organs of one label set in the order and with the values of another.

    Of the organs that the other set lacks, regions are left out: each is independent of the others, and painted last one would hide those
    inside of it. Others compete for the voxels with what is kept, and come last, with values of their own.

    Raises:
        ValueError: As `label_conflict` says.
    """
    values, members = same_values(stored, target), dict(zip(target.names, target.members, strict=True))
    free = max([*target.base_values, target.ignore or 0]) + 1
    values |= {value: free + number for number, value in enumerate(one for one in stored.base_values if one not in values)}
    gone = () if stored.regions else (name for name in stored.names if name not in members)
    names = [*(name for name in target.names if name in stored.names), *gone]
    members |= {
        name: tuple(values[value] for value in of_organ)
        for name, of_organ in zip(stored.names, stored.members, strict=True)
        if name not in members
    }
    painted = {name: values[value] for name, value in zip(stored.names, stored.regions_class_order, strict=False)}
    order = tuple(painted[name] for name in names) if stored.regions else ()
    return rightly_painted(Labels(tuple(names), tuple(members[name] for name in names), target.ignore, stored.regions, order))


def translation_table(stored: Labels, target: Labels) -> np.ndarray:
    """The table from internal values of one label set to those of another by organ name; organs that it lacks become background.

    Returns:
        int16 ``(V,)``, indexed by the internal value; the last entry is `OUTSIDE`, so that an index of -1 gives it.

    Raises:
        ValueError: As of `same_values`.
    """
    values = same_values(stored, target)
    position = {value: index + 1 for index, value in enumerate(target.base_values)}
    table = [0, *(position[values[value]] if value in values else 0 for value in stored.base_values)]
    if stored.internal_ignore is not None:
        table.append(target.internal_ignore or 0)
    return np.array([*table, OUTSIDE], np.int16)


def translate_labels(array: np.ndarray, stored: Labels, target: Labels) -> np.ndarray:
    """Converts a label map from the internal values of `stored` to those of `target`: int16; `array` itself where both are equal."""
    if stored == target:
        return array
    table = translation_table(stored, target)
    return apply_table(array, np.roll(table, 1), OUTSIDE)


def organ_indices(stored: Labels, target: Labels) -> tuple[int, ...]:
    """Returns the indices of the organs of `target` in ``stored.names``."""
    return tuple(stored.names.index(name) for name in target.names)


def organs_tag(labels: Labels, among: Sequence[str] = ()) -> str:
    """Returns the organs as a part of a folder name: ``liver+spleen``, of more than three ``liver+spleen+2more_1a2b3c``.

    The digits at the end are a digest of all organs, so that two sets with the same first organs do not share a folder. Fewer organs have
    them where the name of one can be read as that of another organ of `among`, all organs of the dataset (``tumour/core``, ``tumour core``
    and ``Tumour Core``), and where the whole would be too long for a file system.
    """
    words = {name: safe_file_name(name) for name in {*among, *labels.names}}
    uses = Counter(same_file_key(word) for word in words.values())
    names = [words[name] for name in labels.names]
    key = hashlib.sha256("|".join(labels.names).encode()).hexdigest()[:6]
    if len(names) > MAX_NAMES_SHOWN:
        names, key = [*names[:2], f"{len(names) - 2}more"], f"_{key}"
    else:
        key = f"_{key}" if any(uses[same_file_key(name)] > 1 for name in names) else ""
    return _shortened("+".join(names) + key, labels.names)


def _shortened(tag: str, names: Sequence[str]) -> str:
    """A part of a folder name, its end replaced by a digest of the organs where it is too long."""
    if len(tag.encode()) <= MAX_TAG_BYTES:
        return tag
    start = tag.encode()[: MAX_TAG_BYTES - 7].decode(errors="ignore").rstrip("_+.")
    return f"{start}_{hashlib.sha256('|'.join(names).encode()).hexdigest()[:6]}"


def safe_file_name(text: str) -> str:
    """`text` with everything but letters, digits, dots and dashes as single underscores, so that ``__`` stands only between parts."""
    return re.sub(r"(?:[^\w.\-]|_)+", "_", text).strip("_.") or "organ"
