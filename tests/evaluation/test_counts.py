"""Voxel counts, and the metrics that follow from them, small enough to count by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autoseg.evaluation import counts
from autoseg.evaluation.counts import ConfusionCounts, confusion, nan_mean, organ_counts


def test_metrics_of_known_counts():
    overlap = ConfusionCounts(true_positive=6, false_positive=2, false_negative=4)
    assert (overlap.n_prediction, overlap.n_reference) == (8, 10)
    found = [metric(overlap) for metric in (counts.dice, counts.iou, counts.sensitivity, counts.precision, counts.ravd)]
    assert found == pytest.approx([12 / 18, 6 / 12, 0.6, 0.75, 20])


@pytest.mark.parametrize(("alarm", "miss"), [(5, 0), (0, 5)])
def test_organ_that_one_side_lacks(alarm, miss):
    overlap = ConfusionCounts(0, alarm, miss)
    assert counts.dice(overlap) == counts.iou(overlap) == 0.0
    assert math.isnan((counts.sensitivity if alarm else counts.precision)(overlap))


def test_confusion_equals_counting_pairs_whatever_the_slabs(monkeypatch):
    rng = np.random.default_rng(0)
    reference, prediction = rng.integers(-1, 4, (2, 7, 5, 6)).astype(np.int16)
    expected = np.zeros((4, 4), int)
    for true, guess in zip(reference.ravel(), prediction.ravel(), strict=True):
        expected[max(true, 0), max(guess, 0)] += true != 3
    for slab in (1, 60, 10_000):
        monkeypatch.setattr(counts, "SLAB_VOXELS", slab)
        np.testing.assert_array_equal(confusion(prediction, reference, 4, ignore=3), expected)


def test_organ_overlap_agrees_with_masks():
    rng = np.random.default_rng(1)
    reference, prediction = rng.integers(0, 4, (2, 6, 5, 4))
    true, guess = np.isin(reference, (1, 3)), np.isin(prediction, (1, 3))
    expected = ConfusionCounts(int((true & guess).sum()), int((~true & guess).sum()), int((true & ~guess).sum()))
    assert organ_counts(confusion(prediction, reference, 4), (1, 3)) == expected


def test_mean_of_known():
    assert nan_mean([0.5, math.nan, 1.0]) == 0.75
    assert math.isnan(nan_mean([math.nan])) and math.isnan(nan_mean([]))
