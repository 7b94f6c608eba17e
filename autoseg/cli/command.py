"""A command of the program as a value: its parser, and what it does."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runtime.text_table import wrapped
from .output import execute

Run = Callable[[argparse.Namespace], int | None]


class Parser(argparse.ArgumentParser):
    """A parser whose messages fit the terminal."""

    def _print_message(self, message: str, file: Any = None) -> None:
        super()._print_message(wrapped(message or ""), file)


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command, installed as ``autoseg_NAME`` and available as ``autoseg NAME``; calling it parses arguments and runs it.

    Attributes:
        run: Does the work and prints the result; returns the exit status, None for 0. It imports what is heavy itself.
        add_arguments: Adds its arguments to a parser.
    """

    run: Run
    add_arguments: Callable[[argparse.ArgumentParser], None]
    examples: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of the function that runs it."""
        return self.run.__name__

    @property
    def help(self) -> str:
        """The docstring of the function that runs it, as one paragraph."""
        return " ".join((self.run.__doc__ or "").split())

    @property
    def summary(self) -> str:
        """The first sentence of the help, for lists of commands."""
        return self.help.partition(". ")[0].rstrip(".")

    def fill(self, parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        """Adds help, examples and arguments to an empty parser, and returns it."""
        parser.description = self.help
        parser.epilog = "\n".join(["examples:", *(f"  {parser.prog} {arguments}".rstrip() for arguments in self.examples)])
        parser.formatter_class = _Formatter
        text = "folder with raw/ preprocessed/ results/ (default: AUTOSEG_HOME, or the nearest folder upwards with raw/)"
        parser.add_argument("--home", type=Path, metavar="FOLDER", help=text)
        amount = parser.add_mutually_exclusive_group()
        amount.add_argument("--verbose", action="store_true", help="print more messages, and the traceback of an error")
        amount.add_argument("--quiet", action="store_true", help="print warnings and errors only; the exit status says the rest")
        self.add_arguments(parser)
        parser.set_defaults(run=self.run, prog=parser.prog)
        return parser

    def parser(self) -> argparse.ArgumentParser:
        """Makes the parser of ``autoseg_NAME``."""
        return self.fill(Parser(prog=f"autoseg_{self.name}"))

    def __call__(self, argv: Sequence[str] | None = None) -> int:
        """Parses the arguments (None: those of the process), runs the command, and returns the exit status."""
        return execute(self.parser(), argv)


def command(add_arguments: Callable[[argparse.ArgumentParser], None], *examples: str) -> Callable[[Run], Command]:
    """Makes a command of the decorated function: its name and docstring are the command's name and help."""
    return lambda run: Command(run=run, add_arguments=add_arguments, examples=examples)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the examples apart, and wraps the description."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("examples:"):
            return wrapped(text, width)
        return argparse.HelpFormatter._fill_text(self, text, width, indent)
