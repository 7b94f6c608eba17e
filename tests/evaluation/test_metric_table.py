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
LABELS = labels(organ=1)


def volume_ratio(overlap: ConfusionCounts) -> float:
    """A user's own metric."""
    return overlap.n_prediction / overlap.n_reference


def millimetres(pair: MaskPair) -> float:
    """A user's own metric of masks."""
    return float(sum(pair.spacing_mm))


of_masks = Metric(f"{__name__}:millimetres", needs="masks", better="lower", unit="mm")


def test_value_of_a_score():
    assert [value_of(SCORE, name) for name in ("dice", "iou", "chaos")] == [0.5, 0.25, 70.0]
    assert math.isnan(value_of(SCORE, "ravd")) and has_value(SCORE, "ravd") and not has_value(SCORE, "hd_border")
    with pytest.raises(ValueError, match="metric of liver in case a: expected one of chaos, dice, iou, ravd, got 'hd_border'"):
        value_of(SCORE, "hd_border")


def test_order_follows_the_direction():
    assert higher_is_better_score(0.9, "dice") > higher_is_better_score(0.8, "dice")
    assert higher_is_better_score(3.0, "hd_border") > higher_is_better_score(4.0, "hd_border")
    assert (
        higher_is_better_score(-1.0, "volume_error")
        > higher_is_better_score(2.0, "volume_error")
        > higher_is_better_score(-3.0, "volume_error")
    )
    assert math.isnan(higher_is_better_score(math.nan, "dice"))
    np.testing.assert_array_equal(higher_is_better_score(np.array([1.0, 2.0]), "assd_surface"), [-1.0, -2.0])
    with pytest.raises(ValueError, match="metric volume"):
        higher_is_better_score(1.0, "volume")


def test_metric_of_the_users_own():
    assert find_metric(f"{__name__}:volume_ratio") == Metric(f"{__name__}:volume_ratio")
    assert find_metric(f"{__name__}:of_masks") is of_masks
    reference, prediction = np.array([[1, 1, 1, 0]]), np.array([[1, 1, 1, 1]])
    names = (f"{__name__}:volume_ratio", f"{__name__}:of_masks")
    (score,) = score_case("a", prediction, reference, LABELS, metrics=names, spacing_mm=(1.0, 0.5))
    assert score.other == {names[0]: pytest.approx(4 / 3), names[1]: 1.5}


def test_metric_that_does_not_exist():
    check_metrics(METRICS)
    with pytest.raises(ValueError, match="expected one of assd_border, .*Did you mean 'hd_border'"):
        check_metrics(["hd_borders"])
    with pytest.raises(ValueError, match="cannot be imported"):
        check_metrics(["no_such_module:metric"])
