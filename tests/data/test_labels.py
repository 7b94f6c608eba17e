"""Label values inside and outside, and left and right by name."""

from __future__ import annotations

import factories
import numpy as np
import pytest

from autoseg.data.labels import (
    left_right_pairs,
    organ_mask,
    plan_mirroring,
    to_file_values,
    to_internal_values,
    undeclared_values,
    value_counts,
)
from autoseg.schema import Labels, Mirroring
from autoseg.schema.conventions import OUTSIDE

GAPS = factories.labels(liver=2, spleen=7, tumour=500, ignore=9)
BRATS = factories.regions(whole=(1, 2, 3), core=(2, 3), enhancing=(3,))


def named(*names: str) -> Labels:
    return Labels(names, tuple((i + 1,) for i in range(len(names))))


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.int64])
def test_values_to_internal_and_back(kind):
    array = np.array([[0, 2, 7], [500, 9, 0]], kind)
    internal = to_internal_values(array, GAPS, source="a")
    assert internal.dtype == np.int16
    assert internal.tolist() == [[0, 1, 2], [3, 4, 0]]
    np.testing.assert_array_equal(to_file_values(internal, GAPS), array)
    assert to_file_values(internal, GAPS).dtype == np.uint16
    assert to_file_values(np.array([OUTSIDE, 1, 0]), GAPS).tolist() == [0, 2, 0]


def test_very_large_values():
    labels = factories.labels(a=5, b=10000000)
    assert to_internal_values(np.array([0, 10_000_000, 5]), labels, source="a").tolist() == [0, 2, 1]


def test_undeclared_values_are_named_with_counts():
    with pytest.raises(ValueError, match=r"case_1.*3 \(2 voxels\), 8 \(1 voxels\)"):
        to_internal_values(np.array([0, 3, 3, 8, 2]), GAPS, source="case_1")
    assert undeclared_values(np.array([-1, 0]), GAPS) == {-1: 1}


def test_counts():
    assert value_counts(np.array([-2, 0, 0, 5], np.int8)) == {-2: 1, 0: 2, 5: 1}
    assert value_counts(np.array([0, 10**9, 10**9])) == {0: 1, 10**9: 2}
    assert value_counts(np.zeros((0,), int)) == {}


def test_masks_of_organs_and_regions():
    internal = np.array([0, 1, 2, 3, OUTSIDE])
    assert organ_mask(internal, GAPS, 2).tolist() == [False, False, False, True, False]
    assert organ_mask(internal, BRATS, 0).tolist() == [False, True, True, True, False]
    assert organ_mask(internal, BRATS, 1).tolist() == [False, False, True, True, False]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("kidney_left", "kidney_right"),
        ("Left Kidney", "Right Kidney"),
        ("L kidney", "R kidney"),
        ("kidneyL", "kidneyR"),
        ("LKidney", "RKidney"),
        ("LT_lung", "RT_lung"),
        ("Niere links", "Niere rechts"),
        ("rein gauche", "rein droite"),
        ("rib_left_1", "rib_right_1"),
        ("leftkidney", "rightkidney"),
        ("KIDNEY-L", "KIDNEY-R"),
        ("Left-Lateral-Ventricle", "Right-Lateral-Ventricle"),
        ("left", "right"),
    ],
)
def test_pairs(left, right):
    assert left_right_pairs(["liver", right, left]) == (((2, 1),), ())


@pytest.mark.parametrize(
    "names",
    [
        ["ventricle", "liver", "aorta"],
        ["right ventricle", "myocardium", "left ventricle"],
        ["heart_atrium_left", "heart_atrium_right"],
        ["lung_upper_lobe_left", "lung_lower_lobe_left", "lung_middle_lobe_right"],
        ["vertebrae_L1", "vertebrae_L2"],
        ["bright spot", "cleft"],
        ["LV", "RV", "LA"],
        ["anterior", "posterior"],
    ],
)
def test_names_without_a_mirrored_side(names):
    assert left_right_pairs(names) == ((), ())


def test_a_side_without_partner():
    assert left_right_pairs(["kidney_left", "lung_left", "lung_right"]) == (((1, 2),), (0,))
    assert left_right_pairs(["kidney_left", "left kidney", "kidney_right"]) == ((), (0, 1, 2))


PAIR, SINGLE = named("kidney_left", "kidney_right"), named("kidney_left", "liver")


@pytest.mark.parametrize(
    ("labels", "dim", "lateral_axis", "mirroring", "reason"),
    [
        (named("right ventricle", "myocardium", "left ventricle"), 3, 2, Mirroring((0, 1, 2)), "no label"),
        (named("kidney_left", "liver", "kidney_right"), 3, 2, Mirroring((0, 1, 2), 2, ((0, 2),)), "kidney_left <-> kidney_right"),
        (PAIR, 3, None, Mirroring(), "differs between cases"),
        (PAIR, 2, -1, Mirroring((0, 1)), "the patch lacks the lateral axis"),
        (SINGLE, 3, 1, Mirroring((0, 2)), "kidney_left: a side without its partner"),
        (SINGLE, 3, None, Mirroring(), "differs between cases"),
        (factories.regions(both=(1, 2), kidney_left=(1,), kidney_right=(2,)), 3, 2, Mirroring((0, 1, 2), 2, ((1, 2),)), "exchanges"),
        (factories.regions(tumour=(3, 1), kidney_left=(1,), kidney_right=(2,)), 3, 2, Mirroring((0, 1)), "would break"),
        (factories.regions(kidney_left=(1, 3), kidney_right=(2, 4)), 3, 2, Mirroring((0, 1)), "would break"),
    ],
)
def test_flips_keep_left_and_right_where_they_can_be_exchanged(labels, dim, lateral_axis, mirroring, reason):
    found, sentence = plan_mirroring(labels, dim, lateral_axis)
    assert found == mirroring
    assert reason in sentence
