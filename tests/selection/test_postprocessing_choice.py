"""Post-processing is kept where it helps, and only there."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.schema import PostProcessing
from autoseg.selection.postprocessing_choice import parts_of, proposals, select_postprocessing

ONE, TWO, HOLES = PostProcessing(components=1), PostProcessing(components=2), PostProcessing(fill_holes=True)
NAN = float("nan")


def test_specks_of_the_annotation_are_no_parts() -> None:
    assert parts_of([1.0, 500.0, 400.0]) == (500.0, 400.0)
    assert parts_of([]) == ()


def test_number_and_size_come_from_the_training_labels() -> None:
    kidneys = [(100.0, 80.0)] * 18 + [(120.0,), (90.0, 60.0, 10.0)]
    tried = proposals(kidneys)
    assert [one.components for one in tried if one.components] == [2, 2], "95 % of the labels have two, one is strange"
    assert {one.min_volume_mm3 for one in tried} == {0, 5.0}, "half of the smallest part"
    assert sum(one.fill_holes for one in tried) == 3
    vessels = proposals([(5.0,)] * 6 + [(5.0, 4.0, 3.0)] * 4)
    assert sorted({one.components for one in vessels if one.components}) == [1, 3]
    assert proposals([(), ()]) == ()


def test_a_clear_gain_over_many_cases_is_kept_and_says_why() -> None:
    before = np.full(10, 0.8)
    found = select_postprocessing(before, {ONE: before + np.linspace(0.01, 0.1, 10), HOLES: before})
    assert (found.components, found.fill_holes) == (1, False)
    assert found.why == (
        "only the largest component kept: mean dice 0.8000 -> 0.8550 over 10 cases, 10 better and 0 worse, p = 0.002 corrected for 1 tried"
    )


def test_a_gain_that_could_be_luck_is_not_kept() -> None:
    before = np.full(8, 0.8)
    after = before + [0.03, -0.02, 0.03, -0.02, 0.03, -0.02, 0.03, -0.02]
    assert after.mean() > before.mean()
    assert select_postprocessing(before, {ONE: after}) is None


def test_a_case_that_loses_much_is_too_dear() -> None:
    before = np.full(20, 0.8)
    after = before + 0.01
    after[3] = 0.75
    assert after.mean() > before.mean()
    assert select_postprocessing(before, {ONE: after}) is None
    after[3] = 0.795
    assert select_postprocessing(before, {ONE: after}) is not None


def test_few_changes_must_never_hurt() -> None:
    before = np.array([0.9, 0.9, 0.5])
    assert "too few change for a test" in select_postprocessing(before, {ONE: np.array([0.9, 0.9, 0.8])}).why
    assert select_postprocessing(before, {ONE: np.array([0.9, 0.89, 0.8])}) is None
    assert select_postprocessing(before, {ONE: before}) is None
    assert select_postprocessing(before, {}) is None


def test_the_number_of_different_proposals_is_paid_for() -> None:
    """Six of six better has p = 0.031; with two proposals that is no longer below 0.05. The same effect twice is one proposal."""
    before, gain = np.full(6, 0.5), np.linspace(0.1, 0.2, 6)
    assert select_postprocessing(before, {ONE: before + gain}) is not None
    assert select_postprocessing(before, {ONE: before + gain, TWO: before + gain[::-1] / 2}) is None
    assert select_postprocessing(before, {TWO: before + gain, ONE: before + gain}).components == 2, "the one that is named first"


def test_the_larger_gain_wins() -> None:
    before, gain = np.full(9, 0.5), np.linspace(0.1, 0.2, 9)
    assert select_postprocessing(before, {ONE: before + gain / 2, HOLES: before + gain}).fill_holes


def test_a_false_alarm_that_is_removed_counts_as_right() -> None:
    found = select_postprocessing(np.array([0.9, 0.0, NAN]), {ONE: np.array([0.9, NAN, NAN])})
    assert "mean dice 0.4500 -> 0.9500 over 2 cases, 1 better and 0 worse" in found.why


def test_lower_distances_are_better() -> None:
    before = np.array([10.0, 12.0, 0.0])
    assert select_postprocessing(before, {ONE: np.array([3.0, 12.0, 0.0])}, metric="hd95_surface", perfect=0.0) is not None
    assert select_postprocessing(before, {ONE: np.array([13.0, 12.0, 0.0])}, metric="hd95_surface", perfect=0.0) is None


def test_cases_of_one_patient_count_once() -> None:
    before = np.full(12, 0.8)
    after = before + np.linspace(0.01, 0.02, 12)
    assert "p = " in select_postprocessing(before, {ONE: after}).why
    assert "too few" in select_postprocessing(before, {ONE: after}, groups=[number // 3 for number in range(12)]).why
    with pytest.raises(ValueError, match="groups"):
        select_postprocessing(before, {ONE: after}, groups=["a"])
