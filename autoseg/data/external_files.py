"""Files outside of the dataset's folder that ``dataset.json`` or a header names: read only with leave, which the home remembers.

A dataset folder comes from others; that it may read elsewhere is said with ``--allow-external`` and kept in the home, never in the folder.
Links that lie inside the folder are the user's own way to place files, and are followed.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from ..runtime.locks import exclusive_lock
from ..runtime.provenance import case_paths
from ..runtime.serialization import read_json, write_json
from ..schema import Case, Dataset
from .raster_headers import data_file

ALLOWED = "allowed_external.json"
"""In the home: dataset folder to the folders outside of it from which it may read."""

Permission = bool | Collection[Path]
"""True for all folders, False for none, or those that are allowed."""


def named_path(folder: Path, text: str) -> Path:
    """The path that ``dataset.json`` of `folder` names: relative ones start there, ``~`` and variables as in nnU-Net are replaced."""
    return folder / Path(os.path.expandvars(text)).expanduser()


def is_external(path: Path, folder: Path) -> bool:
    """Whether a named path leaves a dataset's folder other than through a link inside of it."""
    inside = Path(os.path.normpath(os.path.abspath(path))).is_relative_to(os.path.abspath(folder))
    if inside and ".." not in path.parts:
        return False
    # Behind a link ".." leads elsewhere than it reads; and an absolute path may name the folder in another way.
    return not Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(folder))


def check_external(files: Iterable[tuple[str, Path]], folder: Path, allowed: Permission) -> None:
    """Raises a ValueError where files of cases, (case, path), lie outside of the dataset's folder and not in an allowed one."""
    _refuse(folder / "dataset.json", _outside(files, folder, allowed))


def check_data_files(cases: Iterable[Case], folder: Path, allowed: Permission) -> None:
    """As `check_external`, of the files in which headers of images and label maps say that their voxels are."""
    for case in cases if allowed is not True else ():
        for header in case_paths(case):
            voxels = data_file(header)
            _refuse(header, [] if voxels is None else _outside([(case.name, voxels)], folder, allowed))


def _outside(files: Iterable[tuple[str, Path]], folder: Path, allowed: Permission) -> list[tuple[str, Path]]:
    """Those files of cases that a dataset may not read."""
    if allowed is True:
        return []
    folders = {Path(os.path.realpath(one)) for one in allowed or ()}
    return [(case, path) for case, path in files if is_external(path, folder) and _folder_of(path) not in folders]


def _refuse(naming: Path, outside: Sequence[tuple[str, Path]]) -> None:
    """Raises a ValueError where there are such files; `naming` is the file that names them."""
    if outside:
        case, path = outside[0]
        more = f", and {len(outside) - 1} other files" if len(outside) > 1 else ""
        raise ValueError(
            f"{naming}: case {case}: expected files inside of the dataset's folder, found {path}{more}; if they are meant,"
            " give --allow-external (allow_external=True in Python) when checking or planning: the home remembers it"
        )


def check_beside(path: Path) -> None:
    """Raises a ValueError where the header of a new image names a file for its voxels that lies outside of the header's own folder."""
    voxels = data_file(path)
    if voxels is not None and is_external(voxels, path.parent):
        raise ValueError(
            f"{path}: expected the voxels beside their header, or in a folder there, found that it names {voxels}; move them there"
        )


def with_data_files(paths: Iterable[Path]) -> list[Path]:
    """Images or label maps, each with the second file that its header names for its voxels, if there is one."""
    return [file for path in paths for file in (path, data_file(path)) if file is not None]


def external_folders(dataset: Dataset) -> tuple[Path, ...]:
    """Folders outside of a dataset's own that hold files of its cases, sorted."""
    return folders_outside(
        with_data_files(path for case in (*dataset.cases, *dataset.unlabelled) for path in case_paths(case)), dataset.folder
    )


def folders_outside(files: Iterable[Path], folder: Path) -> tuple[Path, ...]:
    """Folders of those files that lie outside of a dataset's folder, sorted."""
    return tuple(sorted({_folder_of(path) for path in files if is_external(path, folder)}))


def allowed_folders(home: Path, folder: Path) -> tuple[Path, ...]:
    """Folders outside of a dataset's own from which it may read, as the home remembers."""
    found = _read(home).get(_stored(home, folder), [])
    return tuple(home / one for one in found)


def remember_external(home: Path, folder: Path, outside: Iterable[Path]) -> None:
    """Notes in the home from which folders outside of its own a dataset may read, besides those noted before."""
    key, new = _stored(home, folder), {_stored(home, one) for one in outside}
    if new <= set(_read(home).get(key, [])):
        return
    with exclusive_lock(home, "noting which folders may be read", wait=True, name=f".{ALLOWED}.lock"):
        known = _read(home)
        write_json(home / ALLOWED, {**known, key: sorted({*known.get(key, []), *new})})


def _read(home: Path) -> dict[str, list[str]]:
    path = home / ALLOWED
    return read_json(path, dict[str, list[str]]) if path.is_file() else {}


def _stored(home: Path, folder: Path) -> str:
    """A folder as the home's file names it: relative where it lies in the home, so that a home may be moved."""
    real, root = Path(os.path.realpath(folder)), Path(os.path.realpath(home))
    return real.relative_to(root).as_posix() if real.is_relative_to(root) else str(real)


def _folder_of(path: Path) -> Path:
    return Path(os.path.realpath(path.parent))
