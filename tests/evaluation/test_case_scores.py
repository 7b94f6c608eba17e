"""Scores of label maps small enough to count by hand."""

from __future__ import annotations

import math

import factories
import numpy as np
import pytest

from autoseg.evaluation.case_scores import score_case
from autoseg.evaluation.masks import MaskPair
from autoseg.evaluation.metrics import DEFAULT_METRICS, find_metric, metric_function
from autoseg.schema import Labels
from autoseg.schema.conventions import OUTSIDE

TWO = factories.labels(liver=4, spleen=9)
WITH_IGNORE = factories.labels(liver=4, spleen=9, ignore=10)
REGIONS = factories.regions(kidney=(1, 2), tumour=(2,))


def by_organ(prediction, reference, labels=TWO, **options):
    return {score.organ: score for score in score_case("a", prediction, reference, labels, **options)}


def test_score_case_counts_two_cubes():
    reference, prediction = np.zeros((2, 6, 8, 8), np.int16)
    reference[1:5, 1:5, 1:5] = 1
    prediction[2:6, 1:5, 1:5] = 1
    liver, spleen = score_case("a", prediction, reference, TWO)
    others = {"sensitivity": pytest.approx(0.75), "precision": pytest.approx(0.75), "ravd": 0.0}
    assert (liver.case, liver.organ, liver.n_prediction, liver.n_reference, liver.other) == ("a", "liver", 64, 64, others)
    assert (liver.dice, liver.iou) == (pytest.approx(0.75), pytest.approx(48 / 80))
    assert spleen.organ == "spleen" and math.isnan(spleen.dice)


def test_ignored_voxels_count_on_neither_side():
    reference = np.array([[1, 1, 0, 3, 3, 3]], np.int16)
    prediction = np.array([[1, 0, 0, 1, 2, 0]], np.int16)
    liver, spleen = score_case("a", prediction, reference, WITH_IGNORE)
    assert (liver.n_prediction, liver.n_reference, liver.dice) == (1, 2, pytest.approx(2 / 3))
    assert math.isnan(spleen.dice)
    assert score_case("a", prediction, reference, WITH_IGNORE, ignore=3) == score_case("a", prediction, reference, TWO, ignore=3)


def test_regions_are_unions_of_their_members():
    reference = np.array([1, 1, 2, 2, 0, 0], np.int16)
    prediction = np.array([1, 2, 2, 1, 1, 0], np.int16)
    assert [score.dice for score in score_case("a", prediction, reference, REGIONS)] == [pytest.approx(8 / 9), pytest.approx(0.5)]


def test_outside_is_background():
    reference = np.array([OUTSIDE, OUTSIDE, 1, 0], np.int16)
    prediction = np.array([0, 1, 1, OUTSIDE], np.int16)
    (liver, _) = score_case("a", prediction, reference, TWO)
    assert (liver.n_prediction, liver.n_reference) == (2, 1)


def test_big_unsigned_values_are_not_wrapped():
    reference = np.array([200, 0, 200], np.uint8)
    labels = Labels(tuple(f"organ {i}" for i in range(1, 201)), tuple((i,) for i in range(1, 201)))
    assert score_case("a", reference, reference, labels)[-1].dice == 1.0


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (np.zeros((3, 4), np.int16), r"case a: .*\(3, 4\).*\(3, 5\)"),
        (np.zeros((3, 5), np.float32), "case a: .*float32"),
        (np.full((3, 5), 7, np.int16), "case a: .*7, expected at most 2"),
    ],
)
def test_maps_that_do_not_fit_are_refused(prediction, message):
    with pytest.raises(ValueError, match=message):
        score_case("a", prediction, np.zeros((3, 5), np.int16), TWO)


def two_organs():
    """Reference and prediction of two organs in an image of 6 x 12 x 12, the second at its border."""
    reference, prediction = np.zeros((2, 6, 12, 12), np.int16)
    reference[1:5, 2:6, 2:6], prediction[1:5, 3:7, 2:6] = 1, 1
    reference[:2, 8:, 8:], prediction[:3, 8:, 8:] = 2, 2
    return prediction, reference


def test_organs_are_measured_on_their_own_masks():
    prediction, reference = two_organs()
    metrics = ("hd_border", "assd_surface", "chaos", "lesion_f1", "volume_error")
    scores = by_organ(prediction, reference, metrics=metrics, spacing_mm=(3.0, 1.0, 1.0))
    for index, organ in enumerate(TWO.names, 1):
        pair = MaskPair.crop(reference == index, prediction == index, (3.0, 1.0, 1.0))
        assert scores[organ].other == {name: metric_function(find_metric(name))(pair) for name in metrics}
    assert scores["liver"].other["hd_border"] == 1.0 and scores["spleen"].other["hd_border"] == 3.0


def test_region_is_measured_as_a_whole():
    reference = np.zeros((10, 10), np.int16)
    reference[2:6, 2:6], reference[3:5, 3:5] = 1, 2
    prediction = np.where(reference == 2, 1, reference)
    scores = score_case("a", prediction, reference, REGIONS, metrics=("hd_surface",), spacing_mm=(1.0, 1.0))
    assert [score.other["hd_surface"] for score in scores] == [0.0, pytest.approx(math.hypot(10, 10))]


def test_prediction_in_ignored_voxels_is_not_measured():
    reference = np.zeros((12, 12), np.int16)
    reference[2:5, 2:5], reference[8:] = 1, 3
    prediction = np.where(reference == 1, 1, 0)
    prediction[9:11, 9:11] = 1
    options = {"metrics": ("hd_border",), "spacing_mm": (1.0, 1.0)}
    assert by_organ(prediction, reference, WITH_IGNORE, **options)["liver"].other["hd_border"] == 0.0
    assert by_organ(prediction, np.where(reference == 3, 0, reference), WITH_IGNORE, **options)["liver"].other["hd_border"] > 5


def test_organ_that_nobody_annotated_has_no_score():
    assert list(by_organ(*two_organs(), organs=("spleen",), spacing_mm=(1.0,) * 3)) == ["spleen"]


def test_tolerance_of_each_organ():
    options = {"metrics": ("nsd_border",), "spacing_mm": (3.0, 1.0, 1.0)}
    strict, mixed = (by_organ(*two_organs(), tolerance_mm=tolerance, **options) for tolerance in (0.5, {"spleen": 3.0, "": 0.5}))
    assert mixed["liver"] == strict["liver"] and strict["spleen"].other["nsd_border"] < mixed["spleen"].other["nsd_border"] == 1.0


def test_spacing_may_be_an_array():
    assert by_organ(*two_organs(), spacing_mm=np.array([3.0, 1.0, 1.0])) == by_organ(*two_organs(), spacing_mm=(3.0, 1.0, 1.0))


def test_metrics_of_masks_need_a_spacing():
    assert list(by_organ(*two_organs())["liver"].other) == ["sensitivity", "precision", "ravd"]
    assert list(by_organ(*two_organs(), spacing_mm=(1.0,) * 3)["liver"].other) == list(DEFAULT_METRICS[2:])
    with pytest.raises(ValueError, match="case a: chaos .* without the spacing"):
        by_organ(*two_organs(), metrics=("ravd", "chaos"))
    with pytest.raises(ValueError, match=r"case a: .*\(6, 12, 12\), found \(1.0, 1.0\)"):
        by_organ(*two_organs(), spacing_mm=(1.0, 1.0))
