"""Peak memory of a process with all that it starts: the proportional set size (PSS) of Linux, in which shared pages count once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

INTERVAL = 0.05
"""Seconds between two looks, at least ..."""
SHARE = 0.1
"""... and longer where looking would take more than this share of a core: the kernel walks all pages of a process for it."""


class PeakMemory:
    """The largest sum that was seen, bytes."""

    def __init__(self) -> None:
        self.bytes = 0

    def look(self, process: int | str) -> None:
        """Adds a process and all its descendants up now."""
        self.bytes = max(self.bytes, sum(map(_pss, _tree(process))))


@contextmanager
def peak_memory_of_tree(process: int | str = "self") -> Iterator[PeakMemory]:
    """Measures the peak of a process and all its descendants while the block runs.

    Raises:
        OSError: The system keeps no proportional set sizes (it is not Linux).
    """
    peak, ended = PeakMemory(), threading.Event()
    Path(f"/proc/{process}/smaps_rollup").read_bytes()
    thread = threading.Thread(target=_watch, args=(peak, process, ended), daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()
        peak.look(process)


def _watch(peak: PeakMemory, process: int | str, ended: threading.Event) -> None:
    took = 0.0
    while not ended.wait(max(INTERVAL, took * (1 - SHARE) / SHARE)):
        began = time.perf_counter()
        peak.look(process)
        took = time.perf_counter() - began


def _tree(process: int | str) -> Iterator[int | str]:
    """A process and its descendants; those that end meanwhile are left out."""
    yield process
    started: list[str] = []
    with suppress(OSError):  # ended between being named and being looked at
        for children in Path(f"/proc/{process}/task").glob("*/children"):
            with suppress(OSError):
                started += children.read_text().split()
    for child in started:
        yield from _tree(child)


def _pss(process: int | str) -> int:
    """Bytes of one process; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
