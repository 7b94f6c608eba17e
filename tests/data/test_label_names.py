"""The labels entry of dataset.json in its forms."""

from __future__ import annotations

from pathlib import Path

import factories
import pytest

from autoseg.data.label_names import parse_labels

FILE = Path("dataset.json")


def parse(labels, **other):
    return parse_labels({"labels": labels, **other}, FILE)


def test_names_follow_the_values():
    labels = parse({"background": 0, "spleen": 7, "liver": 2, "ignore": 9})
    assert labels == factories.labels(liver=2, spleen=7, ignore=9)
    assert (labels.ignore, labels.internal_ignore, labels.n_outputs) == (9, 3, 3)


def test_other_forms_of_the_same():
    assert parse({"0": "background", "1": "Anterior", "2": "Posterior"}) == parse({"Anterior": 1, "background": 0, "Posterior": 2})
    assert parse({"air": 0, "liver": 1}) == parse({"background": [0], "liver": [1]}) == factories.labels(liver=1)


def test_regions_keep_their_order():
    labels = parse({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4}, regions_class_order=[1, 2, 3])
    assert labels == factories.regions(whole=(1, 2, 3), core=(2, 3), enhancing=(3,), ignore=4)
    assert labels.n_outputs == 3


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
