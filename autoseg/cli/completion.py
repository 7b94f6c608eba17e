"""Completions of the commands for a shell, made by shtab from their parsers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import shtab


def completion_script(parsers: Sequence[argparse.ArgumentParser], shell: str) -> str:
    """Makes one script that completes the arguments of several programs; arguments of type `Path` are completed as files."""
    for parser in parsers:
        for action in _actions(parser):
            if action.type is Path:
                action.complete = shtab.FILE  # type: ignore[attr-defined]  # the attribute that shtab reads
    return "\n".join(shtab.complete(parser, shell) for parser in parsers)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Iterates over the arguments of a parser and of its subcommands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for subparser in action.choices.values():
                yield from _actions(subparser)
