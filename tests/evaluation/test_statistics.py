"""Tests, corrections and intervals, against counting by hand and scipy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import rankdata, ttest_rel
from scipy.stats import wilcoxon as scipy_wilcoxon

from autoseg.evaluation.statistics import bootstrap_interval, bootstrap_intervals, holm, paired_t, per_group, wilcoxon


def counted(differences):
    """All signs, one by one."""
    ranks = rankdata(np.abs(differences))
    sums = np.abs(np.array(list(itertools.product((-1, 1), repeat=len(ranks)))) @ ranks)
    return np.mean(sums >= abs(ranks @ np.sign(differences)) - 1e-9)


FIVE = [0.1, 0.2, 0.3, 0.4, 0.5]


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([*FIVE, 0.6], 2 / 64),
        ([*FIVE, -0.6], 28 / 64),
        (FIVE, math.nan),
        ([*FIVE, 0.6, 0.0, math.nan, 1e-13], 2 / 64),
        ([*FIVE, 0.0, 0.0, math.nan], math.nan),
        ([], math.nan),
    ],
)
def test_six_pairs_that_differ_are_the_fewest_that_can_be_significant(differences, expected):
    assert wilcoxon(differences) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("n", [6, 9, 30, 50, 51, 80])
def test_wilcoxon_is_scipys_where_no_ranks_are_shared(n):
    differences = np.random.default_rng(n).normal(0.2, 1, n)
    method = "exact" if n <= 50 else "approx"
    assert wilcoxon(differences) == pytest.approx(scipy_wilcoxon(differences, method=method).pvalue, rel=1e-9)
    assert wilcoxon(-differences) == pytest.approx(wilcoxon(differences), rel=1e-9)


def test_wilcoxon_with_shared_ranks_is_that_of_counting_all_signs():
    for seed in range(20):
        differences = np.random.default_rng(seed).integers(-3, 5, 10) / 10
        differences = differences[differences != 0]
        if len(differences) >= 6:
            assert wilcoxon(differences) == pytest.approx(counted(differences))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([0.02, math.nan, 0.01]) == pytest.approx([0.02, math.nan, 0.02], nan_ok=True)
    assert holm([]).shape == (0,)


def interval(values, seed=1, **options):
    return bootstrap_interval(values, rng=np.random.default_rng(seed), **options)


def test_the_interval_is_that_of_the_binomial():
    """Of 40 zeros and ones, half each, the mean of a draw is binomial: 95 % lie within 14..26 of 40."""
    low, high = interval([0.0, 1.0] * 20, 0, n=20000)
    assert (low, high) == pytest.approx((0.35, 0.65), abs=0.026)
    narrow = interval([0.0, 1.0] * 20, 0, n=20000, level=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    samples = rng.normal(5, 2, (40, 300))
    low, high = bootstrap_intervals(samples, rng=rng)
    assert 0.9 < np.mean((low <= 5) & (high >= 5)) < 0.98


def test_the_same_generator_gives_the_same_interval_and_nan_is_left_out():
    values = np.random.default_rng(0).normal(size=30)
    one = interval(values)
    assert one == interval(values) == interval([math.nan, *values, math.nan])
    assert one != interval(values, seed=2)
    assert all(math.isnan(end) for end in (*interval([0.5, math.nan]), *interval([])))


def test_cases_of_a_patient_are_drawn_together():
    """Four copies of each case say no more than the case: the interval is that of the cases, not half as wide."""
    values = np.random.default_rng(0).normal(size=30)
    copies, patients = np.repeat(values, 4), np.repeat(np.arange(30), 4).tolist()
    alone, together, apart = (np.subtract(*one) for one in (interval(values), interval(copies, groups=patients), interval(copies)))
    assert together == pytest.approx(alone)
    assert apart == pytest.approx(alone / 2, rel=0.1)
    assert all(math.isnan(end) for end in interval([0.1, 0.2], groups=["p", "p"]))
    with pytest.raises(ValueError, match="a case, 2, got 1"):
        interval([0.1, 0.2], groups=["p"])


def test_one_number_a_patient():
    assert per_group([0.2, 0.4, 0.9, math.nan], ["p", "p", "q", "q"]) == pytest.approx([0.3, 0.9])
    assert per_group([0.2, math.nan], ["p", "q"]) == pytest.approx([0.2, math.nan], nan_ok=True)
    assert per_group([0.2, 0.4], None) == pytest.approx([0.2, 0.4])


def test_paired_t_test():
    first, second = np.random.default_rng(0).normal(0.5, 0.1, (2, 9))
    assert paired_t(second - first) == pytest.approx(ttest_rel(second, first).pvalue)
    assert paired_t([*(second - first), math.nan]) == paired_t(second - first)
    for few in ([0.3], [], [0.0, 0.0, 0.0], [0.1, 0.1, 0.1 + 1e-13]):
        assert math.isnan(paired_t(few))
