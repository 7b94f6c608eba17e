"""What the commands print fits 80 columns."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from oracle_home import HomeFactory

from autoseg import cli
from autoseg.cli.tree import COMMANDS

WIDTH = 80


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))


def too_long(text: str) -> list[str]:
    """Lines of more than 80 characters that could have been broken; progress bars redraw their line."""
    lines = [part for line in text.splitlines() for part in line.split("\r")]
    return [line for line in lines if len(line) > WIDTH and re.search(r"\S\s+\S", line[:WIDTH])]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_help_fits(command: cli.command.Command) -> None:
    assert too_long(command.parser().format_help()) == []


def test_every_stage_fits(oracle_home: HomeFactory, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    home = oracle_home()
    images, out = home / "raw" / "Dataset001_Oracle" / "imagesTr", tmp_path / "out"
    scans = shutil.copytree(images, tmp_path / "scans_with_a_name_that_is_not_short_at_all")
    labels = home / "raw" / "Dataset001_Oracle" / "labelsTr"
    lines = (
        f"check -d 1 --home {home} --workers 0",
        f"plan_and_preprocess -d 1 -c 3d_fullres --home {home} --workers 0",
        f"find_best_configuration 1 --home {home}",
        f"predict -i {scans} -o {out} --home {home} --statistics --allow-code oracle_home",
        f"evaluate -r {labels} -p {out} -d 1 --home {home} --all",
        f"evaluate -r {labels} -p {out} --home {home}",
        f"report 1 --home {home} --cases 1 --allow-code oracle_home",
        f"train 1 3d_fullres 9 --home {home}",
    )
    for line in lines:
        capfd.readouterr()
        cli.main(line.split())
        said = capfd.readouterr()
        assert said.out + said.err, line
        assert too_long(said.out) == [] and too_long(said.err) == [], line


def test_a_wrong_argument_is_told_in_lines_that_fit(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train_ensemble", "3", "--kind", "everything_that_there_is_of_all_kinds"])
    said = capsys.readouterr().err
    assert "everything_that_there_is" in said and too_long(said) == []
