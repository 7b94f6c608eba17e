"""The evidence of a choice: tests and intervals beside the chosen one, and the nested estimate, on tables with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from selection_factories import comparison

from autoseg.evaluation.statistics import holm, wilcoxon
from autoseg.schema import Candidate
from autoseg.selection.evidence import evidence_for, nested_estimate
from autoseg.selection.rules import best_mean, supported


def numbered(table, **changes):
    """``(candidates, cases)`` numbers of candidates m0, m1 ..."""
    return comparison({f"m{i}": row for i, row in enumerate(table)}, **changes)


def noise(seed, n_models, n_cases=40):
    """Models that are all the same but for luck, in five folds."""
    table = np.random.default_rng(seed).normal(0.8, 0.05, (n_models, n_cases))
    return numbered(table, folds=tuple(str(i % 5) for i in range(n_cases)))


def test_every_candidate_is_compared_with_the_chosen_one():
    table = np.random.default_rng(1).normal([[0.7], [0.8], [0.75]], 0.03, (3, 12))
    given = numbered(table)
    evidence = evidence_for(given, given.candidates[1], best_mean)
    assert (evidence.candidate, evidence.cases, evidence.expected) == ("m1", 12, None)
    raw = [wilcoxon(table[1] - table[0]), wilcoxon(table[1] - table[2])]
    for index, other in enumerate((0, 2)):
        one = evidence.compared[f"m{other}"]
        assert one.mean == pytest.approx(table[other].mean())
        assert one.difference == pytest.approx((table[1] - table[other]).mean())
        assert (one.p_value, one.corrected) == (raw[index], pytest.approx(holm(raw)[index]))
        assert one.low < one.mean < one.high
    assert math.isnan(evidence.compared["m1"].p_value) and math.isnan(evidence.compared["m1"].difference)


def test_the_nested_estimate_by_hand():
    """Fold a prefers m1, fold b m0: chosen on the other fold each is the wrong one."""
    given = numbered([[0.1, 0.1, 0.9, 0.7], [0.6, 0.8, 0.2, 0.2]], folds=("a", "a", "b", "b"))
    expected = nested_estimate(given, given.candidates[0], best_mean)
    assert expected.chosen == {"a": "m0", "b": "m1"}
    assert expected.mean == pytest.approx((0.1 + 0.1 + 0.2 + 0.2) / 4)
    assert expected.naive == pytest.approx((0.1 + 0.1 + 0.9 + 0.7) / 4)
    assert expected.cases == 4
    assert expected.low <= expected.mean <= expected.high


def test_a_single_fold_has_no_nested_estimate():
    assert nested_estimate(numbered([[0.5, 0.6]], folds=("0", "0")), Candidate(("m0",)), best_mean) is None
    assert nested_estimate(numbered([[0.5, 0.6]]), Candidate(("m0",)), best_mean) is None


def test_with_many_candidates_of_pure_noise_the_naive_mean_is_too_good_and_the_nested_is_not():
    """Twenty equal models: the best of them has luck of 1.87 standard errors on average (expected maximum of 20 normal numbers)."""
    naive, nested, covered = [], [], []
    for seed in range(60):
        given = noise(seed, 20)
        winner, _ = best_mean(given)
        expected = nested_estimate(given, winner, best_mean)
        naive.append(expected.naive - 0.8)
        nested.append(expected.mean - 0.8)
        covered.append(expected.low <= 0.8 <= expected.high)
    standard_error = 0.05 / math.sqrt(40)
    assert np.mean(naive) == pytest.approx(1.87 * standard_error, rel=0.15)
    assert abs(np.mean(nested)) < 0.4 * standard_error
    assert np.mean(covered) >= 0.93


def test_the_interval_is_the_plain_one_where_the_choice_leaves_no_doubt():
    """Models that differ alike in every case: which one is chosen is no matter of luck, and adds nothing to the interval."""
    base = np.random.default_rng(0).normal(0.8, 0.05, 40)
    folds = tuple(str(i % 5) for i in range(40))
    clear = numbered([base, base - 0.1 - 0.001 * np.arange(40)], folds=folds)
    alone = numbered([base], folds=folds)
    expected = [nested_estimate(one, one.candidates[0], best_mean) for one in (clear, alone)]
    assert (expected[0].low, expected[0].high) == (expected[1].low, expected[1].high)
    doubtful = numbered([base, np.random.default_rng(1).permutation(base)], folds=folds)
    wide = nested_estimate(doubtful, doubtful.candidates[0], best_mean)
    assert wide.high - wide.low > 1.2 * (expected[0].high - expected[0].low)


def test_the_supported_rule_keeps_the_simplest_of_equals():
    kept = [supported(noise(seed, 20))[0].name == "m0" for seed in range(40)]
    assert np.mean(kept) > 0.9


def test_a_case_without_the_organ_counts_for_nobody():
    given = numbered([[0.5, math.nan, 0.7, 0.6], [0.5, 0.0, 0.7, 0.6]], folds=("a", "a", "b", "b"))
    evidence = evidence_for(given, given.candidates[0], best_mean)
    assert evidence.compared["m0"].mean == pytest.approx(0.6)
    assert evidence.compared["m1"].mean == pytest.approx(0.45)
    assert evidence.compared["m1"].difference == pytest.approx(1 / 4), "the false alarm costs it a whole Dice"
    assert evidence.expected.cases == 3


def test_intervals_are_the_same_at_every_call():
    given = noise(0, 3)
    again = noise(0, 3)
    first, second = (one.intervals(["m0", "m1"]) for one in (given, again))
    assert np.array_equal(first, second)
