"""What a command may write: what it wrote before is replaced, other files only with ``--overwrite``, inputs of the command never.

What was written is known by its content id, noted in a hidden folder beside it. So a file that somebody corrected since is not replaced
either, and a file keeps its own format: no mark is put into an image or a table. There is one note a file, so that commands that write
into one folder at the same time do not lose each other's.
"""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .disk import file_in_the_way
from .locks import exclusive_lock
from .provenance import file_id, size_in
from .serialization import atomic_write, read_json, write_json

NOTES = ".autoseg_outputs"
"""Hidden folder beside written files: what was written, by which command."""

PREDICT = "autoseg_predict"
"""The command whose label maps are no images."""

NOTES_LOCK = ".notes.lock"
"""Held while a note and its file change together; not the folder's own lock, under which files may be written."""

KEPT_IDS = 4
"""Earlier contents of a file that count as written by the command: of those that two commands write at once, either may be the last."""

DATASET_PARTS = ("imagesTr", "labelsTr", "imagesTs", "labelsTs")
"""Folders of a dataset, into which nothing is written beside images and label maps that lie there."""

RESULTS = "results"
"""Folder of a home with a folder of models a dataset."""

HOME_PARTS = ("raw", "nnUNet_raw", "preprocessed", RESULTS)
"""Folders of a home that hold a folder a dataset, each with its ``dataset.json``."""

OWN_PREFIX = "autoseg_"
"""Of files that commands keep in a folder for themselves."""

SHOWN = 5
"""Files named in a message before the rest is only counted."""


class Outputs:
    """The files that one call of a command writes; each is checked, and noted as written, before it appears under its name.

    Args:
        command: Name of the command, ``autoseg_predict``: what others wrote is not its own.
        inputs: Files that the command reads, and folders (DICOM series) of which it reads every file.
        protected: Folders in which files are never replaced but those that the command wrote: data and models of the home.
        overwrite: Replace files of others too, and those that were changed since they were written; never inputs.
        is_own: Knows files of the command by a mark in them, as in a folder that was copied without its hidden notes.
    """

    def __init__(
        self,
        command: str,
        *,
        inputs: Iterable[Path],
        protected: Iterable[Path] = (),
        overwrite: bool = False,
        is_own: Callable[[Path], bool] = lambda _: False,
    ) -> None:
        self.command, self.overwrite, self._is_own = command, overwrite, is_own
        paths = [Path(os.path.realpath(path)) for path in inputs]
        self._inputs = {*paths}
        self._folders = {path for path in paths if path.is_dir()}
        self._input_files = {_inode(path) for path in paths if path.is_file()}
        self._protected = [Path(os.path.realpath(path)) for path in protected]
        self._others: dict[Path, str] = {}
        self._known: dict[Path, tuple[tuple[int, ...], str]] = {}

    def check(self, files: Mapping[str, Iterable[Path]]) -> None:
        """Checks all files that are to be written, by what they belong to (case, option); to be called before the first of them is written.

        Raises:
            ValueError: Some must not be written, or two are the same file; the message names them with the reason and the remedy.
        """
        listed = {owner: list(paths) for owner, paths in files.items()}
        problems = list(clashes(listed).values()) + [self.problem(path) for paths in listed.values() for path in paths]
        problems = [problem for problem in dict.fromkeys(problems) if problem]
        if problems:
            more = f"\nand {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
            raise ValueError("nothing was written. " + "\n".join(problems[:SHOWN]) + more)

    def problem(self, path: Path) -> str:
        """Why a file must not be written, with the remedy; empty where it may."""
        resolved = Path(os.path.realpath(path))
        if self._is_read(resolved):
            return f"{path}: is read by this command, and an input is never replaced; choose another output"
        part = resolved.parent
        if part.name in DATASET_PARTS and _is_dataset(part.parent) and (other := self._other_in(part)):
            return f"{path}: its folder belongs to a dataset and holds {other}, which autoseg did not write; choose another output"
        if blocking := file_in_the_way(path.parent):
            return f"{path}: expected a folder, found the file {blocking}; choose another output"
        if not os.path.lexists(path):
            return ""
        if path.is_dir():
            return f"{path}: expected a file or nothing, found a folder; choose another output"
        ids = self._ids(path)
        if not path.is_symlink() and (self._is_one_of(path, ids) if ids else not is_noted(path) and self._is_own(path)):
            return ""
        found = f"was changed after {self.command} had written it" if ids else f"is there already, and {self.command} did not write it"
        if any(folder in resolved.parents for folder in self._protected) or _lies_in_a_home(resolved):
            return f"{path}: {found}; data and models of the home are never replaced; choose another output"
        return "" if self.overwrite else f"{path}: {found}; choose another output, or replace it with --overwrite (overwrite=True)"

    def changed(self, path: Path) -> bool:
        """Whether the command wrote this file, and its content is another now."""
        ids = self._ids(path)
        return bool(ids) and path.is_file() and not self._is_one_of(path, ids)

    def may_stay(self, path: Path) -> bool:
        """Whether a file is no input, so that a command which finds it finished may leave it as it is."""
        return not self._is_read(Path(os.path.realpath(path)))

    @contextmanager
    def write(self, path: Path) -> Iterator[Path]:
        """As `serialization.atomic_write`: yields a temporary path; checks `path` again and notes the content before it is renamed.

        Raises:
            ValueError: The file must not be written; what lies there stays.
        """
        with ExitStack() as until_renamed, atomic_write(path) as partial:
            yield partial
            content = file_id(partial)
            if (reason := self.problem(path)) and not is_noted(path):
                raise ValueError(reason)
            # Two that write one file at once would lose each other's note, and the file would pass for changed by a person.
            until_renamed.enter_context(exclusive_lock(path.parent / NOTES, "noting what is written", wait=True, name=NOTES_LOCK))
            if reason := self.problem(path):
                raise ValueError(reason)
            self._note(path, content)

    def _is_read(self, resolved: Path) -> bool:
        in_series = any(folder == resolved or folder in resolved.parents for folder in self._folders)
        return resolved in self._inputs or in_series or (resolved.is_file() and _inode(resolved) in self._input_files)

    def _other_in(self, folder: Path) -> str:
        """`_first_of_others`, looked for once."""
        if folder not in self._others:
            self._others[folder] = _first_of_others(folder)
        return self._others[folder]

    def _is_one_of(self, path: Path, ids: Sequence[str]) -> bool:
        """Whether a file has one of these contents; a file is read once as long as nothing is written to it."""
        if not path.is_file() or path.stat().st_size not in map(size_in, ids):
            return False
        status = path.stat()
        state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if path not in self._known or self._known[path][0] != state:
            self._known[path] = state, file_id(path)
        return self._known[path][1] in ids

    def _note(self, path: Path, content: str) -> None:
        """Notes the new content beside the older ones, which are still there if the process dies before the file is renamed."""
        ids = [*self._ids(path)[-KEPT_IDS:], content]
        write_json(_note_of(path), {"command": self.command, "content": list(dict.fromkeys(ids))})

    def _ids(self, path: Path) -> list[str]:
        """Content ids that this command wrote to a path, the latest last."""
        try:
            note = read_json(_note_of(path), dict)
            return [str(one) for one in note["content"]] if note["command"] == self.command else []
        except (ValueError, KeyError, TypeError, OSError):
            return []


def clashes(files: Mapping[str, Sequence[Path]]) -> dict[str, str]:
    """Owners (cases, say) of which a file would be the same as another one's, each with the reason.

    The same are paths that lead to one file through links, and names that differ in upper and lower case only where the disk does not tell
    them apart.
    """
    owners: dict[Path, list[tuple[str, Path]]] = defaultdict(list)
    for owner, paths in files.items():
        for path in paths:
            resolved = Path(os.path.realpath(path.parent)) / path.name
            owners[resolved.with_name(resolved.name.casefold())].append((owner, path))
    found: dict[str, str] = {}
    for shared in owners.values():
        exact = {path.name for _, path in shared}
        if len({owner for owner, _ in shared}) > 1 and (len(exact) < len(shared) or _ignores_case(shared[0][1].parent)):
            names = " and ".join(dict.fromkeys(owner for owner, _ in shared))
            found |= {owner: f"{names} would be written to one file, {shared[0][1]}; give them different names" for owner, _ in shared}
    return found


def check_outside(destination: Path, read: Iterable[Path]) -> None:
    """Raises a ValueError where a folder that is to be written would lie in one that is read, or is one; links and ``..`` are resolved.

    Args:
        destination: The new folder.
        read: Folders that are read. Of a dataset also what the links in it lead to that have the names of `DATASET_PARTS`.
    """
    folders = {_inode(path): path for one in read for path in (*(one / part for part in DATASET_PARTS), one) if path.is_dir()}
    # As written, too: what a link in a dataset leads to lies elsewhere, and belongs to the dataset all the same.
    for way in map(Path, (os.path.realpath(destination), os.path.abspath(destination))):
        for folder in (way, *way.parents):
            if folder.is_dir() and (found := folders.get(_inode(folder))):
                raise ValueError(
                    f"{destination}: expected a new folder outside of what this command reads, found one in {found}; nothing was written. "
                    "Choose another destination"
                )


def check_not_among(folders: Iterable[Path], read: Mapping[str, Path | None]) -> None:
    """Raises a ValueError where a folder that gets new files is one that is read: they would be taken for images the next time.

    Args:
        folders: In which files are to be written.
        read: What a path holds, in words (``images``), to the path; files and None do not count.
    """
    for folder in folders:
        for what, path in read.items():
            if path is not None and path.is_dir() and folder.is_dir() and path.samefile(folder):
                raise ValueError(f"{folder}: is the folder of the {what}, among which nothing is written; choose another output")


def visible_names(folder: Path) -> list[str]:
    """Names of what lies in a folder, sorted, without what is hidden."""
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def check_outside_home(folder: Path, *, data: Iterable[Path], results: Iterable[Path]) -> None:
    """Refuses (ValueError) a folder for predictions where a home keeps data, or whole results: they would be taken for its own.

    Args:
        folder: In which files are to be written.
        data: Folders of the home with data, in which nothing is written at any depth; the same holds of other homes' datasets.
        results: Folders with results of a dataset or of several, in which only folders of one's own are made.
    """
    resolved = Path(os.path.realpath(folder))
    around = (resolved, *resolved.parents)
    of_data = {Path(os.path.realpath(one)) for one in data}
    of_results = {Path(os.path.realpath(one)) for one in results}
    for one in around:
        if one.parent.name in HOME_PARTS and (one / "dataset.json").is_file():
            (of_results if one.parent.name == RESULTS else of_data).add(one)
    found = next((one for one in around if one in of_data), resolved if resolved in of_results else None)
    if found is not None:
        what = "the results of a dataset" if found in of_results else "data of a home"
        where = "" if found == resolved else f" in {found}"
        raise ValueError(
            f"{folder}: expected a folder for predictions outside of {what}, found one that lies there{where}; nothing was written; "
            "choose another output, such as predictions/new beside raw/ and results/"
        )


def is_noted(path: Path) -> bool:
    """Whether a command noted that it wrote a file of this name."""
    return _note_of(path).is_file()


def is_written_by(path: Path, command: str) -> bool:
    """Whether a command noted that it wrote a file of this name, also where somebody changed it since."""
    try:
        return is_noted(path) and read_json(_note_of(path), dict).get("command") == command
    except (ValueError, OSError):
        return False


def _first_of_others(folder: Path) -> str:
    """Name of a file in a folder that no command wrote; empty where there is none."""
    names = sorted(file.name for file in os.scandir(folder) if file.is_file()) if folder.is_dir() else []
    noted = {name.removesuffix(".json") for name in os.listdir(folder / NOTES)} if (folder / NOTES).is_dir() else set()
    return next((name for name in names if name not in noted and not name.startswith((".", OWN_PREFIX))), "")


def _note_of(path: Path) -> Path:
    return path.parent / NOTES / f"{path.name}.json"


def _inode(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _is_dataset(folder: Path) -> bool:
    return (folder / "dataset.json").exists() or sum((folder / name).is_dir() for name in DATASET_PARTS) > 1


def _lies_in_a_home(file: Path) -> bool:
    """Whether a file is of a dataset or its models in some home, be it another one than the command works in."""
    return any(folder.parent.name in HOME_PARTS and (folder / "dataset.json").is_file() for folder in file.parents)


def _ignores_case(folder: Path) -> bool:
    """Whether the disk of a folder takes names for the same that differ in upper and lower case only."""
    existing = next(one for one in (folder, *folder.absolute().parents) if one.is_dir())
    try:
        with tempfile.NamedTemporaryFile(dir=existing, prefix=f".partial-{os.getpid()}-aA") as file:
            return Path(file.name).with_name(Path(file.name).name.swapcase()).exists()
    except OSError:
        return False
