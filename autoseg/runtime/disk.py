"""Errors of writing in words: which file, which disk, how much room is free and how much is missing.

A disk that is full, read-only or broken fails every case alike. So `WriteError` ends a command, where what is wrong with one case does not.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

PROBE_BYTES = 2**20

BLOCK_BYTES = 512
"""Unit of ``st_blocks``, whatever the disk's own blocks are."""

KEEPS_OPEN_FILES = os.name == "nt"
"""Whether the system refuses to replace or remove a file that a program has open."""

OPEN_SECONDS = 2.0
"""For so long it is tried again; virus scanners and other processes of autoseg are done sooner, a viewer is not."""

FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
DENIED = {errno.EROFS, errno.EACCES, errno.EPERM}
NO_FOLDER = {errno.EEXIST, errno.ENOTDIR}
"""Of a path on which a file lies where a folder is needed."""

REASONS = {
    **dict.fromkeys(FULL, "is full"),
    errno.EFBIG: "takes no file of this size (a limit of the file system, or of the process: ulimit -f)",
    errno.EROFS: "is mounted read-only",
    errno.EIO: "reports an error of the device",
    errno.EACCES: "may not be written there by this user",
    errno.EPERM: "may not be written there by this user",
}


class WriteError(OSError):
    """A file could not be written, and the next one will not be either."""

    def __str__(self) -> str:
        return str(self.strerror)

    @property
    def is_denied(self) -> bool:
        """Whether this user may not write there, or nobody may; the disk itself is whole and has room."""
        return self.errno in DENIED


@contextmanager
def explained_write_errors(path: Path, *, partial: Path | None = None, size: int = 0) -> Iterator[None]:
    """Turns errors that come from the disk, also those that a library hides, into a `WriteError`; all others pass.

    Args:
        path: What is written, for the message.
        partial: Where it lies until it is whole; None means `path`.
        size: Bytes that it needs at most, where that is known.
    """
    partial = partial or path
    try:
        yield
    except WriteError:
        raise
    except (RuntimeError, shutil.Error) as error:  # torch, SimpleITK, blosc2 and copies of folders keep the reason back: the disk is asked
        number = _trouble(partial, size)
        if number is None:
            raise
        raise WriteError(number, _message(path, number, partial, size)) from error
    except OSError as error:
        number = error.errno if _is_of_writing(error, partial) else None
        if number is None:
            raise
        raise WriteError(number, _message(path, number, partial, size)) from error


def while_open_elsewhere(action: Callable[[], T], *, always: bool = False) -> T:
    """Calls `action`, and again for some seconds while the system refuses it because another program has the file open.

    Args:
        always: Also on systems that have no such rule.
    """
    end = time.monotonic() + OPEN_SECONDS
    while True:
        try:
            return action()
        except PermissionError:
            if time.monotonic() > end or not (KEEPS_OPEN_FILES or always):
                raise
            time.sleep(0.05)


def put_in_place(partial: Path, path: Path) -> None:
    """Renames a file, also over another one.

    Raises:
        ValueError: The system does not let the former file be replaced, as it is open in another program.
    """
    try:
        while_open_elsewhere(lambda: os.replace(partial, path))
    except PermissionError as error:
        if not (KEEPS_OPEN_FILES and path.is_file()):
            raise
        reason = "cannot be replaced, as it is open in another program or read-only"
        raise ValueError(f"{path}: {reason}; close it there, and run the same command again") from error


def in_words(error: Exception) -> str:
    """The message of an error; with disk and room where a file or folder was refused outside `explained_write_errors`."""
    if isinstance(error, WriteError) or not isinstance(error, OSError) or error.errno is None or not error.filename:
        return str(error)
    path = Path(os.fsdecode(error.filename))
    if error.errno in DENIED and path.exists() and not os.access(path, os.R_OK):
        return f"{path}: may not be read by this user; give the right to read it, or copy it to where it may be read"
    if error.errno in REASONS or (error.errno in NO_FOLDER and file_in_the_way(path)):
        return _message(path, error.errno, path, 0)
    remedy = {errno.ENOENT: "look at the path, or make it", errno.EISDIR: "name a file"}.get(error.errno, "")
    what = {errno.ENOENT: "there is no such file or folder", errno.EISDIR: "expected a file, found a folder"}
    return f"{path}: {what.get(error.errno, error.strerror)}" + f"; {remedy}" * bool(remedy)


def file_in_the_way(path: Path) -> Path | None:
    """The file that lies where a path needs a folder; None where there is none."""
    return next((one for one in (path, *path.parents) if one.is_file()), None)


def _is_of_writing(error: OSError, partial: Path) -> bool:
    if error.errno in FULL or error.errno in (errno.EFBIG, errno.EROFS):
        return True
    if error.errno in NO_FOLDER:
        return file_in_the_way(partial.parent) is not None
    if error.errno in DENIED and error.filename is not None and Path(os.fsdecode(error.filename)) in partial.parents:
        return True  # a folder that cannot be made, or in which nothing can
    if error.errno == errno.EIO:  # or of reading something else meanwhile
        return _trouble(partial) is not None
    return error.errno in REASONS and (error.filename is None or partial.parent in Path(str(error.filename)).parents)


def _trouble(partial: Path, size: int = 0) -> int | None:
    """The number of the error that the disk gives now where the file is continued; None where it gives none."""
    try:
        if size and shutil.disk_usage(partial.parent).free + _length(partial) < size:
            return errno.ENOSPC
        probe = partial / ".probe" if partial.is_dir() else partial
        with probe.open("ab") as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno if error.errno in REASONS else None
    return None


def _length(partial: Path) -> int:
    """Bytes of the file that take room on the disk: less than its size where it has holes."""
    if not partial.is_file():
        return 0
    status = partial.stat()
    return min(status.st_size, BLOCK_BYTES * getattr(status, "st_blocks", status.st_size))


def _message(path: Path, number: int, partial: Path, size: int) -> str:
    folder = path.parent
    if number in NO_FOLDER:
        return (
            f"{path}: cannot be written, as {file_in_the_way(path)} is a file and no folder; choose another output, or move that file away"
        )
    while not folder.exists():
        folder = folder.parent
    if number in DENIED - {errno.EROFS}:
        return f"{path}: {REASONS[number]}; give the right to write in {folder}, or choose another folder"
    disk = folder.resolve()
    while not os.path.ismount(disk) and disk != disk.parent:
        disk = disk.parent
    text = f"{path}: cannot be written: the disk {disk} {REASONS[number]}"
    if number not in FULL:
        return f"{text}; choose another folder, or have it repaired, and run the same command again"
    free = shutil.disk_usage(folder).free
    missing = size - free - _length(partial)
    more = f"about {_bytes(missing)} more are needed" if missing > 0 else "and the rest of it needs more"
    quota = " (or your quota is used up)" if free > PROBE_BYTES else ""
    return f"{text}{quota}: {_bytes(free)} free, {more}; make room there and run the same command again"


def _bytes(count: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} bytes"


def is_in_memory(folder: Path) -> bool:
    """Whether files of a folder are held in main memory, as in ``/dev/shm`` and, on some systems, ``/tmp``; False where nobody tells."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return False
    resolved = folder.resolve()
    above = [(len(place), kind) for _, place, kind, *_ in mounts if resolved == Path(place) or Path(place) in resolved.parents]
    return max(above, default=(0, ""))[1] in ("tmpfs", "ramfs")
