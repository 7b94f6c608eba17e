"""Runs a parsed command: messages go to stderr, a user's mistake ends in one line and an exit status."""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import os
import sys
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from copy import copy
from pathlib import PurePath

from ..runtime.disk import in_words
from ..runtime.interruption import Terminated, terminated_like_ctrl_c
from ..runtime.progress_bars import bars_are_drawn, bars_in_lines, hidden_bars
from ..runtime.shown_text import in_one_line, printable
from ..runtime.text_table import wrapped
from ..runtime.waiting_threads import let_waiting_threads_sleep

SHOWN_ALIKE = 3
"""Messages of a kind that may come once a file which are shown before the rest is only counted."""

MISTAKES = (ValueError, RuntimeError, OSError)
"""Errors whose message says what is wrong, and for whom: exit status 2."""
UNFORESEEN = 70
"""Exit status after any other error (EX_SOFTWARE of sysexits.h), as Python's own, 1, says that single cases failed."""


_QUIET: ContextVar[bool] = ContextVar("the command prints warnings and errors only", default=False)


def say(text: str, *, error: bool = False, wrap: bool = True) -> None:
    """Prints text, to stderr for errors, in lines that fit the terminal; what files brought cannot steer the terminal.

    With ``--quiet`` errors only.
    """
    if _QUIET.get() and not error:
        return
    shown = printable(text)
    print(wrapped(shown) if wrap else shown, file=sys.stderr if error else sys.stdout)


def execute(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    """Parses the arguments and runs the command that they belong to.

    Args:
        parser: Its result has ``run``, the function to call, and ``prog``, the name of the program in messages.
        argv: Arguments; None takes those of the process.

    Returns:
        The exit status: that of the command (1 where single cases failed), 2 for a user's mistake, 70 after an error that nobody foresaw,
        behind its traceback, 130 for an interruption by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP, 141 where nobody reads the output to its end
        (``| head``).

    Raises:
        Exception: What nobody foresaw, and with ``--verbose`` a mistake, where `argv` is given: whoever calls from Python sees to it.
    """
    let_waiting_threads_sleep()
    try:
        try:
            with terminated_like_ctrl_c():
                return _run(parser.parse_args(argv))
        finally:  # also of --help: what cannot be written must show here, not when the interpreter ends
            sys.stdout.flush()
            if argv is None:  # the process ends: that all of torch is looked through for garbage once more takes a third of a second
                gc.freeze()
    except BrokenPipeError:
        _discard_output()
        return 141
    except OSError as error:  # of the flush
        _discard_output()
        print(f"{parser.prog}: error: the output cannot be written: {error.strerror}", file=sys.stderr)
        return 2
    except Exception as error:
        if argv is not None:
            raise
        traceback.print_exc()
        return 2 if isinstance(error, MISTAKES) else UNFORESEEN


def _run(options: argparse.Namespace) -> int:
    handler = _AboveProgressBars(shown_alike=None if options.verbose else SHOWN_ALIKE)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    level = logging.DEBUG if options.verbose else logging.WARNING if options.quiet else logging.INFO
    logging.getLogger("autoseg").setLevel(level)
    try:
        try:
            with _shown_as(quiet=options.quiet):
                return options.run(options) or 0
        finally:
            handler.count_the_others()
    except BrokenPipeError:
        raise
    except MISTAKES as error:
        if options.verbose:
            raise
        say(f"{options.prog}: error: {in_words(error)}", error=True)
        return 2
    except KeyboardInterrupt as error:
        with contextlib.suppress(OSError):  # the terminal may be closed
            print(f"\n{options.prog}: interrupted; the same command resumes from here.", file=sys.stderr, flush=True)
        return 128 + error.number if isinstance(error, Terminated) else 130


@contextlib.contextmanager
def _shown_as(*, quiet: bool) -> Iterator[None]:
    """Within the block bars are shown as suits the terminal; where quiet, not at all, and `say` prints errors only."""
    token = _QUIET.set(quiet)
    try:
        with hidden_bars() if quiet else contextlib.nullcontext() if bars_are_drawn() else bars_in_lines():
            yield
    finally:
        _QUIET.reset(token)


def _discard_output() -> None:
    """Lets the interpreter's last flush go nowhere."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _AboveProgressBars(logging.StreamHandler):
    """Writes messages on separate lines, above a progress bar that is being drawn.

    Args:
        shown_alike: Of the messages that may come once a file (`one_of_many`) that many of a kind are shown; None means all.
    """

    def __init__(self, *, shown_alike: int | None) -> None:
        super().__init__()
        self._shown_alike = shown_alike
        self._alike: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Counts a record that is one of many, and says whether it is shown."""
        kind = getattr(record, "one_of_many", "")
        if kind:
            self._alike[kind] += 1
        is_shown = not kind or self._shown_alike is None or self._alike[kind] <= self._shown_alike
        return is_shown and bool(super().filter(record))

    def count_the_others(self) -> None:
        """Says how many messages of each kind were not shown."""
        for kind, number in self._alike.items():
            if self._shown_alike is not None and number > self._shown_alike:
                say(f"{kind}: {number} messages, of which {self._shown_alike} are shown (all with --verbose)", error=True)

    def format(self, record: logging.LogRecord) -> str:
        if isinstance(record.args, tuple) and len(record.args) > 1 and "\n" not in str(record.msg):  # others are whole tables
            record = copy(record)
            record.args = tuple(in_one_line(one) if isinstance(one, (str, PurePath, Exception)) else one for one in record.args or ())
        return wrapped(printable(super().format(record)))

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        with tqdm.external_write_mode(file=sys.stderr):
            super().emit(record)
