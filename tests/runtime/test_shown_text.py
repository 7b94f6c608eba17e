"""What files bring is shown and never carried out: on the terminal, in spreadsheets, in figures."""

from __future__ import annotations

import csv
import io
import logging
import math
import re
from argparse import ArgumentParser
from pathlib import Path

import pytest

from autoseg import cli
from autoseg.cli.output import execute, say
from autoseg.evaluation.tables import csv_text, table
from autoseg.runtime.shown_text import printable, spreadsheet_cell
from autoseg.schema import Score
from autoseg.trainers.plots import plot_history

ESCAPES = "\x1b]0;owned\x07\x1b[2J\r\x9b31m\u202e"


def test_the_terminal_is_not_steered(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    def run(options: object) -> int:
        logging.getLogger("autoseg.test").warning("organ %s", ESCAPES)
        say(f"case {ESCAPES}\nnext line")
        raise ValueError(f"plan.json: network {ESCAPES}")

    parser = ArgumentParser(prog="autoseg_x")
    parser.set_defaults(run=run, verbose=False, prog="autoseg_x")
    handlers = logging.getLogger().handlers[:]
    logging.getLogger().handlers.clear()
    try:
        assert execute(parser, []) == 2
    finally:
        logging.getLogger().handlers[:] = handlers
    out, err = capsys.readouterr()
    shown = "\\x1b]0;owned\\x07\\x1b[2J\\r\\x9b31m\\u202e"
    assert out == f"case {shown}\nnext line\n"
    assert err == f"organ {shown}\nautoseg_x: error: plan.json: network {shown}\n"
    assert printable("Leber (größte) 肝 \\x1b") == "Leber (größte) 肝 \\x1b"


def test_a_table_stays_aligned() -> None:
    scores = [Score("a", organ, 0.5, 1 / 3, 4, 4) for organ in ("liver\x1b[2J", "spleen")]
    lines = table(scores).splitlines()
    assert len({line.index("0.5000") for line in lines if "0.5000" in line}) == 1 and "liver\\x1b[2J" in lines[1]


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r", "\uff1d"])
def test_no_cell_of_a_spreadsheet_is_a_formula(sign: str) -> None:
    name = f"{sign}HYPERLINK(1)"
    case = name if name.isprintable() else "a"  # no case is called so, see `schema.names`
    scores = [Score(case, name, math.nan, math.nan, 0, 0)]
    rows = list(csv.reader(io.StringIO(csv_text({name: scores, "b": scores}), newline="")))
    assert rows[1][:3] == [f"'{printable(name)}", spreadsheet_cell(case), f"'{printable(name)}"]
    assert [spreadsheet_cell(text) for text in ("-5", "+1e3", "a=b", "", "-1+1")] == ["-5", "+1e3", "a=b", "", "'-1+1"]


def test_an_organ_called_like_a_formula_is_drawn_as_it_is_called(tmp_path: Path) -> None:
    plot_history([{"validation_interval": 1, "dice_a$x^$": 0.5, "mean_dice": 0.5, "loss": 1.0}], tmp_path / "progress.png")
    assert (tmp_path / "progress.png").stat().st_size > 1000


def test_commands_print_in_one_place() -> None:
    files = Path(cli.__file__).parent.glob("*.py")
    assert {file.name for file in files if re.search(r"(?<![\w.])print\(", file.read_text())} <= {"output.py", "tree.py"}
