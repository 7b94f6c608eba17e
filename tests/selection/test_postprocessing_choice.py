"""Post-processing is kept where it helps, and only there."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.schema import PostProcessing
from autoseg.selection.postprocessing_choice import parts_of, proposals, select_postprocessing

ONE, TWO, HOLES = PostProcessing(components=1), PostProcessing(components=2), PostProcessing(fill_holes=True)
NAN = float("nan")


def test_number_and_size_of_parts_come_from_the_training_labels() -> None:
    assert parts_of([1.0, 500.0, 400.0]) == (500.0, 400.0), "specks of the annotation are no parts"
    assert parts_of([]) == ()
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


DISTANCE = {"metric": "hd95_surface", "perfect": 0.0}


@pytest.mark.parametrize(
    ("before", "after", "options", "why"),
    [
        pytest.param([0.8] * 8, [0.83, 0.78] * 4, {}, None, id="could be luck"),
        pytest.param([0.8] * 20, [0.81] * 19 + [0.75], {}, None, id="a case loses much"),
        pytest.param([0.8] * 20, [0.81] * 19 + [0.795], {}, "19 better and 1 worse, p =", id="a case loses little"),
        pytest.param([0.9, 0.9, 0.5], [0.9, 0.9, 0.8], {}, "too few change for a test", id="few change, none loses"),
        pytest.param([0.9, 0.9, 0.5], [0.9, 0.89, 0.8], {}, None, id="few change, one loses"),
        pytest.param([0.9, 0.9, 0.5], [0.9, 0.9, 0.5], {}, None, id="none changes"),
        pytest.param([0.9, 0.0, NAN], [0.9, NAN, NAN], {}, "0.4500 -> 0.9500 over 2 cases, 1 better and 0 worse", id="false alarm removed"),
        pytest.param([10.0, 12.0, 0.0], [3.0, 12.0, 0.0], DISTANCE, "1 better", id="shorter distance"),
        pytest.param([10.0, 12.0, 0.0], [13.0, 12.0, 0.0], DISTANCE, None, id="longer distance"),
        pytest.param([0.8] * 12, 0.8 + np.linspace(0.01, 0.02, 12), {}, "p = ", id="twelve patients"),
        pytest.param([0.8] * 12, 0.8 + np.linspace(0.01, 0.02, 12), {"groups": sorted([0, 1, 2, 3] * 3)}, "too few", id="four patients"),
    ],
)
def test_what_is_kept(before, after, options, why) -> None:
    found = select_postprocessing(np.array(before), {ONE: np.array(after)}, **options)
    assert (found is None) == (why is None)
    assert found is None or why in found.why


def test_the_number_of_different_proposals_is_paid_for_and_the_larger_gain_wins() -> None:
    """Six of six better has p = 0.031; with two proposals that is no longer below 0.05. The same effect twice is one proposal."""
    before, gain = np.full(6, 0.5), np.linspace(0.1, 0.2, 6)
    assert select_postprocessing(before, {ONE: before + gain}) is not None
    assert select_postprocessing(before, {ONE: before + gain, TWO: before + gain[::-1] / 2}) is None
    assert select_postprocessing(before, {TWO: before + gain, ONE: before + gain}).components == 2, "the one that is named first"
    before, gain = np.full(9, 0.5), np.linspace(0.1, 0.2, 9)
    assert select_postprocessing(before, {ONE: before + gain / 2, HOLES: before + gain}).fill_holes
    assert select_postprocessing(before, {}) is None
    with pytest.raises(ValueError, match="groups"):
        select_postprocessing(before, {ONE: before + gain}, groups=["a"])
