"""The description of a planned dataset, ``dataset.json`` in ``preprocessed/`` and ``results/``: cases, patients and labels as planned.

Paths in it are relative to the home folder where they lie inside it, so that a home that was copied or moved reads its own files.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..runtime.serialization import read_json, to_plain, write_json
from ..schema import Dataset

FORMAT = 1
"""Of the file. The one of 0.1.0 has no such number, and every path in it is absolute."""


@dataclass(frozen=True)
class _Stored(Dataset):
    """A `Dataset` as it is written, with the number of its format."""

    format: int = 0


def write_description(path: Path, dataset: Dataset, home: Path) -> None:
    """Writes a dataset with paths relative to the home folder; those outside it stay absolute.

    Args:
        path: The file.
        dataset: With absolute paths.
        home: The home folder.
    """
    roots, plain = _home_aliases(home, dataset.folder), to_plain(dataset)
    plain["folder"] = _stored_path(dataset.folder, roots)
    for entry, case in zip(plain["cases"], dataset.cases, strict=True):
        entry["images"] = [_stored_path(image, roots) for image in case.images]
        entry["label"] = None if case.label is None else _stored_path(case.label, roots)
    write_json(path, {"format": FORMAT, **plain})


def read_description(path: Path, *, home: Path, raw: Path) -> Dataset:
    """Reads a dataset as `write_description` or 0.1.0 wrote it.

    Args:
        path: The file.
        home: The home folder, at which relative paths begin.
        raw: The folder of datasets, where files are looked for that are no longer where they were.

    Returns:
        With absolute paths. Whether the files are there is not looked at.

    Raises:
        ValueError: The file cannot be read as a dataset.
    """
    stored = read_json(path, _Stored)
    former, copied = (home / stored.folder).parent, _is_copied(stored, home, raw)

    def absolute(file: Path) -> Path:
        return path_in_present_home(home / file, former, raw, copied=copied)

    cases = tuple(
        replace(case, images=tuple(map(absolute, case.images)), label=None if case.label is None else absolute(case.label))
        for case in stored.cases
    )
    values: dict[str, Any] = {field.name: getattr(stored, field.name) for field in fields(Dataset)}
    return Dataset(**values | {"folder": absolute(stored.folder), "cases": cases})


def described_folder(path: Path, *, home: Path, raw: Path) -> Path:
    """The dataset folder that a description names; arguments as for `read_description`."""
    folder = home / str(read_json(path, dict)["folder"])
    return path_in_present_home(folder, folder.parent, raw)


def path_in_present_home(path: Path, former: Path, raw: Path, *, copied: bool = False) -> Path:
    """Finds a recorded file again in the present folder of datasets after the former one was moved, renamed or removed.

    Args:
        path: Absolute, as recorded.
        former: Folder of datasets in which the described dataset lay then.
        raw: Folder of datasets in which it would lie now.
        copied: Take the present file also where the former dataset folder is still there.

    Returns:
        The file of that place in `raw`, if its dataset lies there; else `path`.
    """
    if former == raw or not path.is_relative_to(former) or path == former:
        return path
    inside = path.relative_to(former)
    gone = not (former / inside.parts[0]).is_dir()
    return raw / inside if (copied or gone) and (raw / inside.parts[0]).is_dir() else path


def check_files(dataset: Dataset) -> None:
    """Refuses a described dataset of which images or label maps are not there.

    Raises:
        ValueError: The message names the cases and files.
    """
    missing = [
        f"case {case.name}: missing {'label' if file == case.label else 'channel'}, expected {file}, found nothing"
        for case in dataset.cases
        for file in (*case.images, *([] if case.label is None else [case.label]))
        if not file.exists()
    ]
    if missing:
        more = f"; and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise ValueError(
            f"{dataset.folder}: {'; '.join(missing[:5])}{more}. "
            f"After a change of the data plan again: autoseg_plan_and_preprocess -d {dataset.name}"
        )


def with_references(dataset: Dataset) -> Dataset:
    """The dataset without the cases whose label map was removed since it was described.

    Raises:
        ValueError: No label map is left.
    """
    cases = tuple(case for case in dataset.cases if case.label is not None and case.label.is_file())
    if not cases:
        raise ValueError(f"{dataset.folder}: expected the label maps of the cases, by which models are judged, found none")
    return replace(dataset, cases=cases)


def _is_copied(stored: _Stored, home: Path, raw: Path) -> bool:
    """Whether 0.1.0 wrote this for a dataset of a home folder: what lies in the present one is then this home's own."""
    return stored.format == 0 and raw.parent == home and stored.folder.parent.name == raw.name


def _home_aliases(home: Path, folder: Path) -> list[Path]:
    """The home folder, and how else a path inside it may begin: through a link."""
    linked = [one for one in folder.parents if one != home and home.is_dir() and one.is_dir() and one.samefile(home)]
    return [Path(os.path.abspath(home)), home, *linked]


def _stored_path(path: Path, roots: Sequence[Path]) -> str:
    for root in roots:
        # ".." may lead out of the home folder again; it stays in the path, as it means something else behind a link.
        if path.is_relative_to(root) and Path(os.path.normpath(path)).is_relative_to(root):
            return path.relative_to(root).as_posix()
    return str(path)
