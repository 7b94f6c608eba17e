"""Label maps with parts and holes that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.inference.postprocessing import Components, apply_postprocessing, describe
from autoseg.preprocessing.cropping import enclosed
from autoseg.schema import Labels, PostProcessing

LABELS = Labels(("liver", "kidneys"), ((3,), (8,)))
SPACING = (2.0, 1.0, 1.0)


@pytest.fixture
def label_map() -> np.ndarray:
    """The liver (1) has parts of 18, 4 and 1 voxels, the kidneys (2) of 8, 8 and 1."""
    found = np.zeros((4, 9, 12), np.int16)
    found[0:2, 0:3, 0:3] = 1
    found[3, 7:9, 0:2] = 1
    found[0, 8, 11] = 1
    found[0:2, 5:7, 4:6] = 2
    found[0:2, 5:7, 8:10] = 2
    found[3, 0, 11] = 2
    return found


def test_the_largest_parts_are_kept_and_other_organs_left_alone(label_map: np.ndarray) -> None:
    found = apply_postprocessing(label_map, LABELS, {"liver": PostProcessing(components=1)}, SPACING)
    assert np.count_nonzero(found == 1) == 18
    assert np.array_equal(found == 2, label_map == 2)
    both = apply_postprocessing(
        label_map, LABELS, {"liver": PostProcessing(components=2), "kidneys": PostProcessing(components=2)}, SPACING
    )
    assert [np.count_nonzero(both == value) for value in (1, 2)] == [22, 16]
    assert label_map[0, 8, 11] == 1, "the map that was given is not changed"


def test_small_parts_are_removed_by_their_volume_in_mm3(label_map: np.ndarray) -> None:
    sizes = [
        np.count_nonzero(apply_postprocessing(label_map, LABELS, {"liver": PostProcessing(volume)}, SPACING)) - 17
        for volume in (2, 2.1, 8, 8.1, 37)
    ]
    assert sizes == [23, 22, 22, 18, 0], "parts of 36, 8 and 2 mm³"


def test_both_steps_together() -> None:
    line = np.array([[1, 0, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 1]], np.int16)
    found = apply_postprocessing(line, LABELS, {"liver": PostProcessing(min_volume_mm3=2, components=2)}, (1.0, 1.0))
    assert found.tolist() == [[0] * 5 + [1] * 3 + [0] + [1] * 4]


def test_voxels_that_touch_in_a_corner_belong_together() -> None:
    cube = np.zeros((2, 2, 2), bool)
    cube[0, 0, 0] = cube[1, 1, 1] = True
    assert Components.of(cube).sizes.tolist() == [0, 2]


def test_of_equal_parts_the_first_is_kept() -> None:
    line = np.array([[1, 0, 1]], np.int16)
    assert apply_postprocessing(line, LABELS, {"liver": PostProcessing(components=1)}, (1, 1)).tolist() == [[1, 0, 0]]


def test_holes_are_filled_but_never_over_another_organ() -> None:
    found = np.ones((5, 5, 5), np.int16)
    found[2, 2, 1:4] = [0, 2, 0]
    filled = apply_postprocessing(found, LABELS, {"liver": PostProcessing(fill_holes=True)}, SPACING)
    assert np.count_nonzero(filled == 1) == 124
    assert filled[2, 2, 2] == 2


def test_a_hole_that_is_open_in_a_corner_only_is_closed_and_one_that_reaches_the_border_is_none() -> None:
    mask = np.ones((4, 4), bool)
    mask[1, 1] = False
    mask[0, 0] = False
    assert enclosed(~mask).tolist() == [[False] * 4, [False, True, False, False], [False] * 4, [False] * 4]
    mask[0, 1] = False
    assert not enclosed(~mask).any()


def test_what_is_removed_from_inside_another_organ_is_filled_by_it() -> None:
    found = np.ones((5, 5), np.int16)
    found[2, 2] = 2
    wide = np.concatenate([found, np.full((5, 2), 2, np.int16)], axis=1)
    cleaned = apply_postprocessing(
        wide, LABELS, {"liver": PostProcessing(fill_holes=True), "kidneys": PostProcessing(components=1)}, (1.0, 1.0)
    )
    assert cleaned.tolist() == [[1] * 5 + [2] * 2] * 5


def test_nothing_to_do_gives_the_map_itself_and_absent_organs_are_no_mistake(label_map: np.ndarray) -> None:
    assert apply_postprocessing(label_map, LABELS, {}, SPACING) is label_map
    empty = np.zeros((3, 3), np.int16)
    assert not apply_postprocessing(empty, LABELS, {"liver": PostProcessing(components=1, fill_holes=True)}, (1.0, 1.0)).any()


def test_regions_unknown_organs_and_wrong_spacings_are_refused(label_map: np.ndarray) -> None:
    regions = Labels(("whole", "core"), ((1, 2), (2,)), regions=True, regions_class_order=(1, 2))
    with pytest.raises(ValueError, match="core.*regions"):
        apply_postprocessing(label_map, regions, {"core": PostProcessing(components=1)}, SPACING)
    with pytest.raises(ValueError, match="kidneys, liver.*spleen"):
        apply_postprocessing(label_map, LABELS, {"spleen": PostProcessing(components=1)}, SPACING)
    with pytest.raises(ValueError, match="spacing of 3"):
        apply_postprocessing(label_map, LABELS, {"liver": PostProcessing(components=1)}, (1.0, 1.0))


def test_steps_in_words() -> None:
    steps = PostProcessing(min_volume_mm3=12.5, components=2, fill_holes=True)
    assert describe(steps) == "components below 12.5 mm³ removed, only the 2 largest components kept, holes filled"
    assert describe(PostProcessing(components=1)) == "only the largest component kept"
