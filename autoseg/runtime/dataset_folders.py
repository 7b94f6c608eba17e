"""Dataset folders by id, name or path."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from .registry import unknown_name_error
from .serialization import read_json


def list_datasets(raw: Path) -> list[Path]:
    """Folders in `raw` that hold a ``dataset.json``, in natural order."""
    if not raw.is_dir():
        return []
    return sorted((folder for folder in raw.iterdir() if (folder / "dataset.json").is_file()), key=lambda folder: natural_key(folder.name))


def find_dataset(raw: Path, which: str | int) -> Path:
    """Finds a dataset folder by id, name or path.

    Args:
        which: Number (3, "3", "003"), full name ("Dataset003_Liver"), bare name ("Liver"), or a folder.

    Raises:
        ValueError: None or several fit; the message lists the datasets there.
    """
    names = [folder.name for folder in list_datasets(raw)]
    text = str(which).strip()
    fitting = matching_names(names, text)
    if len(fitting) > 1:
        raise ValueError(f"dataset {text!r} means several in {raw}: {', '.join(fitting)}; give the full name")
    if fitting:
        return raw / fitting[0]
    path = Path(text).expanduser()
    if (path / "dataset.json").is_file():
        return Path(os.path.abspath(path))  # not resolved: a link in raw/ is named as the user named it
    if path.is_dir():
        raise ValueError(f"{path}: expected a dataset folder with dataset.json, found none")
    raise unknown_name_error(f"dataset (in {raw})", text, names)


def matching_names(names: Sequence[str], which: str | int) -> list[str]:
    """Finds the dataset names that match an id or name, by the strictest comparison that matches any.

    Args:
        names: Of datasets: ``Dataset003_Liver``, ``Task07_Pancreas``, or anything.
        which: A full name; else a number (3, "3", "003"); else a full or bare name ("liver") in any case of letters.
    """
    text = str(which).strip()
    comparisons = (
        lambda name: name == text,
        lambda name: text.isdecimal() and _dataset_number(name) == int(text),
        lambda name: text.lower() in (name.lower(), name.partition("_")[2].lower()),
    )
    found = ([name for name in names if text and matches(name)] for matches in comparisons)
    return next((fitting for fitting in found if fitting), [])


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key of natural order: case_2 before case_10."""
    return [(0, int(part), part) if part.isdigit() else (1, 0, part) for part in re.findall(r"\d+|\D+", name)]


def _dataset_number(name: str) -> int | None:
    match = re.match(r"(?:Dataset|Task)(\d+)(?:_|$)", name)
    return int(match[1]) if match else None


def described_folder(path: Path, *, home: Path, raw: Path) -> Path:
    """The dataset folder that the description of a planned dataset names; arguments as for `data.descriptions.read_description`."""
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
