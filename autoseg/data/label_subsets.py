"""Labels of a subset of a dataset's organs, and conversion of label maps between label sets."""

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
"""Number of organs that a folder name lists in full; of more it has the first two and the number of the others."""


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


def translation_table(stored: Labels, target: Labels) -> np.ndarray:
    """The table from internal values of one label set to those of another of the same dataset; organs that it lacks become background.

    Returns:
        int16 ``(V,)``, indexed by the internal value; the last entry is `OUTSIDE`, so that an index of -1 gives it.
    """
    position = {value: index + 1 for index, value in enumerate(target.base_values)}
    table = [0, *(position.get(value, 0) for value in stored.base_values)]
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


def organs_tag(labels: Labels) -> str:
    """Returns the organs as a part of a folder name: ``liver+spleen``, of more than three ``liver+spleen+2more_1a2b3c``.

    The digits at the end are a digest of all organs, so that two sets with the same first organs do not share a folder.
    """
    names = [safe_file_name(name) for name in labels.names]
    if len(names) <= MAX_NAMES_SHOWN:
        return "+".join(names)
    key = hashlib.sha256("|".join(labels.names).encode()).hexdigest()[:6]
    return f"{names[0]}+{names[1]}+{len(names) - 2}more_{key}"


def safe_file_name(text: str) -> str:
    """`text` with everything but letters, digits, dots and dashes as single underscores, so that ``__`` stands only between parts."""
    return re.sub(r"(?:[^\w.\-]|_)+", "_", text).strip("_.") or "organ"
