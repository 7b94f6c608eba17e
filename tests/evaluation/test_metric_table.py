"""The table of metrics: finding one, a user's own, and the order of its values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from factories import labels

from autoseg.evaluation.case_scores import score_case
from autoseg.evaluation.counts import ConfusionCounts
from autoseg.evaluation.masks import MaskPair
from autoseg.evaluation.metrics import METRICS, Metric, check_metrics, find_metric, has_value, higher_is_better_score, value_of
from autoseg.schema import Score

SCORE = Score("a", "liver", 0.5, 0.25, 3, 4, {"chaos": 70.0, "ravd": math.nan})


def volume_ratio(overlap: ConfusionCounts) -> float:
    return overlap.n_prediction / overlap.n_reference


def millimetres(pair: MaskPair) -> float:
    return float(sum(pair.spacing_mm))


of_masks = Metric(f"{__name__}:millimetres", needs="masks", better="lower", unit="mm")


def test_value_of_a_score():
    assert [value_of(SCORE, name) for name in ("dice", "iou", "chaos")] == [0.5, 0.25, 70.0]
    assert math.isnan(value_of(SCORE, "ravd")) and has_value(SCORE, "ravd") and not has_value(SCORE, "hd_border")
    with pytest.raises(ValueError, match="liver in case a: .*chaos, dice, iou, ravd, got 'hd_border'"):
        value_of(SCORE, "hd_border")


def test_order_follows_the_direction():
    assert higher_is_better_score(0.9, "dice") > higher_is_better_score(0.8, "dice")
    assert higher_is_better_score(3.0, "hd_border") > higher_is_better_score(4.0, "hd_border")
    errors = [higher_is_better_score(value, "volume_error") for value in (-1.0, 2.0, -3.0)]
    assert errors == sorted(errors, reverse=True) and len(set(errors)) == 3
    assert math.isnan(higher_is_better_score(math.nan, "dice"))
    np.testing.assert_array_equal(higher_is_better_score(np.array([1.0, 2.0]), "assd_surface"), [-1.0, -2.0])
    with pytest.raises(ValueError, match="metric volume"):
        higher_is_better_score(1.0, "volume")


def test_metric_of_the_users_own():
    assert find_metric(f"{__name__}:volume_ratio") == Metric(f"{__name__}:volume_ratio")
    assert find_metric(f"{__name__}:of_masks") is of_masks
    reference, prediction = np.array([[1, 1, 1, 0]]), np.array([[1, 1, 1, 1]])
    names = (f"{__name__}:volume_ratio", f"{__name__}:of_masks")
    (score,) = score_case("a", prediction, reference, labels(organ=1), metrics=names, spacing_mm=(1.0, 0.5))
    assert score.other == {names[0]: pytest.approx(4 / 3), names[1]: 1.5}


def test_metric_that_does_not_exist():
    check_metrics(METRICS)
    for name, message in (("hd_borders", "assd_border, .*Did you mean 'hd_border'"), ("no_such_module:metric", "cannot be imported")):
        with pytest.raises(ValueError, match=message):
            check_metrics([name])
