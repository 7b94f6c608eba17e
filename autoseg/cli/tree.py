"""The parser tree of ``autoseg``: one subcommand for each command, the version, and shell completion."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from .. import __version__
from .command import Command, Parser
from .data import check, merge, plan_and_preprocess
from .output import execute
from .prediction import overlay, predict
from .results import evaluate, find_best_configuration, report
from .training import demo, networks, run, train, train_ensemble

COMMANDS: tuple[Command, ...] = (
    check,
    merge,
    plan_and_preprocess,
    train,
    train_ensemble,
    find_best_configuration,
    predict,
    evaluate,
    overlay,
    report,
    run,
    networks,
    demo,
)
"""In the order in which they are used."""

SHELLS = ("bash", "zsh", "fish")


def main_parser() -> argparse.ArgumentParser:
    """Makes the parser of ``autoseg``, with every command as a subcommand."""
    parser = Parser(prog="autoseg", description="Segments organs in 3D medical images and configures itself.")
    parser.add_argument("--version", action="version", version=f"autoseg {__version__}")
    text = "print the completions of all commands for this shell"
    parser.add_argument("--print-completion", action=_PrintCompletion, choices=SHELLS, help=text)
    subcommands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.fill(subcommands.add_parser(command.name, help=command.summary.replace("%", "%%")))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``autoseg COMMAND ...`` and returns the exit status."""
    return execute(main_parser(), argv)


class _PrintCompletion(argparse.Action):
    """Prints the completions for a shell, and ends."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        from .completion import completion_script

        print(completion_script([main_parser(), *(command.parser() for command in COMMANDS)], values))
        parser.exit(0)
