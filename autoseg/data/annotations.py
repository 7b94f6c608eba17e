"""Partially labelled data: which organs were annotated in which case, as the ``annotated`` entry of a ``dataset.json`` says.

What nobody annotated is neither present nor absent. Everything that counts organs asks here (`annotated_indices`), so that such an organ is
neither learnt as background, nor drawn as foreground, nor scored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime.registry import unknown_name_error
from ..schema import Case, Labels
from .labels import value_counts

EXPECTED = 'an object such as {"case_001": ["liver"]}, or a list of objects such as {"cases": "^case_0", "organs": ["liver"]}'

Names = tuple[str, ...]


def parse_annotated(entry: Any, cases: Iterable[str], labels: Labels, file: Path) -> dict[str, Names]:
    """Reads the ``annotated`` entry.

    Args:
        entry: Case -> organs; or a list of ``{"cases": ..., "organs": [...]}`` with the names of the cases or a regular expression that
            is searched for in them. None where there is no such entry.
        cases: Names of the dataset's cases.
        labels: Of the dataset; organs (of regions the regions) are named as there.
        file: The ``dataset.json``, for messages.

    Returns:
        Case -> its annotated organs in the order of `Labels.names`; without the cases in which all organs are.

    Raises:
        ValueError: The entry has another form, names an organ or a case that is not there, or says two things of a case.
    """
    known = sorted(cases)
    found: dict[str, Names] = {}
    for names, organs in _statements(entry, known, file):
        annotated = _organs(organs, labels, file)
        for name in names:
            if name not in known:
                raise _unknown(f"{file}: annotated: case", name, known)
            if found.setdefault(name, annotated) != annotated:
                raise ValueError(f"{file}: annotated: expected one list of organs for case {name}, found {found[name]} and {annotated}")
    return {name: organs for name, organs in found.items() if organs != labels.names}


def annotated_indices(annotated: Names | None, labels: Labels) -> tuple[int, ...] | None:
    """The annotated organs as indices into `Labels.names`, None where all of them are.

    Args:
        annotated: `Case.annotated`; organs that `labels` does not have are passed over.
        labels: Of the dataset, or of a model of some of its organs.
    """
    if annotated is None or set(labels.names) <= set(annotated):
        return None
    return tuple(index for index, name in enumerate(labels.names) if name in annotated)


def unannotated_voxels(array: np.ndarray, labels: Labels, annotated: Names | None) -> dict[str, int]:
    """Voxels that show an organ which is said not to be annotated.

    Args:
        array: A label map in file values.
        labels: Of the dataset. Of regions a value may be there if it belongs to any annotated region.
        annotated: Of the case.

    Returns:
        Organ -> voxels, empty where nothing contradicts.
    """
    if annotated_indices(annotated, labels) is None:
        return {}
    counts = value_counts(array)
    allowed = {value for name, members in zip(labels.names, labels.members, strict=True) if name in annotated for value in members}
    found = {
        name: sum(counts.get(value, 0) for value in members if value not in allowed)
        for name, members in zip(labels.names, labels.members, strict=True)
        if name not in annotated
    }
    return {name: count for name, count in found.items() if count}


def check_annotated(array: np.ndarray, labels: Labels, case: Case) -> None:
    """Checks a label map against what was annotated.

    Raises:
        ValueError: It shows an organ that is said not to be annotated in this case.
    """
    found = unannotated_voxels(array, labels, case.annotated)
    if found:
        shown = ", ".join(f"{name} ({count} voxels)" for name, count in found.items())
        raise ValueError(
            f"{case.name}: {case.label}: expected only the organs that dataset.json says are annotated there, "
            f"{', '.join(case.annotated)}; found also {shown}"
        )


def _statements(entry: Any, known: Sequence[str], file: Path) -> list[tuple[list[str], Any]]:
    """Cases and what is annotated in them, statement by statement."""
    if entry is None:
        return []
    if isinstance(entry, Mapping):
        return [([str(name)], organs) for name, organs in entry.items()]
    if not isinstance(entry, list) or any(not isinstance(one, Mapping) or set(one) != {"cases", "organs"} for one in entry):
        raise ValueError(f"{file}: annotated: expected {EXPECTED}, found {entry!r}")
    return [(_cases(one["cases"], known, file), one["organs"]) for one in entry]


def _cases(entry: Any, known: Sequence[str], file: Path) -> list[str]:
    if isinstance(entry, list):
        return [str(name) for name in entry]
    if not isinstance(entry, str):
        raise ValueError(f"{file}: annotated: cases: expected a list of names or a regular expression, found {entry!r}")
    try:
        found = [name for name in known if re.search(entry, name)]
    except re.error as error:
        raise ValueError(f"{file}: annotated: cases: {entry!r} is no regular expression: {error}") from error
    if not found:
        raise ValueError(f"{file}: annotated: cases: expected a regular expression that some case fits, found {entry!r}, which fits none")
    return found


def _organs(entry: Any, labels: Labels, file: Path) -> Names:
    if not isinstance(entry, list) or not entry:
        raise ValueError(f"{file}: annotated: expected a list of at least one organ, found {entry!r}")
    for name in entry:
        if name not in labels.names:
            raise _unknown(f"{file}: annotated: organ", str(name), labels.names)
    return tuple(name for name in labels.names if name in entry)


def _unknown(what: str, name: str, valid: Sequence[str]) -> ValueError:
    """As `naming.unknown_name_error`; of many cases the nearest ones are enough."""
    return unknown_name_error(what, name, valid if len(valid) <= 30 else [*valid[:30], "..."])
