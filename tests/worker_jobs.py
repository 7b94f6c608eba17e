"""What the tests of `autoseg.runtime.worker_pool` let worker processes do."""

from __future__ import annotations

import errno
import logging
import os
import signal
import time
from pathlib import Path

from autoseg.runtime.disk import explained_write_errors
from autoseg.runtime.serialization import atomic_write


def square(number: int) -> int:
    if number < 0:
        raise ValueError(f"expected a number >= 0, found {number}")
    print("noise on standard output")
    logging.getLogger("worker_jobs").warning("squaring %d", number)
    return number * number


def die_once(number: int, marker: Path) -> int:
    """Is killed the first time it is called with this marker."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def no_memory(number: int) -> int:
    raise MemoryError("as if")


def unsendable(number: int) -> object:
    return lambda: number


def write_slowly(path: Path, pids: Path) -> None:
    """Leaves its process id, then takes half a minute in the middle of writing a file."""
    with atomic_write(path) as partial:
        partial.write_text("half")
        (pids / str(os.getpid())).touch()
        time.sleep(30)


def overlapping(folder: Path, name: str) -> int:
    """How many of these jobs run at the same time as this one, itself included."""
    mine = folder / name
    mine.touch()
    time.sleep(0.3)
    count = len(list(folder.iterdir()))
    mine.unlink()
    return count


def fill_disk(name: str) -> None:
    with explained_write_errors(Path("/full/case")):
        raise OSError(errno.ENOSPC, "No space left on device")
