"""Counts and scores on label maps small enough to count by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autoseg.conventions import OUTSIDE
from autoseg.evaluation import counts as overlap
from autoseg.evaluation.overlap import Overlap, confusion, mean_of_known, organ_overlap, score_case
from autoseg.model import Labels

TWO = Labels(("liver", "spleen"), ((4,), (9,)))
WITH_IGNORE = Labels(("liver", "spleen"), ((4,), (9,)), ignore=10)
REGIONS = Labels(("kidney", "tumour"), ((1, 2), (2,)), regions=True, paint=(1, 2))


def by_organ(scores):
    return {score.organ: score for score in scores}


def test_metrics_of_known_counts():
    counts = Overlap(true_positive=6, false_positive=2, false_negative=4)
    assert (counts.n_prediction, counts.n_reference) == (8, 10)
    assert overlap.dice(counts) == pytest.approx(12 / 18)
    assert overlap.iou(counts) == pytest.approx(6 / 12)
    assert overlap.sensitivity(counts) == pytest.approx(0.6)
    assert overlap.precision(counts) == pytest.approx(0.75)


@pytest.mark.parametrize(("counts", "expected"), [(Overlap(0, 0, 5), 0.0), (Overlap(0, 5, 0), 0.0), (Overlap(0, 0, 0), math.nan)])
def test_organ_that_one_or_both_sides_lack(counts, expected):
    assert overlap.dice(counts) == pytest.approx(expected, nan_ok=True)
    assert overlap.iou(counts) == pytest.approx(expected, nan_ok=True)


def test_rates_without_a_denominator_are_nan():
    assert math.isnan(overlap.sensitivity(Overlap(0, 5, 0)))
    assert math.isnan(overlap.precision(Overlap(0, 0, 5)))


def test_score_case_counts_two_cubes():
    reference, prediction = np.zeros((2, 6, 8, 8), np.int16)
    reference[1:5, 1:5, 1:5] = 1
    prediction[2:6, 1:5, 1:5] = 1
    scores = by_organ(score_case("a", prediction, reference, TWO))
    assert scores["liver"].dice == pytest.approx(0.75)
    assert scores["liver"].iou == pytest.approx(48 / 80)
    assert (scores["liver"].n_prediction, scores["liver"].n_reference) == (64, 64)
    assert scores["liver"].other == {"sensitivity": pytest.approx(0.75), "precision": pytest.approx(0.75), "ravd": 0.0}
    assert math.isnan(scores["spleen"].dice)
    assert list(scores) == ["liver", "spleen"]


def test_ignored_voxels_count_on_neither_side():
    reference = np.array([[1, 1, 0, 3, 3, 3]], np.int16)
    prediction = np.array([[1, 0, 0, 1, 2, 0]], np.int16)
    scores = by_organ(score_case("a", prediction, reference, WITH_IGNORE))
    assert (scores["liver"].n_prediction, scores["liver"].n_reference) == (1, 2)
    assert scores["liver"].dice == pytest.approx(2 / 3)
    assert math.isnan(scores["spleen"].dice)
    assert score_case("a", prediction, reference, WITH_IGNORE, ignore=3) == score_case("a", prediction, reference, TWO, ignore=3)


def test_regions_are_unions_of_their_members():
    reference = np.array([1, 1, 2, 2, 0, 0], np.int16)
    prediction = np.array([1, 2, 2, 1, 1, 0], np.int16)
    scores = by_organ(score_case("a", prediction, reference, REGIONS))
    assert scores["kidney"].dice == pytest.approx(8 / 9)
    assert scores["tumour"].dice == pytest.approx(0.5)


def test_outside_is_background():
    reference = np.array([OUTSIDE, OUTSIDE, 1, 0], np.int16)
    prediction = np.array([0, 1, 1, OUTSIDE], np.int16)
    (liver, _) = score_case("a", prediction, reference, TWO)
    assert (liver.n_prediction, liver.n_reference) == (2, 1)


def test_confusion_equals_counting_pairs_whatever_the_slabs(monkeypatch):
    rng = np.random.default_rng(0)
    reference, prediction = rng.integers(-1, 4, (2, 7, 5, 6)).astype(np.int16)
    expected = np.zeros((4, 4), int)
    for true, guess in zip(reference.ravel(), prediction.ravel(), strict=True):
        expected[max(true, 0), max(guess, 0)] += true != 3
    for slab in (1, 60, 10_000):
        monkeypatch.setattr(overlap, "SLAB_VOXELS", slab)
        np.testing.assert_array_equal(confusion(prediction, reference, 4, ignore=3), expected)


def test_organ_overlap_agrees_with_masks():
    rng = np.random.default_rng(1)
    reference, prediction = rng.integers(0, 4, (2, 6, 5, 4))
    true, guess = np.isin(reference, (1, 3)), np.isin(prediction, (1, 3))
    expected = Overlap(int((true & guess).sum()), int((~true & guess).sum()), int((true & ~guess).sum()))
    assert organ_overlap(confusion(prediction, reference, 4), (1, 3)) == expected


def test_big_unsigned_values_are_not_wrapped():
    reference = np.array([200, 0, 200], np.uint8)
    labels = Labels(tuple(f"organ {i}" for i in range(1, 201)), tuple((i,) for i in range(1, 201)))
    assert score_case("a", reference, reference, labels)[-1].dice == 1.0


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (np.zeros((3, 4), np.int16), r"case a: the prediction has shape \(3, 4\), the reference \(3, 5\)"),
        (np.zeros((3, 5), np.float32), "case a: the prediction has type float32, expected integers"),
        (np.full((3, 5), 7, np.int16), "case a: the prediction holds the internal value 7, expected at most 2"),
    ],
)
def test_maps_that_do_not_fit_are_refused(prediction, message):
    with pytest.raises(ValueError, match=message):
        score_case("a", prediction, np.zeros((3, 5), np.int16), TWO)


def test_unknown_metric_is_answered_with_the_valid_ones():
    nothing = np.zeros((2, 2), np.int16)
    with pytest.raises(ValueError, match="expected one of .*dice, .*sensitivity, .*got 'sensitivty'.*'sensitivity'"):
        score_case("a", nothing, nothing, TWO, metrics=("sensitivty",))


def test_mean_of_known():
    assert mean_of_known([0.5, math.nan, 1.0]) == 0.75
    assert math.isnan(mean_of_known([math.nan]))
    assert math.isnan(mean_of_known([]))
