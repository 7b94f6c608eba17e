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
from factories import write_case, write_info

from autoseg import cli
from autoseg.cli.failures import finish
from autoseg.cli.output import _AboveProgressBars, execute, say
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
    parser.set_defaults(run=run, verbose=False, quiet=False, prog="autoseg_x")
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


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_line_feed_in_a_name_breaks_no_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "raw/Dataset001_A/imagesTr/a\nFAILED b_0000.nii.gz"
    write_case(tmp_path / "raw/Dataset001_A", "a", seed=0)
    (tmp_path / "raw/Dataset001_A/imagesTr/a_0000.nii.gz").rename(file)
    write_info(tmp_path / "raw/Dataset001_A")
    assert cli.main(["check", "-d", "1", "--home", str(tmp_path), "--workers", "0"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert r"a\nFAILED b_0000: missing label" in lines
    assert not [line for line in lines if line.startswith("FAILED")]
    finish("Done", {"a\nb": f"{file}: cannot be read"}, of=2)
    said = capsys.readouterr()
    assert said.err.splitlines() == [rf"FAILED a\nb: {file.parent}/a\nFAILED b_0000.nii.gz: cannot be read"]
    assert said.out.startswith(r"Done; 1 of 2 cases failed: a\nb (") and said.out.count("\n") == 1
    record = logging.makeLogRecord({"msg": "%s failed: %s", "args": ("a\nb", file)})
    assert "\n" not in _AboveProgressBars(shown_alike=None).format(record)
    assert _AboveProgressBars(shown_alike=None).format(logging.makeLogRecord({"msg": "scores:\n%s", "args": ("a\nb",)})) == "scores:\na\nb"
    lines = table([Score("a", "liver\nspleen", 0.5, 1 / 3, 4, 4)]).splitlines()
    assert lines[1].startswith(r"liver\nspleen  0.5")


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
