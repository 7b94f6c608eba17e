"""Completions of all commands, sourced by the shells themselves."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from autoseg import cli
from autoseg.cli.tree import COMMANDS, SHELLS

PROGRAMS = ["autoseg", *(f"autoseg_{command.name}" for command in COMMANDS)]
ZSH = 'autoload -Uz compinit; compinit -u -D; eval "$(<$1)"; for name in ${@:2}; do print -r -- $_comps[$name]; done'
BASH = """
source "$1"
complete -p "${@:2}" >&2 || exit 1
complete_line() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); "_shtab_$1"; echo "${COMPREPLY[*]}"; }
"""
FISH = 'source $argv[1]; function complete_line; complete -C "$argv" | string split -f1 \\t | string join " "; end; '


def run_shell(shell: str, script: str, arguments: list[str]) -> list[str]:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    options = {"bash": ["--norc", "-c", script, "bash"], "zsh": ["-f", "-c", script, "zsh"], "fish": ["--no-config", "-c", script]}
    done = subprocess.run([shell, *options[shell], *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def script(request: pytest.FixtureRequest, tmp_path: object, capsys: pytest.CaptureFixture[str]) -> str:
    """File with the completions for the shell that is the fixture's parameter."""
    with pytest.raises(SystemExit) as end:
        cli.main(["--print-completion", request.param])
    assert end.value.code == 0
    path = f"{tmp_path}/completion"
    with open(path, "w", encoding="utf-8") as file:
        file.write(capsys.readouterr().out)
    return path


@pytest.mark.parametrize("script", SHELLS, indirect=True)
def test_every_program_is_completed(script: str) -> None:
    with open(script, encoding="utf-8") as file:
        words = set(file.read().replace("'", " ").split())
    assert set(PROGRAMS) <= words


@pytest.mark.parametrize(("shell", "script"), [("bash", "bash"), ("fish", "fish")], indirect=["script"])
def test_commands_options_and_choices(shell: str, script: str) -> None:
    lines = ["autoseg tra", "autoseg train 3 2d 0 --ti", "autoseg_train 3 2d 0 --ti", "autoseg_train_ensemble 3 --kind m"]
    expected = ["train train_ensemble", "--time", "--time", "meta multi"]
    quoted = "; ".join(f"complete_line {line if shell == 'bash' else repr(line)}" for line in lines)
    found = run_shell(shell, (BASH if shell == "bash" else FISH) + quoted, [script, *PROGRAMS])
    assert [sorted(line.split()) for line in found] == [sorted(line.split()) for line in expected]


@pytest.mark.parametrize("script", ["zsh"], indirect=True)
def test_zsh_registers_every_program(script: str) -> None:
    assert run_shell("zsh", ZSH, [script, *PROGRAMS]) == [f"_shtab_{program}" for program in PROGRAMS]
