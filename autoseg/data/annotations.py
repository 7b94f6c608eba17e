"""Partially labelled data: the organs that are annotated in each case, from the ``annotated`` entry of ``dataset.json``.

An organ that is not annotated is neither present nor absent: it is neither learnt as background, nor sampled as foreground, nor scored.
Organs that were annotated only together (both kidneys as one) are a *union*, written ``left kidney + right kidney``: that one of them is
there is known, and which is not. The voxels of a union have the value of any of its organs.
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

EXPECTED_FORM = 'an object such as {"case_001": ["liver"]}, or a list of objects such as {"cases": "^case_0", "organs": ["liver"]}'

Names = tuple[str, ...]

UNION = " + "
"""Between the organs of a union in `Case.annotated`."""

Known = int | tuple[int, ...]
"""What was annotated: an organ as an index into `Labels.names`, or a union as several, ascending."""


def parse_annotated(entry: Any, cases: Iterable[str], labels: Labels, file: Path) -> dict[str, Names]:
    """Reads the ``annotated`` entry: case -> annotated organs in the order of `Labels.names`, then unions; fully annotated cases stay out.

    Args:
        entry: Case -> organs; or a list of ``{"cases": ..., "organs": [...]}`` with the names of the cases or a regular expression that
            is searched for in them. None where there is no such entry.

    Raises:
        ValueError: The entry has another form, names an unknown organ or case, or gives two lists of organs for a case.
    """
    case_names = sorted(cases)
    found: dict[str, Names] = {}
    for names, organs in _rules(entry, case_names, file):
        annotated = _organs(organs, labels, file)
        for name in names:
            if name not in case_names:
                raise _unknown(f"{file}: annotated: case", name, case_names)
            if found.setdefault(name, annotated) != annotated:
                raise ValueError(f"{file}: annotated: expected one list of organs for case {name}, found {found[name]} and {annotated}")
    return {name: organs for name, organs in found.items() if organs != labels.names}


def annotated_indices(annotated: Names | None, labels: Labels) -> tuple[Known, ...] | None:
    """Returns the indices into `Labels.names` of the annotated organs, then of unions, None where all organs are annotated.

    Organs that are not in `labels` are ignored, and unions of which an organ is not.
    """
    if annotated is None or set(labels.names) <= set(annotated):
        return None
    several = [members_of(entry, labels.names) for entry in annotated]
    unions = [tuple(sorted(map(labels.names.index, one))) for one in several if len(one) > 1 and set(one) <= set(labels.names)]
    return *(index for index, name in enumerate(labels.names) if name in annotated), *sorted(unions)


def members_of(entry: str, names: Iterable[str]) -> Names:
    """The organs that an entry of `Case.annotated` stands for: itself, or those of a union; `names` are those of the dataset's organs."""
    return (entry,) if entry in names else tuple(part.strip() for part in entry.split(UNION.strip()))


def unannotated_voxels(array: np.ndarray, labels: Labels, annotated: Names | None) -> dict[str, int]:
    """Counts the voxels of organs that are declared as not annotated, in a label map of file values: organ -> voxels, without zeros.

    A value is allowed if it belongs to any annotated region.
    """
    if annotated is None or annotated_indices(annotated, labels) is None:
        return {}
    counts = value_counts(array)
    shown = {name for entry in annotated for name in members_of(entry, labels.names)}
    allowed = {value for name, members in zip(labels.names, labels.members, strict=True) if name in shown for value in members}
    found = {
        name: sum(counts.get(value, 0) for value in members if value not in allowed)
        for name, members in zip(labels.names, labels.members, strict=True)
        if name not in shown
    }
    return {name: count for name, count in found.items() if count}


def check_annotated(array: np.ndarray, labels: Labels, case: Case) -> None:
    """Raises a ValueError where a label map holds an organ that is declared as not annotated in this case."""
    found = unannotated_voxels(array, labels, case.annotated)
    if found:
        shown = ", ".join(f"{name} ({count} voxels)" for name, count in found.items())
        raise ValueError(
            f"{case.name}: {case.label}: expected only the organs that dataset.json says are annotated there, "
            f"{', '.join(case.annotated or ())}; found also {shown}"
        )


def _rules(entry: Any, case_names: Sequence[str], file: Path) -> list[tuple[list[str], Any]]:
    """Cases and the organs entry of each rule."""
    if entry is None:
        return []
    if isinstance(entry, Mapping):
        return [([str(name)], organs) for name, organs in entry.items()]
    if not isinstance(entry, list) or any(not isinstance(one, Mapping) or set(one) != {"cases", "organs"} for one in entry):
        raise ValueError(f"{file}: annotated: expected {EXPECTED_FORM}, found {entry!r}")
    return [(_cases(one["cases"], case_names, file), one["organs"]) for one in entry]


def _cases(entry: Any, case_names: Sequence[str], file: Path) -> list[str]:
    if isinstance(entry, list):
        return [str(name) for name in entry]
    if not isinstance(entry, str):
        raise ValueError(f"{file}: annotated: cases: expected a list of names or a regular expression, found {entry!r}")
    try:
        found = [name for name in case_names if re.search(entry, name)]
    except re.error as error:
        raise ValueError(f"{file}: annotated: cases: {entry!r} is no regular expression: {error}") from error
    if not found:
        raise ValueError(f"{file}: annotated: cases: expected a regular expression that some case fits, found {entry!r}, which fits none")
    return found


def _organs(entry: Any, labels: Labels, file: Path) -> Names:
    if not isinstance(entry, list) or not entry:
        raise ValueError(f"{file}: annotated: expected a list of at least one organ, found {entry!r}")
    several = [members_of(str(one), labels.names) for one in entry]
    for name in (name for one in several for name in one):
        if name not in labels.names:
            raise _unknown(f"{file}: annotated: organ", name, labels.names)
    unions = sorted((sorted(one, key=labels.names.index) for one in several if len(one) > 1), key=lambda one: labels.names.index(one[0]))
    _check_unions(unions, [one[0] for one in several if len(one) == 1], labels, file)
    return *(name for name in labels.names if name in entry), *map(UNION.join, unions)


def _check_unions(unions: Sequence[Sequence[str]], alone: Sequence[str], labels: Labels, file: Path) -> None:
    """Refuses unions of regions, which may be regions themselves, and organs that are in two, or also annotated alone."""
    if unions and labels.regions:
        raise ValueError(f"{file}: annotated: expected regions, found the union {UNION.join(unions[0])!r}; make it a region in labels")
    named = [name for one in unions for name in one]
    if twice := sorted(name for name in set(named) if named.count(name) > 1 or name in alone):
        raise ValueError(f"{file}: annotated: expected each organ once, alone or in a union of different ones, found {twice[0]!r} twice")


def _unknown(kind: str, name: str, valid: Sequence[str]) -> ValueError:
    """`unknown_name_error` that lists at most 30 names."""
    return unknown_name_error(kind, name, valid if len(valid) <= 30 else [*valid[:30], "..."])
