"""Each organ from its chosen map; conflicts to the more confident."""

from __future__ import annotations

import numpy as np
import pytest
from factories import labels, regions

from autoseg.inference.merge_labels import internal_regions_class_order, merge_organs

LABELS = labels(liver=4, spleen=2)
"""Internal values: spleen 1 (file 2), liver 2 (file 4)."""
NESTED = regions(whole=(1, 2), core=(2,))
MAPS = {"a": np.array([[2, 2, 2, 0, 1, 1, 0, 2]]), "b": np.array([[1, 1, 0, 1, 1, 2, 2, 0]])}
BOTH = {"liver": "a", "spleen": "b"}


def never(organ, voxels):
    raise AssertionError("confidence is not needed where only one organ is claimed")


def test_each_organ_comes_from_its_own_map_and_conflicts_go_to_the_most_probable():
    contested = {}

    def confidence(organ, voxels):
        contested[organ] = voxels.tolist()
        return {"liver": np.array([0.8, 0.4]), "spleen": np.array([0.5, 0.45])}[organ]

    merged, conflicts = merge_organs(MAPS, BOTH, LABELS, confidence)
    #                       conflict a, conflict b, liver, spleen, spleen, nobody's (a says spleen, b liver), nobody's, liver
    np.testing.assert_array_equal(merged, [[2, 1, 2, 1, 1, 0, 0, 2]])
    assert (conflicts, merged.dtype) == (2, np.int16)
    assert contested == {"liver": [[0, 0], [0, 1]], "spleen": [[0, 0], [0, 1]]}


@pytest.mark.parametrize(("confidence", "maps"), [(0.2, ([[2]], [[1]])), (0.0, ([[2, 2]], [[0, 1]]))], ids=["equal", "none"])
def test_equal_confidence_goes_to_the_first_organ_and_none_still_claims(confidence, maps):
    both = dict(zip("ab", map(np.array, maps), strict=True))
    merged, conflicts = merge_organs(both, BOTH, LABELS, lambda *_: np.array([confidence]))
    assert (merged == 2).all()
    assert conflicts == 1


def test_of_three_claims_each_is_weighed_only_where_it_is_made():
    three = {"a": np.array([1, 1, 1]), "b": np.array([2, 0, 2]), "c": np.array([3, 3, 0])}
    sure = {"liver": np.array([0.5, 0.5, 0.5]), "spleen": np.array([0.4, 0.6]), "aorta": np.array([0.7, 0.3])}
    merged, conflicts = merge_organs(three, BOTH | {"aorta": "c"}, labels(liver=1, spleen=2, aorta=3), lambda organ, _: sure[organ])
    assert merged.tolist() == [3, 1, 2]
    assert conflicts == 3


@pytest.mark.parametrize(
    ("maps", "choice", "known", "expected"),
    [
        (MAPS, {"liver": "b", "spleen": "b"}, LABELS, MAPS["b"]),
        ({"a": np.array([[1, 2, 0, 0]]), "b": np.array([[0, 1, 2, 0]])}, {"whole": "a", "core": "b"}, NESTED, [[1, 1, 2, 0]]),
    ],
    ids=["one map for all", "regions, painted in order"],
)
def test_where_nothing_conflicts_no_confidence_is_needed(maps, choice, known, expected):
    merged, conflicts = merge_organs(maps, choice, known, never)
    np.testing.assert_array_equal(merged, expected)
    assert conflicts == 0


@pytest.mark.parametrize(
    ("maps", "choice", "message"),
    [
        (MAPS, {"liver": "a"}, "none for spleen"),
        (MAPS, {"liver": "a", "spleen": "c"}, "model chosen for spleen: expected one of a, b, got 'c'"),
        (MAPS, BOTH | {"livr": "a"}, "Did you mean 'liver'"),
        (MAPS | {"b": np.zeros((1, 3))}, BOTH, r"b has \(1, 3\)"),
    ],
)
def test_an_incomplete_choice_and_maps_of_different_shapes_are_refused(maps, choice, message):
    with pytest.raises(ValueError, match=message):
        merge_organs(maps, choice, LABELS, never)


def test_painted_values_must_be_labels():
    assert internal_regions_class_order(LABELS) == (2, 1)
    assert internal_regions_class_order(regions(whole=(1, 4), core=(4,))) == (1, 2)
    for order, message in (((1, 3), "'core' is painted with 3"), ((1,), "expected 2 values")):
        with pytest.raises(ValueError, match=message):
            internal_regions_class_order(regions(whole=(1, 4), core=(4,), order=order))
