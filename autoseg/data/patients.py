"""Patients of cases, who stay together in one fold: from the user's expression or list, and guessed from the cases' names."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

WITHOUT_LAST_PART = r"^(.+)[_-][^_-]+$"
"""Finds what is before the last part of a name, between dashes or underscores."""

MAX_CASES = 10
"""Most cases that are taken for those of one patient."""


def patients_of(folder: Path, names: Sequence[str], groups: Mapping[str, str] | str | None) -> dict[str, str]:
    """Case to patient.

    Args:
        groups: Case -> patient; or a regular expression that is searched for in the names: its first group, or all it matches, is the
            patient. Without, each case is a patient of its own.

    Raises:
        ValueError: No regular expression, or a case without a patient.
    """
    if not groups:
        return {name: name for name in names}
    if isinstance(groups, str):
        try:
            matches = {name: re.search(groups, name) for name in names}
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"groups: {groups!r} is no regular expression: {error}") from error
        found = {name: match[1] if match.re.groups and match[1] is not None else match[0] for name, match in matches.items() if match}
    else:
        found = {name: str(groups[name]) for name in names if name in groups}
    without = [name for name in names if not found.get(name)]
    if without:
        shown = f"{', '.join(without[:5])} ({len(without)} in all)"
        raise ValueError(f"{folder}: groups: expected a patient for every case, found none for {shown}")
    return found


def patients_as_far_as_known(names: Sequence[str], groups: Mapping[str, str] | str | None) -> dict[str, str]:
    """As `patients_of`, a case of which `groups` (that is right) says nothing being a patient of its own: for images without label maps."""
    if isinstance(groups, str):
        said = {name: patients_of(Path(), [name], groups) for name in names if re.search(groups, name)}
        return {name: said.get(name, {}).get(name, name) for name in names}
    return {name: str((groups or {}).get(name, name)) for name in names}


def read_groups(words: str) -> Mapping[str, str] | str:
    """What a user gave as ``--groups``: a file of cases and their patients (``.csv``, ``.tsv``, ``.json``), or a regular expression.

    A table has two columns, or some called ``case`` and ``patient``; JSON is an object, case -> patient.

    Raises:
        ValueError: The file is not there, or is none of these.
    """
    path = Path(words).expanduser()
    if path.suffix.lower() not in (".csv", ".tsv", ".json"):
        return words
    if not path.is_file():
        raise ValueError(f"--groups {path}: expected a file of cases and patients, found nothing")
    try:
        text = path.read_text(encoding="utf-8-sig")
        return _groups_of_json(text) if path.suffix.lower() == ".json" else _groups_of_table(text)
    except (ValueError, csv.Error) as error:
        raise ValueError(f"--groups {path}: expected cases and their patients (columns case and patient, or an object): {error}") from error


def _groups_of_json(text: str) -> dict[str, str]:
    found = json.loads(text)
    if not isinstance(found, dict) or not all(isinstance(patient, (str, int)) for patient in found.values()):
        raise ValueError("found something else than case -> patient")
    return {case: str(patient) for case, patient in found.items()}


def _groups_of_table(text: str) -> dict[str, str]:
    """The first line tells what separates columns, and whether they have names."""
    lines = [line for line in text.splitlines() if line.strip()]
    mark = max(",;\t", key=lines[0].count) if lines else ","
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=mark)]
    names = [cell.casefold() for cell in rows[0]] if rows else []
    named = {"case", "patient"} <= set(names)
    case, patient = (names.index("case"), names.index("patient")) if named else (0, 1)
    rows = rows[1:] if named else rows
    if not rows:
        raise ValueError("found no rows")
    for number, row in enumerate(rows, 1):
        if len(row) <= max(case, patient):
            raise ValueError(f"row {number} has {len(row)} column{'' if len(row) == 1 else 's'}")
    return {row[case]: row[patient] for row in rows}


def likely_patients(names: Sequence[str]) -> dict[str, str]:
    """Case to patient where the names look as if patients had several cases (``p01_ED``, ``p01_ES``), by `WITHOUT_LAST_PART`; else empty.

    They do where each name has parts, and without their last one there is more than one group of names, all of 2 to `MAX_CASES`.
    """
    matches = {name: re.search(WITHOUT_LAST_PART, name) for name in names}
    patients = {name: match[1] for name, match in matches.items() if match}
    sizes = Counter(patients.values()).values()
    fits = len(patients) == len(names) and len(sizes) > 1 and all(2 <= size <= MAX_CASES for size in sizes)
    return patients if fits else {}


@dataclass(frozen=True)
class Patients:
    """The patients of the cases that are to be compared.

    Attributes:
        of_case: Case to patient.
        known_from: How, for the reader of a table; empty where nothing is known, and each case is a patient.
    """

    of_case: Mapping[str, str]
    known_from: str = ""


def patients_to_compare(names: Sequence[str], *known: tuple[str, Mapping[str, str]]) -> Patients:
    """The patients by which the scores of cases are compared, since two frames of a patient are no two patients.

    Args:
        names: Of the cases.
        known: Where patients are known from, in words, and case to patient; what goes before the others first: what a user named, the
            dataset, what predictions recorded. Patients of cases that none of them names are guessed from the names (`likely_patients`).
    """
    found: dict[str, str] = {}
    sources = []
    for source, patients in known:
        new = {name: patients[name] for name in names if name in patients and name not in found}
        found |= new
        sources += [source] * bool(new)
    guessed = likely_patients([name for name in names if name not in found])
    sources += ["guessed from the names of the cases"] * bool(guessed)
    found |= {name: patient for name, patient in guessed.items() if name not in found}
    return Patients({name: found.get(name, name) for name in names}, ", ".join(sources))
