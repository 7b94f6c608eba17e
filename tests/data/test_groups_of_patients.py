"""Cases and patients that a user names in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoseg.data.patients import read_groups


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "case,patient\nx,1\ny,1\n"),
        ("a.csv", "\ufeffpatient;age;case\n1;60;x\n1;61;y\n"),
        ("a.tsv", "x\t1\n\ny\t1\n"),
        ("A.CSV", "x, 1\ny, 1"),
        ("a.json", '{"x": "1", "y": 1}'),
    ],
)
def test_tables_and_objects_are_read(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_groups(str(tmp_path / name)) == {"x": "1", "y": "1"}


def test_anything_else_is_an_expression() -> None:
    assert read_groups(r"^(p\d+)_") == r"^(p\d+)_"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "found no rows"),
        ("a.csv", "case,patient\nx", "row 1 has 1 column"),
        ("a.json", "[1]", "something else"),
        ("a.json", "{", "expected cases and their patients"),
        ("none.csv", None, "found nothing"),
    ],
)
def test_what_is_neither_is_explained(name: str, text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_groups(str(tmp_path / name))
