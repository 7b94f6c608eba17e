"""What every metric must satisfy; a new line in the table is tested without a new line here."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autoseg.evaluation.metrics import METRICS, find_metric, function_of
from autoseg.evaluation.overlap import Overlap, score_case
from autoseg.model import Labels

ONE = Labels(("organ",), ((1,),))


SHARES = sorted(name for name, metric in METRICS.items() if metric.needs == "overlap" and metric.better == "higher")


@pytest.fixture(params=SHARES)
def metric(request):
    return function_of(find_metric(request.param))


def test_perfect_agreement_is_one(metric):
    assert metric(Overlap(7, 0, 0)) == 1.0


def test_no_agreement_is_zero(metric):
    assert metric(Overlap(0, 3, 5)) == 0.0


def test_absent_from_both_is_nan(metric):
    assert math.isnan(metric(Overlap(0, 0, 0)))


def test_stays_between_zero_and_one(metric):
    rng = np.random.default_rng(0)
    for counts in rng.integers(1, 10**12, (100, 3)):
        value = metric(Overlap(*map(int, counts)))
        assert isinstance(value, float) and 0.0 < value < 1.0


def test_more_agreement_is_never_worse(metric):
    values = [metric(Overlap(agreed, 10 - agreed, 10 - agreed)) for agreed in range(11)]
    assert values == sorted(values) and values[0] < values[-1]


def test_says_in_its_docstring_what_nan_means(metric):
    assert "NaN" in (metric.__doc__ or "")


@pytest.mark.parametrize("name", SHARES)
def test_is_reported_for_a_case(name):
    reference, prediction = np.array([[1, 1, 0, 0]]), np.array([[1, 0, 1, 0]])
    (score,) = score_case("a", prediction, reference, ONE)
    values = {"dice": score.dice, "iou": score.iou, **score.other}
    assert values[name] == function_of(find_metric(name))(Overlap(1, 1, 1))
