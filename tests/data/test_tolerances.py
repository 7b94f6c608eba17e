"""Tolerances of a dataset and of a command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories import labels

from autoseg.data.tolerances import parse_tolerances, read_tolerances, tolerance_of

LABELS = labels(liver=1, spleen=2)
FILE = Path("a/dataset.json")


def test_of_a_dataset():
    assert parse_tolerances({}, LABELS, FILE) == {}
    assert parse_tolerances({"tolerances": {"liver": 3}}, LABELS, FILE) == {"liver": 3.0}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"heart": 3}, "tolerances: organ: expected one of liver, spleen, got 'heart'"),
        ({"liver": -1}, "tolerances: liver: expected a distance in mm, found -1"),
        ({"liver": "wide"}, "expected a distance in mm, found 'wide'"),
        ({"liver": True}, "expected a distance in mm, found True"),
        ([3.0], "expected an object such as"),
    ],
)
def test_what_is_none_is_refused(entry, message):
    with pytest.raises(ValueError, match=f"a/dataset.json: tolerances: .*{message.removeprefix('tolerances: ')}"):
        parse_tolerances({"tolerances": entry}, LABELS, FILE)


def test_of_a_command_line():
    assert read_tolerances([], 1.0, {}) == {"": 1.0}
    assert read_tolerances([], 1.0, {"liver": 3.0}) == {"liver": 3.0, "": 1.0}
    assert read_tolerances(["2"], 1.0, {"liver": 3.0}) == {"": 2.0}
    assert read_tolerances(["2", "liver=4"], 1.0, {"spleen": 3.0}) == {"liver": 4.0, "": 2.0}
    for words, message in ((["1", "2"], "one number for all organs, found 1 2"), (["=3"], "found =3"), (["liver=x"], "liver: .* 'x'")):
        with pytest.raises(ValueError, match=message):
            read_tolerances(words, 1.0, {})


def test_of_an_organ():
    assert tolerance_of("liver", 2, 1.0) == 2.0
    assert tolerance_of("liver", {"liver": 3.0, "": 2.0}, 1.0) == 3.0
    assert tolerance_of("spleen", {"liver": 3.0, "": 2.0}, 1.0) == 2.0
    assert tolerance_of("spleen", {"liver": 3.0}, 1.0) == 1.0
