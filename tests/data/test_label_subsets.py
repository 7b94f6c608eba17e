"""Some organs of a dataset as labels of their own, and the way between their values and the dataset's."""

from __future__ import annotations

import numpy as np
import pytest
from factories import labels, regions

from autoseg.data.label_subsets import (
    label_conflict,
    labels_as_in,
    organ_indices,
    organs_tag,
    subset_labels,
    translate_labels,
    translation_table,
)
from autoseg.data.labels import to_file_values, to_internal_values
from autoseg.schema import Labels
from autoseg.schema.conventions import OUTSIDE

ORGANS = labels(liver=6, spleen=1, kidney_left=2, kidney_right=3, ignore=9)
"""Internal values: spleen 1, kidneys 2 and 3, liver 4, ignore 5."""

REGIONS = regions(whole=(1, 2, 4), core=(1, 4), enhancing=(4,), order=(2, 1, 4))


def test_a_subset_keeps_order_values_and_ignore() -> None:
    found = subset_labels(ORGANS, ("kidney_right", "liver", "liver"))
    assert found == labels(liver=6, kidney_right=3, ignore=9)
    assert (found.base_values, found.internal_ignore, found.n_outputs) == ((3, 6), 3, 3)
    assert subset_labels(ORGANS, ORGANS.names[::-1]) is ORGANS


def test_regions_stay_regions_with_their_paint() -> None:
    assert subset_labels(REGIONS, ("whole", "enhancing")) == regions(whole=(1, 2, 4), enhancing=(4,), order=(2, 4))
    odd = regions(whole=(1, 2), core=(2,), order=(1, 1))
    assert subset_labels(odd, ("core",)).regions_class_order == (2,), "its own value where the painted one belongs to regions that are gone"


@pytest.mark.parametrize(
    ("organs", "message"), [(("livr",), "Did you mean 'liver'"), ((), "expected at least one of liver, spleen"), (("",), "got ''")]
)
def test_wrong_organs_are_refused(organs: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        subset_labels(ORGANS, organs)


def test_translation_to_a_subset_and_back() -> None:
    few = subset_labels(ORGANS, ("liver", "spleen"))
    assert translation_table(ORGANS, few).tolist() == [0, 1, 0, 0, 2, 3, OUTSIDE]
    assert translation_table(few, ORGANS).tolist() == [0, 1, 4, 5, OUTSIDE]
    assert organ_indices(ORGANS, subset_labels(ORGANS, ("kidney_right", "spleen"))) == (1, 3), "positions of the stored locations"
    core = subset_labels(REGIONS, ("core",))
    assert translation_table(REGIONS, core).tolist() == [0, 1, 0, 2, OUTSIDE]
    assert translation_table(core, REGIONS).tolist() == [0, 1, 3, OUTSIDE]


@pytest.mark.parametrize("organs", [("liver",), ("kidney_left", "spleen"), ORGANS.names])
def test_a_map_keeps_its_file_values_on_the_way(organs: tuple[str, ...]) -> None:
    few = subset_labels(ORGANS, organs)
    file = np.random.default_rng(0).choice([0, 1, 2, 3, 6, 9], (5, 6, 7)).astype(np.uint8)
    stored = to_internal_values(file, ORGANS, source="test")
    stored[0, 0] = OUTSIDE
    found = translate_labels(stored, ORGANS, few)
    assert found.dtype == np.int16
    assert np.all(found[0, 0] == OUTSIDE)
    wanted = {value for member in few.members for value in member} | {9}
    expected = np.where(np.isin(file, list(wanted)), file, 0)
    expected[0, 0] = 0
    np.testing.assert_array_equal(to_file_values(found, few), expected)
    np.testing.assert_array_equal(to_file_values(translate_labels(found, few, ORGANS), ORGANS), expected)
    assert translate_labels(found, few, few) is found, "the same labels cost nothing"


@pytest.mark.parametrize(
    ("names", "word"),
    [
        (("liver",), "liver"),
        (("kidney_left", "kidney_right"), "kidney_left+kidney_right"),
        (("a", "b", "c"), "a+b+c"),
        (("a", "b", "c", "d"), "a+b+2more_b54856"),
        (("a", "b", "c", "e"), "a+b+2more_c79738"),
        (("Left Kidney/upper", "__x__"), "Left_Kidney_upper+x"),
        (("Größe", "???"), "Größe+organ"),
    ],
)
def test_words_are_safe_in_file_names(names: tuple[str, ...], word: str) -> None:
    assert organs_tag(Labels(names, tuple((i + 1,) for i in range(len(names))))) == word
    assert "__" not in word


def test_organs_whose_names_read_alike_have_words_of_their_own() -> None:
    alike = ("tumour/core", "tumour core", "Tumour core", "edema", "tumour_core+edema")
    sets = [(name,) for name in alike] + [("tumour/core", "edema"), ("tumour core", "edema"), ("tumour/core", "tumour core")]
    words = [organs_tag(Labels(names, tuple((i + 1,) for i in range(len(names)))), alike) for names in sets]
    assert len({word.casefold() for word in words}) == len(sets), words
    assert words[3] == "edema", "what cannot be mistaken stays as it was"
    long = [Labels((f"{'x' * 300}{end}",), ((1,),)) for end in "ab"]
    assert organs_tag(long[0]) != organs_tag(long[1])
    assert len(organs_tag(long[0]).encode()) <= 100


def test_values_travel_by_name() -> None:
    now = labels(spleen=4, liver=2, pancreas=3, ignore=8)
    assert translation_table(ORGANS, now).tolist() == [0, 3, 0, 0, 1, 4, OUTSIDE], "kidneys are no organs there; the ignore label stays"
    found = labels_as_in(labels(kidney=3, liver=1, spleen=2), now)
    assert found == labels(spleen=4, liver=2, kidney=9, ignore=8), "in the present order; what is unknown comes last, with a free value"
    assert labels_as_in(ORGANS, ORGANS) == ORGANS
    assert "expected one of the organs lung, found liver" in label_conflict(ORGANS, labels(lung=1))


def test_regions_travel_by_what_they_share() -> None:
    now = regions(other=(9,), whole=(5, 7), core=(5,), order=(9, 7, 5))
    then = regions(whole=(1, 2), core=(2,), other=(3,), order=(1, 2, 3))
    assert translation_table(then, now).tolist() == [0, 2, 1, 3, OUTSIDE]
    assert labels_as_in(then, now) == now
    assert translation_table(REGIONS, regions(whole=(3, 4, 5), order=(5,))).tolist() == [0, 1, 3, 2, OUTSIDE], "the paint becomes the paint"
    then = regions(whole=(1, 2), core=(2,), order=(1, 2))
    for other in (regions(whole=(1,), core=(2,)), regions(whole=(1, 2, 3), core=(2,)), labels(whole=1, core=2)):
        assert "the regions are made of other labels" in label_conflict(then, other)


def test_regions_that_are_gone_hide_no_others() -> None:
    then = regions(whole=(1, 2, 3), core=(2, 3), enhancing=(3,), order=(1, 2, 3))
    now = regions(core=(2, 3), enhancing=(3,), order=(2, 3))
    assert labels_as_in(then, now) == now, "an outer region would be painted over those inside of it"
    assert labels_as_in(then, regions(whole=(4, 5, 6), new=(7,), order=(4, 7))) == regions(whole=(4, 5, 6), order=(4,))


def test_regions_are_painted_so_that_each_stays() -> None:
    then = regions(core=(2,), whole=(1, 2), same=(2,), order=(2, 1, 2))
    now = regions(core=(2,), whole=(1, 2), new=(2,), order=(2, 1, 2))
    assert labels_as_in(then, now) == regions(whole=(1, 2), core=(2,), order=(1, 2)), "nothing is painted over the core any more"
    crossing = regions(left=(1, 2), front=(2, 3), both=(2,), order=(1, 3, 2))
    others = regions(left=(1, 2), front=(2, 3), new=(2,), order=(1, 3, 2))
    assert "regions left, front cannot be painted" in label_conflict(crossing, others)
