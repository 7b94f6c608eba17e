"""Writes the command reference from the parsers: ``python -m autoseg.cli.reference > docs/commands.md``."""

from __future__ import annotations

import argparse
import re
import sys

from .command import Command
from .options import add_plan_options, add_train_options
from .tree import COMMANDS

HEAD = """# Command reference

Made from the parsers: `python -m autoseg.cli.reference > docs/commands.md`.

Every command is installed under a name of its own (`autoseg_train 3 2d 0`) and as a subcommand of `autoseg`
(`autoseg train 3 2d 0`, or `python -m autoseg train 3 2d 0`); both take the same arguments. `autoseg --version` prints the version.

Exit status: 0 success; 1 the data has problems (`autoseg_check`), or cases failed (`autoseg_predict`); 2 wrong arguments or an error that
the message explains; 130 interrupted.

Completion of commands, options and files: add a line to the startup file of the shell.

| shell | line |
|---|---|
| bash | `source <(autoseg --print-completion bash)` |
| zsh, after `compinit` | `eval "$(autoseg --print-completion zsh)"` |
| fish | `autoseg --print-completion fish \\| source` |
"""

Rows = dict[str, str]
"""An argument as a user writes it -> its help."""


def reference() -> str:
    """Makes the page: a list of the commands, the options that they share, and the arguments of each command."""
    rows = {command: _rows(command.parser()) for command in COMMANDS}
    shared = {"every command": dict(item for item in rows[COMMANDS[0]].items() if all(item in other.items() for other in rows.values()))}
    for name, add_options in {"planning": add_plan_options, "training": add_train_options}.items():
        parser = argparse.ArgumentParser()
        add_options(parser)
        shared[name] = _rows(parser)
    parts = [HEAD, "## Commands\n", "| command | |\n|---|---|"]
    parts += [f"| [`autoseg_{command.name}`](#autoseg_{command.name}) | {command.summary} |" for command in COMMANDS]
    for name, group in shared.items():
        parts += [f"\n## Options of {name}\n", _table(group)]
    parts += [_section(command, rows[command], shared) for command in COMMANDS]
    return "\n".join(parts) + "\n"


def _section(command: Command, rows: Rows, shared: dict[str, Rows]) -> str:
    """Describes one command; a group of options that it has whole is referred to."""
    references = []
    for name, group in shared.items():
        if group.items() <= rows.items():
            rows = {argument: text for argument, text in rows.items() if argument not in group}
            references.append(f"[options of {name}](#options-of-{name.replace(' ', '-')})")
    examples = [f"autoseg_{command.name} {arguments}".rstrip() for arguments in command.examples]
    lines = [f"\n## autoseg_{command.name}\n", command.help, "\n```", *examples, "```\n"]
    return "\n".join([*lines, *([_table(rows), ""] if rows else []), f"Also the {' and the '.join(references)}."])


def _rows(parser: argparse.ArgumentParser) -> Rows:
    """Lists the arguments of a parser in order."""
    formatter = argparse.HelpFormatter(parser.prog)
    rows = {}
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        value = "" if action.nargs == 0 else formatter._format_args(action, action.dest.upper() if action.option_strings else action.dest)
        value = re.sub(r"(\S+) \[\1 \.\.\.\]", r"\1 ...", value)
        *short, name = action.option_strings or [""]
        rows[", ".join(f"`{option}`" for option in [*short, f"{name} {value}".strip()])] = (action.help or "") % {"prog": parser.prog}
    return rows


def _table(rows: Rows) -> str:
    return "\n".join(["| argument | meaning |", "|---|---|", *(f"| {argument} | {text} |" for argument, text in rows.items())])


if __name__ == "__main__":
    sys.stdout.write(reference())
