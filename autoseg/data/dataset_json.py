"""Reader of a dataset folder's ``dataset.json``: every entry that is used has its form, and a misspelled key is said."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..runtime.strict_json import read_strict_json, shown
from ..schema.names import check_text

log = logging.getLogger(__name__)

USED = (
    *("channel_names", "modality", "labels", "regions_class_order", "file_ending", "numTraining", "dataset", "training"),
    *("groups", "annotated", "sources", "windows", "tolerances", "unlabelled"),
)
"""Keys that mean something here."""

SILENT = frozenset(
    (
        *("name", "description", "licence", "license", "release", "reference", "tensorimagesize", "numtest", "test", "testing", "version"),
        *("overwriteimagereaderwriter", "imagereaderwriter", "convertedby", "datasetname", "citation", "authors", "mergedfrom"),
        *("relevantchannels", "date", "contact", "url", "numvalidation", "validation"),
    )
)
"""Keys of nnU-Net's and the Decathlon's files that mean nothing here, as `_plain` writes them."""

LIKENESS = 0.7
"""Least ratio of equal letters (`difflib`) at which an unknown key is taken for a misspelled one."""


def read_info(folder: Path) -> dict[str, Any]:
    """Reads and checks ``dataset.json`` of a dataset folder.

    Raises:
        ValueError: It is missing, no JSON object, lacks what every dataset has, or an entry has a wrong form; entries for organs are
            checked by those who read them.
    """
    file = folder / "dataset.json"
    if not file.is_file():
        raise ValueError(f"{file}: expected a dataset description (dataset.json), found none")
    info = read_strict_json(file)
    if not isinstance(info, dict):
        raise ValueError(f"{file}: expected an object, found {shown(info)}")
    lacking = {"labels"} - info.keys() | (set() if {"channel_names", "modality"} & info.keys() else {"channel_names", "modality"})
    for key, right in misspelled_keys(info).items():
        if right in lacking:
            raise ValueError(f"{file}: unknown key {key!r}, and no {right!r}: did you mean {right!r}?")
    for key, (expected, fits) in _FORMS.items():
        if key in info and not fits(info[key]):
            raise ValueError(f"{file}: {key}: expected {expected}, found {shown(info[key])}")
    return info


def warn_of_keys(info: Mapping[str, Any], file: Path) -> None:
    """Logs the keys that are unknown but like one that is used; `read_info`, which is called more than once, does not."""
    for key, right in misspelled_keys(info).items():
        log.warning("%s: unknown key %r is not used; did you mean %r?", file, key, right)


def misspelled_keys(info: Mapping[str, Any]) -> dict[str, str]:
    """Unknown keys that are like one that is used, to that one."""
    found = {}
    for key in info:
        if key in USED or _plain(key) in SILENT:
            continue
        likeness = {used: difflib.SequenceMatcher(None, _plain(key), _plain(used)).ratio() for used in USED}
        nearest = max(likeness, key=lambda used: likeness[used])
        if likeness[nearest] >= LIKENESS:
            found[key] = nearest
    return found


def read_channels(info: Mapping[str, Any], file: Path) -> tuple[str, ...]:
    """Names of the channels in order, from ``channel_names`` or the older ``modality``; a ValueError where there are none."""
    key = "modality" if "channel_names" not in info and "modality" in info else "channel_names"
    entry = info.get(key)
    names: list[Any] = entry if isinstance(entry, list) else []
    if isinstance(entry, dict):
        numbers = [str(number) for number in range(len(entry))]
        if set(entry) == set(numbers):
            names = [entry[number] for number in numbers]
        elif {str(value) for value in entry.values()} == set(numbers):
            raise ValueError(f'{file}: expected {key} as {{"number": "name"}}, found {shown(entry)}: turn them round')
    if not names:
        raise ValueError(f'{file}: expected {key} such as {{"0": "CT", "1": "PET"}}, found {shown(entry)}')
    try:
        return tuple(check_text(name, "channel") for name in names)
    except ValueError as error:
        raise ValueError(f"{file}: {key}: {error}") from error


def _plain(key: str) -> str:
    """A key in lower case without anything but letters and digits."""
    return re.sub(r"[^a-z0-9]", "", key.lower())


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_listing(value: Any) -> bool:
    """Case to its files."""
    return isinstance(value, dict) and bool(value) and all(map(_names_files, value.values()))


def _names_files(entry: Any) -> bool:
    return isinstance(entry, dict) and _are_paths(entry.get("images")) and _is_path(entry.get("label"))


def _are_paths(value: Any) -> bool:
    """Whether a value can be the path of a file, or a list of some."""
    several = [value] if isinstance(value, str) else value
    return isinstance(several, list) and bool(several) and all(map(_is_path, several))


def _is_decathlon_listing(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, dict) and all(_is_path(one.get(key)) for key in ("image", "label")) for one in value
    )


def _is_path(value: Any) -> bool:
    """Whether a value can be the path of a file."""
    return isinstance(value, str) and bool(value.strip()) and "\0" not in value and len(value.encode("utf-8", "replace")) < 4096


def _is_patients(value: Any) -> bool:
    """Regular expression, or case to patient."""
    return isinstance(value, str) or (isinstance(value, dict) and all(map(_is_patient, value.values())))


def _is_patient(value: Any) -> bool:
    return isinstance(value, (str, int)) and not isinstance(value, bool) and bool(str(value).strip())


_FORMS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "file_ending": (
        'an ending such as ".nii.gz"',
        lambda value: isinstance(value, str) and re.fullmatch(r"\.?[A-Za-z0-9.]{0,20}", value) is not None,
    ),
    "numTraining": ("the number of training cases", _is_count),
    "dataset": (
        'cases with \'images\' (a list) and \'label\' such as {"case_1": {"images": ["a.nii.gz"], "label": "b.nii.gz"}}',
        _is_listing,
    ),
    "training": ('a list of objects such as {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}', _is_decathlon_listing),
    "groups": ('a regular expression, or case -> patient such as {"case_1": "patient_1"}', _is_patients),
    "annotated": ("a list or an object", lambda value: value is None or isinstance(value, (list, dict))),
    "sources": (
        'case -> dataset such as {"case_1": "Dataset003_Liver"}',
        lambda value: isinstance(value, dict) and all(isinstance(one, str) for one in value.values()),
    ),
    "unlabelled": (
        'case -> images without a label map such as {"case_9": ["a.nii.gz"]}',
        lambda value: isinstance(value, dict) and all(map(_are_paths, value.values())),
    ),
    "windows": ("an object", lambda value: isinstance(value, dict)),
    "tolerances": ("an object", lambda value: isinstance(value, dict)),
}
"""Key to what is expected there in words, and whether a value has that form."""
