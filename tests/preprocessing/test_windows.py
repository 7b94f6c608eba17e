"""Windows by organ, and configurations in other intensities than planned."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories import labels, make_configuration

from autoseg.data.ct_windows import WINDOWS, common_window, find_window, parse_windows
from autoseg.preprocessing.windows import with_normalization

CT = make_configuration(normalization=("ct",), mask_normalization=(False,))
CT_AND_PET = make_configuration(normalization=("ct", "zscore"), mask_normalization=(False, True))
LABELS = labels(liver=1, tumour=2)


def test_the_papers_windows() -> None:
    """Crespi et al. 2023, table I."""
    names = ("lung_left", "heart", "esophagus", "trachea", "spinal_cord")
    assert [find_window(name, {}) for name in names] == [(1500, -600), (350, 50), (300, 80), (1200, -440), (600, 0)]


def test_organs_are_known_by_the_words_of_their_names() -> None:
    names = {"lung": ("Lungs", "lungL"), "kidney": ("Right Kidney",), "spinal cord": ("SpinalCord", "spinalcord")}
    names |= {"rib": ("rib_left_3",), "cava": ("inferior vena cava",)}
    for known, organs in names.items():
        assert [find_window(organ, {}) for organ in organs] == [WINDOWS[known]] * len(organs)
    assert [find_window(organ, {}) for organ in ("tumour", "cord", "tribal", "lingual")] == [None] * 4
    assert find_window("liver", {"liver": (150.0, 30.0)}) == (150, 30), "the dataset's own goes before"


def test_a_model_has_one_window() -> None:
    assert common_window(("liver", "spleen"), {}) == WINDOWS["liver"]
    assert common_window(("liver", "tumour"), {"liver": (150.0, 30.0), "tumour": (150.0, 30.0)}) == (150, 30)
    with pytest.raises(ValueError, match=r"these differ \(liver 400/50, lung_left 1500/-600\)"):
        common_window(("liver", "lung_left"), {})
    with pytest.raises(ValueError, match=r'no window is known for tumour; give one in dataset.json \("windows": \{"tumour"'):
        common_window(("liver", "tumour"), {})


def test_windows_of_a_dataset_are_read() -> None:
    assert parse_windows({"windows": {"liver": [150, 30]}}, LABELS, Path("d.json")) == {"liver": (150.0, 30.0)}
    assert parse_windows({}, LABELS, Path("d.json")) == {}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ([400, 50], "d.json: windows: expected an object"),
        ({"livr": [400, 50]}, "d.json: windows: organ: expected one of liver, tumour, got 'livr'. Did you mean 'liver'"),
        ({"liver": 400}, "d.json: windows: liver: expected width and level"),
        ({"liver": [0, 50]}, "the width above 0"),
        ({"liver": [400, True]}, "expected width and level"),
        ({"liver": [400, float("nan")]}, "expected width and level"),
    ],
)
def test_wrong_windows_of_a_dataset_are_refused(entry: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_windows({"windows": entry}, LABELS, Path("d.json"))


@pytest.mark.parametrize(
    ("scheme", "word"),
    [("window:400:50", "w400_l50"), ("window:1500:-600", "w1500_l-600"), ("clip:-200:200", "clip_-200_200"), ("scale:2048", "scale_2048")],
)
def test_another_scheme_has_data_of_its_own(scheme: str, word: str) -> None:
    found, suffix = with_normalization(CT, (scheme,))
    assert (found.normalization, found.data, suffix) == ((scheme,), f"3d_fullres_{word}", word)


def test_only_channels_of_ct_get_a_window() -> None:
    found, word = with_normalization(CT_AND_PET, ("window:400:50",))
    assert (found.normalization, found.mask_normalization, word) == (("window:400:50", "zscore"), (False, True), "w400_l50")
    with pytest.raises(ValueError, match="expected a channel of CT, found normalisation zscore"):
        with_normalization(make_configuration(), ("window:400:50",))
    with pytest.raises(ValueError, match="clip:0:1: its numbers are Hounsfield units"):
        with_normalization(CT_AND_PET, ("ct", "clip:0:1"))


def test_one_scheme_for_all_or_one_a_channel() -> None:
    assert with_normalization(CT_AND_PET, ("zscore",))[0].normalization == ("zscore", "zscore")
    found, word = with_normalization(CT_AND_PET, ("scale:2048", "rescale_to_0_1"))
    assert (found.normalization, found.mask_normalization) == (("scale:2048", "rescale_to_0_1"), (False, False))
    assert word == "scale_2048+rescale_to_0_1"
    with pytest.raises(ValueError, match="one for each of 2 channels, got ct, ct, ct"):
        with_normalization(CT_AND_PET, ("ct", "ct", "ct"))
    assert with_normalization(CT, ("ct",)) == (CT, ""), "the planned scheme changes nothing"
