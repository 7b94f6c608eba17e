"""The labels entry of dataset.json in its forms."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoseg.data.label_names import parse_labels

FILE = Path("dataset.json")


def parse(labels, **other):
    return parse_labels({"labels": labels, **other}, FILE)


def test_names_follow_the_values():
    labels = parse({"background": 0, "spleen": 7, "liver": 2, "ignore": 9})
    assert labels.names == ("liver", "spleen")
    assert labels.members == ((2,), (7,))
    assert (labels.ignore, labels.internal_ignore, labels.n_outputs) == (9, 3, 3)


def test_the_older_form():
    assert parse({"0": "background", "1": "Anterior", "2": "Posterior"}) == parse({"Anterior": 1, "background": 0, "Posterior": 2})


def test_background_is_value_zero_whatever_its_name():
    assert parse({"air": 0, "liver": 1}).names == ("liver",)


def test_regions_keep_their_order():
    labels = parse({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4}, regions_class_order=[1, 2, 3])
    assert labels.regions
    assert labels.names == ("whole", "core", "enhancing")
    assert labels.members == ((1, 2, 3), (2, 3), (3,))
    assert (labels.regions_class_order, labels.ignore, labels.n_outputs) == ((1, 2, 3), 4, 3)


def test_a_list_of_one_is_no_region():
    assert not parse({"background": [0], "liver": [1]}).regions


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (None, "expected an object"),
        ({"background": 0}, "at least one organ"),
        ({"background": 0, "a": 1, "b": 1}, "value of its own"),
        ({"background": 0, "a": -1}, "non-negative"),
        ({"background": 0, "a": 1.5}, "non-negative"),
        ({"background": 0, "a": "x"}, "non-negative"),
        ({"background": 0, "a": []}, "non-negative"),
        ({"background": 0, "a": 1, "ignore": 1}, "ignore"),
        ({"background": 0, "a": [1, 2], "b": 2}, "regions_class_order"),
        ({"0": "background", "1": "a", "2": "a"}, "name of its own"),
    ],
)
def test_what_is_wrong_is_said(labels, said):
    with pytest.raises(ValueError, match=said):
        parse(labels)
