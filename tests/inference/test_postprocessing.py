"""Label maps with parts and holes that can be counted by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from factories import REGIONS, labels

from autoseg.inference.postprocessing import ASKED, Components, apply_postprocessing, describe, forced, requested_steps
from autoseg.preprocessing.cropping import enclosed
from autoseg.schema import Labels, PostProcessing

LABELS = labels(liver=3, kidneys=8)
SPACING = (2.0, 1.0, 1.0)
LARGEST = PostProcessing(components=1)


@pytest.fixture
def label_map() -> np.ndarray:
    """The liver (1) has parts of 18, 4 and 1 voxels, the kidneys (2) of 8, 8 and 1."""
    found = np.zeros((4, 9, 12), np.int16)
    found[0:2, 0:3, 0:3] = found[3, 7:9, 0:2] = found[0, 8, 11] = 1
    found[0:2, 5:7, 4:6] = found[0:2, 5:7, 8:10] = found[3, 0, 11] = 2
    return found


def test_the_largest_parts_are_kept_and_other_organs_left_alone(label_map: np.ndarray) -> None:
    before = label_map.copy()
    found = apply_postprocessing(label_map, LABELS, {"liver": LARGEST}, SPACING)
    assert np.count_nonzero(found == 1) == 18
    assert np.array_equal(found == 2, label_map == 2)
    both = apply_postprocessing(label_map, LABELS, dict.fromkeys(LABELS.names, PostProcessing(components=2)), SPACING)
    assert [np.count_nonzero(both == value) for value in (1, 2)] == [22, 16]
    assert np.array_equal(label_map, before), "the map that was given is not changed"
    assert apply_postprocessing(label_map, LABELS, {}, SPACING) is label_map


def test_small_parts_are_removed_by_their_volume_in_mm3(label_map: np.ndarray) -> None:
    cleaned = [apply_postprocessing(label_map, LABELS, {"liver": PostProcessing(volume)}, SPACING) for volume in (2, 2.1, 8, 8.1, 37)]
    assert [np.count_nonzero(one == 1) for one in cleaned] == [23, 22, 22, 18, 0], "parts of 36, 8 and 2 mm³"


@pytest.mark.parametrize(
    ("line", "steps", "expected"),
    [
        ("1011011101111", {"liver": PostProcessing(min_volume_mm3=2, components=2)}, "0000011101111"),
        ("101", {"liver": LARGEST}, "100"),
        ("000", {"liver": PostProcessing(components=1, fill_holes=True)}, "000"),
    ],
    ids=["both steps together", "the first of equal parts", "an absent organ"],
)
def test_components_of_a_line(line: str, steps: dict[str, PostProcessing], expected: str) -> None:
    found = apply_postprocessing(np.array([[*map(int, line)]], np.int16), LABELS, steps, (1.0, 1.0))
    assert "".join(map(str, found[0])) == expected


def test_voxels_that_touch_in_a_corner_belong_together() -> None:
    cube = np.zeros((2, 2, 2), bool)
    cube[0, 0, 0] = cube[1, 1, 1] = True
    assert Components.of(cube).sizes.tolist() == [0, 2]


def test_holes_are_filled_but_never_over_another_organ() -> None:
    found = np.ones((5, 5, 5), np.int16)
    found[2, 2, 1:4] = [0, 2, 0]
    filled = apply_postprocessing(found, LABELS, {"liver": PostProcessing(fill_holes=True)}, SPACING)
    assert np.count_nonzero(filled == 1) == 124
    assert filled[2, 2, 2] == 2


def test_a_hole_that_is_open_in_a_corner_only_is_closed_and_one_that_reaches_the_border_is_none() -> None:
    mask = np.ones((4, 4), bool)
    mask[1, 1] = mask[0, 0] = False
    assert np.argwhere(enclosed(~mask)).tolist() == [[1, 1]]
    mask[0, 1] = False
    assert not enclosed(~mask).any()


def test_what_is_removed_from_inside_another_organ_is_filled_by_it() -> None:
    found = np.array([[1] * 5 + [2] * 2] * 5, np.int16)
    found[2, 2] = 2
    cleaned = apply_postprocessing(found, LABELS, {"liver": PostProcessing(fill_holes=True), "kidneys": LARGEST}, (1.0, 1.0))
    assert cleaned.tolist() == [[1] * 5 + [2] * 2] * 5


def test_regions_unknown_organs_and_wrong_spacings_are_refused(label_map: np.ndarray) -> None:
    for known, organ, spacing, message in (
        (REGIONS, "core", SPACING, "core.*regions"),
        (LABELS, "spleen", SPACING, "kidneys, liver.*spleen"),
        (LABELS, "liver", (1.0, 1.0), "spacing of 3"),
    ):
        with pytest.raises(ValueError, match=message):
            apply_postprocessing(label_map, known, {organ: LARGEST}, spacing)


def test_steps_in_words() -> None:
    steps = PostProcessing(min_volume_mm3=12.5, components=2, fill_holes=True)
    assert describe(steps) == "components below 12.5 mm³ removed, only the 2 largest components kept, holes filled"
    assert describe(PostProcessing(min_volume_mm3=12.5), dim=2) == "components below 12.5 mm² removed"
    assert describe(PostProcessing(min_volume_mm3=2500), dim=2) == "components below 25 cm² removed"
    assert describe(PostProcessing(min_volume_mm3=2500)) == "components below 2.5 ml removed"
    assert describe(LARGEST) == "only the largest component kept"


def test_what_a_user_asks_for_goes_before_what_was_chosen() -> None:
    two, kept = PostProcessing(components=2, why=ASKED), PostProcessing(min_volume_mm3=3)
    chosen = {"liver": kept, "kidneys": kept}
    largest = replace(LARGEST, why=ASKED)
    for words, expected in (
        (["largest"], {"liver": largest, "kidneys": largest}),
        (["kidneys=2"], {"liver": kept, "kidneys": two}),
        (["largest", "kidneys=2"], {"liver": largest, "kidneys": two}),
        (["none"], {}),
        (["none", "liver=largest"], {"liver": largest}),
        (["2", "liver=none"], {"kidneys": two}),
    ):
        assert forced(words, LABELS, chosen) == expected
    assert requested_steps(["liver=none"], LABELS.names) == {"liver": PostProcessing(why=ASKED)}
    assert forced(["none"], REGIONS, {}) == {}


@pytest.mark.parametrize(
    ("words", "labels", "message"),
    [
        (["biggest"], LABELS, "expected none, largest, or a number of components.*'biggest'"),
        (["liver=0"], LABELS, "expected none, largest"),
        (["livre=2"], LABELS, "Did you mean 'liver'"),
        (["largest", "none"], LABELS, "one word about all organs"),
        (["liver=2", "liver=3"], LABELS, "one word about liver"),
        (["largest"], REGIONS, "found regions"),
    ],
)
def test_words_that_say_nothing_are_refused(words: list[str], labels: Labels, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        forced(words, labels, {})
