"""What every metric must satisfy; a new line in the table is tested without a new line here."""

from __future__ import annotations

import math

import numpy as np
import pytest
from factories import labels

from autoseg.evaluation.case_scores import score_case
from autoseg.evaluation.counts import ConfusionCounts
from autoseg.evaluation.masks import MaskPair
from autoseg.evaluation.metrics import METRICS, find_metric, higher_is_better_score, metric_function, value_of

ONE = labels(organ=1)
VALUES = {
    "spacing": [(2.0, 1.0, 0.5), (1.5, 0.5)],
    "name": sorted(METRICS),
    "judging": sorted(name for name, metric in METRICS.items() if metric.better),
    "share": sorted(name for name, metric in METRICS.items() if metric.needs == "overlap" and metric.better == "higher"),
}
"""What a check of that argument is called with: images in 3D and 2D, all metrics, those that rank, those that are a share of voxels."""
LOPSIDED = {"sensitivity", "precision", "ravd", "chaos", "lesion_recall", "lesion_precision", "lesion_false_positives"}
"""Metrics that ask something else of the prediction than of the reference."""


def block(spacing, start, size=4):
    """A block of `size` voxels a side in an image of 20, at `start` along the last axis."""
    mask = np.zeros((20,) * len(spacing), bool)
    mask[(slice(8, 8 + size),) * (len(spacing) - 1) + (slice(start, start + size),)] = True
    return mask


def compute(name, reference, prediction, spacing):
    pair = MaskPair.crop(reference, prediction, spacing)
    metric = find_metric(name)
    return metric_function(metric)(pair if metric.needs == "masks" else pair.overlap)


def pytest_generate_tests(metafunc):
    for argument in (name for name in VALUES if name in metafunc.fixturenames):
        metafunc.parametrize(argument, VALUES[argument], ids=str)


def test_share_is_one_for_agreement_and_zero_for_none(share):
    share = metric_function(find_metric(share))
    assert share(ConfusionCounts(7, 0, 0)) == 1.0
    assert share(ConfusionCounts(0, 3, 5)) == 0.0
    assert math.isnan(share(ConfusionCounts(0, 0, 0)))


def test_share_stays_between_zero_and_one(share):
    share, rng = metric_function(find_metric(share)), np.random.default_rng(0)
    for counts in rng.integers(1, 10**12, (100, 3)):
        value = share(ConfusionCounts(*map(int, counts)))
        assert isinstance(value, float) and 0.0 < value < 1.0


def test_share_never_falls_with_more_agreement(share):
    share = metric_function(find_metric(share))
    values = [share(ConfusionCounts(agreed, 10 - agreed, 10 - agreed)) for agreed in range(11)]
    assert values == sorted(values) and values[0] < values[-1]


def test_says_what_it_needs_and_which_direction_is_better(name):
    assert METRICS[name].needs in ("overlap", "masks")
    assert METRICS[name].better in ("higher", "lower", "zero", "")
    assert METRICS[name].title


def test_says_in_its_docstring_what_nan_means(name):
    assert "NaN" in (metric_function(find_metric(name)).__doc__ or "")


def test_perfect_agreement_is_the_best_value(judging, spacing):
    mask = block(spacing, 5)
    best = compute(judging, mask, mask, spacing)
    assert best == {"chaos": 100.0}.get(judging, 1.0 if METRICS[judging].better == "higher" else 0.0)


def test_moving_away_is_never_better(judging, spacing):
    values = [compute(judging, block(spacing, 3), block(spacing, 3 + shift), spacing) for shift in range(12)]
    known = [higher_is_better_score(value, judging) for value in values if not math.isnan(value)]
    assert known == sorted(known, reverse=True)


def test_smaller_and_larger_masks_are_not_better_than_the_right_one(judging, spacing):
    right = compute(judging, block(spacing, 5), block(spacing, 5), spacing)
    for size in (2, 3, 6):
        wrong = compute(judging, block(spacing, 5), block(spacing, 5, size), spacing)
        assert higher_is_better_score(wrong, judging) <= higher_is_better_score(right, judging)


def test_is_symmetric_where_both_masks_mean_the_same(judging, spacing):
    one, other = block(spacing, 4), block(spacing, 6, 5)
    there, back = compute(judging, one, other, spacing), compute(judging, other, one, spacing)
    if METRICS[judging].better == "zero":
        assert there == pytest.approx(-back) and there != 0
    elif judging not in LOPSIDED:
        assert there == pytest.approx(back, rel=1e-12)


def test_absent_from_both_is_nan(name, spacing):
    nothing = np.zeros_like(block(spacing, 4))
    value = compute(name, nothing, nothing, spacing)
    assert value == 0.0 if name == "lesion_false_positives" else math.isnan(value)


def test_absent_from_one_is_the_worst_value_or_none(judging, spacing):
    something, diagonal = block(spacing, 4), math.hypot(*(20 * length for length in spacing))
    worst = {"mm": diagonal, "%": 100.0}.get(METRICS[judging].unit, 0.0)
    ratios = {"sensitivity", "precision", "lesion_recall", "lesion_precision", "lesion_dice"}
    for pair in ((something, something & False), (something & False, something)):
        value = compute(judging, *pair, spacing)
        if judging in ratios:
            assert value == 0.0 or math.isnan(value)
        elif judging == "lesion_false_positives":
            assert value == float(pair[1].any())
        elif judging == "volume_error":
            assert abs(value) == pytest.approx(something.sum() * math.prod(spacing) / 1000)
        else:
            assert value == pytest.approx(worst)


def test_is_reported_for_a_case(name, spacing):
    reference, prediction = block(spacing, 4).astype(np.int16), block(spacing, 6, 5).astype(np.int16)
    (score,) = score_case("a", prediction, reference, ONE, metrics=(name,), spacing_mm=spacing)
    assert value_of(score, name) == compute(name, reference > 0, prediction > 0, spacing)
