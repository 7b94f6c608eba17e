"""Some organs of a dataset as labels of their own: what a model of only those is told, and the way back to all of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from ..runtime.registry import unknown_name_error
from ..schema import Labels
from ..schema.conventions import OUTSIDE
from .labels import apply_table

MAX_NAMES_SHOWN = 3
"""Organs that a file name spells out; of more only the first two, and how many follow."""


def subset_labels(labels: Labels, organs: Sequence[str]) -> Labels:
    """The labels of some organs; everything else is background for whoever follows them.

    Args:
        labels: Of the dataset.
        organs: Names among ``labels.names``; their order and repetitions do not matter.

    Returns:
        The organs in the dataset's order, with its file values and ignore label; `labels` itself where no organ is left out.

    Raises:
        ValueError: A name is no organ of the dataset, or there is none.
    """
    for organ in organs:
        if organ not in labels.names:
            raise unknown_name_error("organ", organ, labels.names)
    if not organs:
        raise ValueError(f"organs: expected at least one of {', '.join(labels.names)}, got none")
    kept = [index for index, name in enumerate(labels.names) if name in organs]
    if len(kept) == len(labels.names):
        return labels
    members = tuple(labels.members[index] for index in kept)
    there = {value for member in members for value in member}
    # A region may be painted with a value that belongs only to regions that were left out.
    regions_class_order = (
        tuple(labels.regions_class_order[i] if labels.regions_class_order[i] in there else labels.members[i][0] for i in kept)
        if labels.regions
        else ()
    )
    return Labels(tuple(labels.names[index] for index in kept), members, labels.ignore, labels.regions, regions_class_order)


def translation_table(stored: Labels, wanted: Labels) -> np.ndarray:
    """What each internal value of one set of labels is in another one of the same dataset.

    Args:
        stored: Whose internal values are given.
        wanted: Whose internal values are sought; values of organs that it lacks become background.

    Returns:
        int16 ``(V,)``, indexed by the internal value; the last entry is `OUTSIDE`, so that an index of -1 stays what it is.
    """
    position = {value: index + 1 for index, value in enumerate(wanted.base_values)}
    table = [0, *(position.get(value, 0) for value in stored.base_values)]
    if stored.internal_ignore is not None:
        table.append(wanted.internal_ignore or 0)
    return np.array([*table, OUTSIDE], np.int16)


def translate_labels(array: np.ndarray, stored: Labels, wanted: Labels) -> np.ndarray:
    """A label map in the internal values of `wanted` instead of those of `stored`: int16 of the same shape; unchanged where they agree."""
    if stored == wanted:
        return array
    table = translation_table(stored, wanted)
    return apply_table(array, np.roll(table, 1), OUTSIDE)


def organ_indices(stored: Labels, wanted: Labels) -> tuple[int, ...]:
    """Where the organs of `wanted` stand in ``stored.names``."""
    return tuple(stored.names.index(name) for name in wanted.names)


def organs_tag(labels: Labels) -> str:
    """The organs as a part of a folder's name: ``liver+spleen``, of more than three ``liver+spleen+2more_1a2b3c``.

    The figures at the end belong to exactly these organs, so that two sets which begin alike do not share a folder.
    """
    names = [safe_file_name(name) for name in labels.names]
    if len(names) <= MAX_NAMES_SHOWN:
        return "+".join(names)
    key = hashlib.sha256("|".join(labels.names).encode()).hexdigest()[:6]
    return f"{names[0]}+{names[1]}+{len(names) - 2}more_{key}"


def safe_file_name(text: str) -> str:
    """`text` with everything but letters, digits, dots and dashes as single underscores, so that ``__`` stands only between parts."""
    return re.sub(r"(?:[^\w.\-]|_)+", "_", text).strip("_.") or "organ"
