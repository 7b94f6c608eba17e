"""Runs a parsed command: messages go to stderr, a user's mistake ends in one line and an exit status."""

from __future__ import annotations

import argparse
import logging
import sys


def execute(options: argparse.Namespace) -> int:
    """Runs the command that the arguments belong to.

    Args:
        options: Parsed arguments; ``run`` is the function to call, ``prog`` the name of the program in messages.

    Returns:
        The exit status: that of the command, 2 for a user's mistake, 130 for an interruption by Ctrl-C.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[_AboveProgressBars()])
    logging.getLogger("autoseg").setLevel(logging.DEBUG if options.verbose else logging.INFO)
    try:
        return options.run(options) or 0
    except (ValueError, RuntimeError, OSError) as error:
        if options.verbose:
            raise
        print(f"{options.prog}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{options.prog}: interrupted; the same command resumes from here.", file=sys.stderr)
        return 130


class _AboveProgressBars(logging.StreamHandler):
    """Writes messages on separate lines, above a progress bar that is being drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        with tqdm.external_write_mode(file=sys.stderr):
            super().emit(record)
