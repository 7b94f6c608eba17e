"""Each organ from its chosen map; conflicts to the more confident."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.inference.ensemble import internal_paint, merge_organs
from autoseg.model import Labels

LABELS = Labels(("liver", "spleen"), ((4,), (2,)))
"""Internal values: spleen 1 (file 2), liver 2 (file 4)."""


def maps():
    one = np.array([[2, 2, 2, 0, 1, 1, 0, 2]])
    two = np.array([[1, 1, 0, 1, 1, 2, 2, 0]])
    return {"a": (one, np.array([[200, 90, 9, 9, 9, 9, 9, 7]], np.uint8)), "b": (two, np.array([[100, 95, 9, 9, 9, 9, 9, 255]], np.uint8))}


def test_each_organ_comes_from_its_own_map_and_conflicts_go_to_the_more_confident():
    merged, conflicts = merge_organs(maps(), {"liver": "a", "spleen": "b"}, LABELS)
    #                       conflict a, conflict b, liver, spleen, spleen, nobody's (a says spleen, b liver), nobody's, liver
    np.testing.assert_array_equal(merged, [[2, 1, 2, 1, 1, 0, 0, 2]])
    assert conflicts == 2
    assert merged.dtype == np.int16


def test_equal_confidence_goes_to_the_first_organ():
    both = {"a": (np.array([[2]]), np.array([[50]], np.uint8)), "b": (np.array([[1]]), np.array([[50]], np.uint8))}
    assert merge_organs(both, {"liver": "a", "spleen": "b"}, LABELS)[0].item() == 2


def test_zero_confidence_still_claims():
    both = {"a": (np.array([[2]]), np.array([[0]], np.uint8)), "b": (np.array([[0]]), np.array([[255]], np.uint8))}
    assert merge_organs(both, {"liver": "a", "spleen": "b"}, LABELS)[0].item() == 2


def test_one_map_for_all_is_that_map():
    merged, conflicts = merge_organs(maps(), {"liver": "b", "spleen": "b"}, LABELS)
    np.testing.assert_array_equal(merged, maps()["b"][0])
    assert conflicts == 0


def test_regions_are_painted_in_order():
    labels = Labels(("whole", "core"), ((1, 2), (2,)), regions=True, paint=(1, 2))
    one, two = np.array([[1, 2, 0, 0]]), np.array([[0, 1, 2, 0]])
    certain = np.full(one.shape, 255, np.uint8)
    merged, conflicts = merge_organs({"a": (one, certain), "b": (two, certain)}, {"whole": "a", "core": "b"}, labels)
    np.testing.assert_array_equal(merged, [[1, 1, 2, 0]])
    assert conflicts == 0


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"liver": "a"}, "none for spleen"),
        ({"liver": "a", "spleen": "c"}, "model chosen for spleen: expected one of a, b, got 'c'"),
        ({"liver": "a", "spleen": "b", "livr": "a"}, "Did you mean 'liver'"),
    ],
)
def test_an_incomplete_choice_is_refused(choice, message):
    with pytest.raises(ValueError, match=message):
        merge_organs(maps(), choice, LABELS)


def test_maps_of_different_shapes_are_refused():
    both = maps() | {"b": (np.zeros((1, 3)), np.zeros((1, 3), np.uint8))}
    with pytest.raises(ValueError, match=r"b has \(1, 3\)"):
        merge_organs(both, {"liver": "a", "spleen": "b"}, LABELS)


def test_painted_values_must_be_labels():
    assert internal_paint(LABELS) == (2, 1)
    assert internal_paint(Labels(("whole", "core"), ((1, 4), (4,)), regions=True, paint=(1, 4))) == (1, 2)
    with pytest.raises(ValueError, match="'core' is painted with 3"):
        internal_paint(Labels(("whole", "core"), ((1, 4), (4,)), regions=True, paint=(1, 3)))
    with pytest.raises(ValueError, match="expected 2 values"):
        internal_paint(Labels(("whole", "core"), ((1, 4), (4,)), regions=True, paint=(1,)))
