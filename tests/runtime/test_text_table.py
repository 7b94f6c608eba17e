"""Tables and sentences in lines that fit the terminal; nothing of them is lost."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoseg.runtime.text_table import WIDTH, aligned, broken, shown_width, wrapped

NAMES = st.text("ab _/", min_size=1, max_size=50)
NUMBERS = st.text("0123456789.", max_size=9)


@given(st.data(), st.integers(1, 9), st.integers(40, 120))
def test_a_table_fits_its_width_and_keeps_every_number(data: st.DataObject, columns: int, width: int) -> None:
    rows = [
        [data.draw(NAMES), *(data.draw(NUMBERS) for _ in range(columns)), data.draw(NAMES)] for _ in range(data.draw(st.integers(1, 4)))
    ]
    text = aligned(rows, width)
    assert all(len(line) <= width for line in text.splitlines())
    shown = text.split()
    assert all(number in shown for row in rows for number in row[1:-1] if number)


def test_a_table_that_fits_is_one_block() -> None:
    rows = [["organ", "Dice", "worst"], ["liver", "0.9", "0.8 case_1"], ["left kidney", "0.85", "-"]]
    assert aligned(rows, 80).splitlines() == ["organ        Dice  worst", "liver         0.9  0.8 case_1", "left kidney  0.85  -"]


def test_what_does_not_fit_follows_below_with_the_names_again() -> None:
    rows = [["model", *(f"organ_{n:05d}" for n in range(8)), ""], ["2d", *("0.1234",) * 8, ""]]
    lines = aligned(rows, 60).splitlines()
    assert max(map(len, lines)) <= 60 and [line.split()[0] for line in lines if line] == ["model", "2d"] * 2
    assert "".join(lines).count("0.1234") == 8


def test_an_empty_last_column_makes_no_block_of_names() -> None:
    numbers = ["0.123456"] * 6
    text = aligned([["candidate", *numbers, ""], ["3d_fullres__Trainer", *numbers, ""]], 80)
    assert text.count("3d_fullres__Trainer") == 1 and "\n\n" not in text


def test_a_long_name_stands_on_its_own_line() -> None:
    rows = [["model", "mean", ""], ["3d_fullres__Trainer + 2d__Trainer + 3d_lowres__Trainer", "0.5", "x" * 12]]
    assert aligned(rows, 60).splitlines()[1] == rows[1][0]
    assert broken("3d_fullres__Trainer", 14) == ["3d_fullres__", "Trainer"]


def test_sentences_wrap_at_words_and_paths_stay_whole() -> None:
    path = "/a/very/long/path" * 8
    lines = wrapped(f"  why: {'word ' * 30}{path} end", 80).splitlines()
    assert all(len(line) <= 80 or line.strip() == path for line in lines)
    assert all(line.startswith("    ") for line in lines[1:]) and " ".join(" ".join(lines).split()) == f"why: {'word ' * 30}{path} end"
    assert wrapped("short\n\nlines", 80) == "short\n\nlines"


def test_a_command_can_be_copied() -> None:
    command = "autoseg_train Dataset003_Liver 3d_fullres 0 --network-option features=[32,64,128] --iterations 1000 --device cpu"
    lines = wrapped(f"nothing is trained yet. Run: {command}", 60).splitlines()
    assert lines[0] == "nothing is trained yet. Run:" and max(map(len, lines)) <= 60
    assert all(line.endswith(" \\") for line in lines[1:-1])
    assert " ".join(" ".join(line.removesuffix("\\") for line in lines[1:]).split()) == command


@pytest.mark.parametrize(("said", "width"), [(None, WIDTH), ("120", 120), ("72", 72), ("10", 40), ("0", WIDTH)])
def test_the_width_is_the_terminals_and_eighty_in_a_pipe(said: str | None, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS")
    if said is not None:
        monkeypatch.setenv("COLUMNS", said)
    monkeypatch.setattr("os.get_terminal_size", lambda descriptor: (_ for _ in ()).throw(OSError()))
    assert shown_width() == width


def test_an_indented_command_can_be_copied_too() -> None:
    lines = wrapped("examples:\n  autoseg overlay -i scan.nii.gz -p out/scan.nii.gz -r reference.nii.gz -o scan.png", 60).splitlines()
    assert lines == ["examples:", "  autoseg overlay -i scan.nii.gz -p out/scan.nii.gz -r \\", "    reference.nii.gz -o scan.png"]


@pytest.mark.parametrize("width", range(44, 100, 5))
def test_a_command_is_not_broken_within_quotes(width: int) -> None:
    """A backslash at the end of a line in single quotes is no continuation for a shell."""
    command = "autoseg_train Dataset900_Phantom 2d 1 --network-option 'features=[16, 32, 64, 128, 128]' --iterations 1600 --batch 6"
    shown = wrapped(f"  {command}", width)
    assert "'features=[16, 32, 64, 128, 128]'" in shown
    assert shlex.split(shown.replace("\\\n", "")) == shlex.split(command)
    assert all(len(line) <= width for line in shown.split("\n"))
