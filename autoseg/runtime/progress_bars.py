"""How the bars of a command are shown: drawn on a terminal, as a line now and then in pipes and files of messages, or not at all."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

SECONDS_BETWEEN_LINES = 60.0
"""Where nobody watches a terminal; what takes less time than that writes no line."""
DRAWN = "AUTOSEG_DRAWN_BARS"
"""Environment variable of a process whose messages another one hands on to a terminal."""


def bars_are_drawn() -> bool:
    """Whether messages reach a terminal."""
    return bool(os.environ.get(DRAWN)) or sys.stderr.isatty()


@contextlib.contextmanager
def hidden_bars() -> Iterator[None]:
    """Within the block no bar is shown, whatever its options say."""
    with _bar_options(disable=True):
        yield


@contextlib.contextmanager
def bars_in_lines() -> Iterator[None]:
    """Within the block bars are lines among the others, one a minute."""
    seconds = SECONDS_BETWEEN_LINES
    with _bar_options(file=_Lines(sys.stderr), mininterval=seconds, maxinterval=seconds, delay=seconds):
        yield


@contextlib.contextmanager
def _bar_options(**forced: Any) -> Iterator[None]:
    from tqdm import tqdm

    begin = tqdm.__init__

    def begin_with_options(bar: tqdm, *args: Any, **options: Any) -> None:
        """As tqdm's, with some options as they must be."""
        begin(bar, *args, **{**options, **forced})

    tqdm.__init__ = begin_with_options
    try:
        yield
    finally:
        tqdm.__init__ = begin


class _Lines:
    """A stream for tqdm, which draws over what it has drawn: here each drawing is a line of its own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, drawn: str) -> None:
        """Writes what is not blank."""
        if line := drawn.replace("\r", "").strip():
            self._stream.write(f"{line}\n")

    def flush(self) -> None:
        """As any stream's."""
        self._stream.flush()
