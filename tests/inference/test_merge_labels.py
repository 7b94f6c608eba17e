"""Each organ from its chosen map; conflicts to the more confident."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.inference.merge_labels import internal_regions_class_order, merge_organs
from autoseg.schema import Labels

LABELS = Labels(("liver", "spleen"), ((4,), (2,)))
"""Internal values: spleen 1 (file 2), liver 2 (file 4)."""


MAPS = {"a": np.array([[2, 2, 2, 0, 1, 1, 0, 2]]), "b": np.array([[1, 1, 0, 1, 1, 2, 2, 0]])}


def never(organ, voxels):
    raise AssertionError("confidence is not needed where only one organ is claimed")


def test_each_organ_comes_from_its_own_map_and_conflicts_go_to_the_most_probable():
    contested = {}

    def confidence(organ, voxels):
        contested[organ] = voxels.tolist()
        return {"liver": np.array([0.8, 0.4]), "spleen": np.array([0.5, 0.45])}[organ]

    merged, conflicts = merge_organs(MAPS, {"liver": "a", "spleen": "b"}, LABELS, confidence)
    #                       conflict a, conflict b, liver, spleen, spleen, nobody's (a says spleen, b liver), nobody's, liver
    np.testing.assert_array_equal(merged, [[2, 1, 2, 1, 1, 0, 0, 2]])
    assert conflicts == 2
    assert merged.dtype == np.int16
    assert contested == {"liver": [[0, 0], [0, 1]], "spleen": [[0, 0], [0, 1]]}


def test_equal_confidence_goes_to_the_first_organ():
    both = {"a": np.array([[2]]), "b": np.array([[1]])}
    assert merge_organs(both, {"liver": "a", "spleen": "b"}, LABELS, lambda *_: np.array([0.2]))[0].item() == 2


def test_zero_confidence_still_claims():
    both = {"a": np.array([[2, 2]]), "b": np.array([[0, 1]])}
    merged, conflicts = merge_organs(both, {"liver": "a", "spleen": "b"}, LABELS, lambda *_: np.array([0.0]))
    assert merged.tolist() == [[2, 2]]
    assert conflicts == 1


def test_of_three_claims_each_is_weighed_only_where_it_is_made():
    labels = Labels(("liver", "spleen", "aorta"), ((1,), (2,), (3,)))
    three = {"a": np.array([1, 1, 1]), "b": np.array([2, 0, 2]), "c": np.array([3, 3, 0])}
    sure = {"liver": np.array([0.5, 0.5, 0.5]), "spleen": np.array([0.4, 0.6]), "aorta": np.array([0.7, 0.3])}
    choice = {"liver": "a", "spleen": "b", "aorta": "c"}
    merged, conflicts = merge_organs(three, choice, labels, lambda organ, voxels: sure[organ])
    assert merged.tolist() == [3, 1, 2]
    assert conflicts == 3


def test_one_map_for_all_is_that_map():
    merged, conflicts = merge_organs(MAPS, {"liver": "b", "spleen": "b"}, LABELS, never)
    np.testing.assert_array_equal(merged, MAPS["b"])
    assert conflicts == 0


def test_regions_are_painted_in_order():
    labels = Labels(("whole", "core"), ((1, 2), (2,)), regions=True, regions_class_order=(1, 2))
    two = {"a": np.array([[1, 2, 0, 0]]), "b": np.array([[0, 1, 2, 0]])}
    merged, conflicts = merge_organs(two, {"whole": "a", "core": "b"}, labels, never)
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
        merge_organs(MAPS, choice, LABELS, never)


def test_maps_of_different_shapes_are_refused():
    both = MAPS | {"b": np.zeros((1, 3))}
    with pytest.raises(ValueError, match=r"b has \(1, 3\)"):
        merge_organs(both, {"liver": "a", "spleen": "b"}, LABELS, never)


def test_painted_values_must_be_labels():
    assert internal_regions_class_order(LABELS) == (2, 1)
    assert internal_regions_class_order(Labels(("whole", "core"), ((1, 4), (4,)), regions=True, regions_class_order=(1, 4))) == (1, 2)
    with pytest.raises(ValueError, match="'core' is painted with 3"):
        internal_regions_class_order(Labels(("whole", "core"), ((1, 4), (4,)), regions=True, regions_class_order=(1, 3)))
    with pytest.raises(ValueError, match="expected 2 values"):
        internal_regions_class_order(Labels(("whole", "core"), ((1, 4), (4,)), regions=True, regions_class_order=(1,)))
