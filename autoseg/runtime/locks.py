"""Locks that one process holds on a folder, and what killed processes left half-written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusive_lock(folder: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Holds `folder` for this process until the block ends or the process dies, however it dies.

    Args:
        folder: Made if missing; a file ``.lock`` in it is locked.
        what: What is being done there, for the message.
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
            raise ValueError(f"{folder}: another process is {what} here; wait for it or stop it") from error
        yield


def remove_partial_files(folder: Path) -> None:
    """Removes what a killed run left half-written in `folder` (not in its subfolders); what a living process writes stays."""
    for leftover in folder.glob(".partial-*"):
        if _written_by_living(leftover):
            continue
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)


def _written_by_living(partial: Path) -> bool:
    """True where another process that is still alive is writing this file."""
    number = partial.name.split("-")[1]
    if not number.isdigit() or int(number) == os.getpid():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except OSError:  # alive, but somebody else's
        return True
    return True
