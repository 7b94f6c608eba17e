"""Exclusive locks on folders, and removal of the partial files of killed processes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusive_lock(folder: Path, activity: str, *, wait: bool = False) -> Iterator[None]:
    """Locks `folder` for this process until the block ends or the process dies, however it dies.

    Args:
        folder: Made if missing; a file ``.lock`` in it is locked.
        activity: Of the other process, for the message ("training" ...).
        wait: Wait for the other process instead of refusing.

    Raises:
        ValueError: Another living process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except ImportError:  # no such locks on Windows: two processes there are the user's own care
            pass
        except OSError as error:
            raise ValueError(f"{folder}: another process is {activity} here; wait for it or stop it") from error
        yield


def remove_partial_files(folder: Path) -> None:
    """Removes partial files of killed processes from `folder` (not from its subfolders); those of living processes stay."""
    for leftover in folder.glob(".partial-*"):
        if not _written_by_living(leftover):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)


def _written_by_living(partial: Path) -> bool:
    """Whether another process that is still alive is writing this file."""
    number = partial.name.split("-")[1]
    if not number.isdigit() or int(number) == os.getpid():
        return False
    try:
        os.kill(int(number), 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)  # else alive, but somebody else's
    return True
