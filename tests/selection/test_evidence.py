"""The evidence of a choice: tests and intervals beside the chosen one, and the nested estimate, on tables with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from factories import comparison

from autoseg.evaluation.statistics import holm, wilcoxon
from autoseg.schema import Candidate
from autoseg.selection.evidence import evidence_for, nested_estimate
from autoseg.selection.rules import best_mean, supported

FIVE_FOLDS = tuple(str(i % 5) for i in range(40))


def numbered(table, **changes):
    """``(candidates, cases)`` numbers of candidates m0, m1 ..."""
    return comparison({f"m{i}": row for i, row in enumerate(table)}, **changes)


def noise(seed):
    """Twenty models that are all the same but for luck."""
    return numbered(np.random.default_rng(seed).normal(0.8, 0.05, (20, 40)), folds=FIVE_FOLDS)


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
    assert np.array_equal(given.intervals(["m0", "m1"]), numbered(table).intervals(["m0", "m1"])), "the same at every call"


def test_the_nested_estimate_by_hand():
    """Fold a prefers m1, fold b m0: chosen on the other fold each is the wrong one."""
    given = numbered([[0.1, 0.1, 0.9, 0.7], [0.6, 0.8, 0.2, 0.2]], folds=("a", "a", "b", "b"))
    expected = nested_estimate(given, given.candidates[0], best_mean)
    assert (expected.chosen, expected.cases) == ({"a": "m0", "b": "m1"}, 4)
    assert (expected.mean, expected.naive) == pytest.approx(((0.1 + 0.1 + 0.2 + 0.2) / 4, (0.1 + 0.1 + 0.9 + 0.7) / 4))
    assert expected.low <= expected.mean <= expected.high


@pytest.mark.parametrize("folds", [("0", "0"), ()])
def test_a_single_fold_has_no_nested_estimate(folds):
    assert nested_estimate(numbered([[0.5, 0.6]], folds=folds), Candidate(("m0",)), best_mean) is None


def test_with_many_candidates_of_pure_noise_the_naive_mean_is_too_good_and_the_nested_is_not():
    """Twenty equal models: the best of them has luck of 1.87 standard errors on average (expected maximum of 20 normal numbers)."""
    naive, nested, covered = [], [], []
    for given in map(noise, range(60)):
        expected = nested_estimate(given, best_mean(given)[0], best_mean)
        naive.append(expected.naive - 0.8)
        nested.append(expected.mean - 0.8)
        covered.append(expected.low <= 0.8 <= expected.high)
    standard_error = 0.05 / math.sqrt(40)
    assert np.mean(naive) == pytest.approx(1.87 * standard_error, rel=0.15)
    assert abs(np.mean(nested)) < 0.4 * standard_error
    assert np.mean(covered) >= 0.93
    assert np.mean([supported(noise(seed))[0].name == "m0" for seed in range(40)]) > 0.9, "the simplest of equals"


def test_the_interval_is_the_plain_one_where_the_choice_leaves_no_doubt():
    """Models that differ alike in every case: which one is chosen is no matter of luck, and adds nothing to the interval."""
    base = np.random.default_rng(0).normal(0.8, 0.05, 40)
    rivals = {"clear": base - 0.1 - 0.001 * np.arange(40), "doubtful": np.random.default_rng(1).permutation(base)}
    tables = {"alone": numbered([base], folds=FIVE_FOLDS)}
    tables |= {name: numbered([base, rival], folds=FIVE_FOLDS) for name, rival in rivals.items()}
    found = {name: nested_estimate(table, table.candidates[0], best_mean) for name, table in tables.items()}
    widths = {name: one.high - one.low for name, one in found.items()}
    assert (found["clear"].low, found["clear"].high) == (found["alone"].low, found["alone"].high)
    assert widths["doubtful"] > 1.2 * widths["clear"]


def test_a_case_without_the_organ_counts_for_nobody():
    given = numbered([[0.5, math.nan, 0.7, 0.6], [0.5, 0.0, 0.7, 0.6]], folds=("a", "a", "b", "b"))
    evidence = evidence_for(given, given.candidates[0], best_mean)
    assert [evidence.compared[name].mean for name in ("m0", "m1")] == pytest.approx([0.6, 0.45])
    assert evidence.compared["m1"].difference == pytest.approx(1 / 4), "the false alarm costs it a whole Dice"
    assert evidence.expected.cases == 3


def test_patients_not_cases_are_the_unit_of_means_intervals_and_tests():
    """One patient of twelve frames against seven of one: by frames m0 is better, by patients m1."""
    frames = np.r_[np.full(12, 0.9), np.linspace(0.5, 0.56, 7)]
    other = np.r_[np.full(12, 0.8), np.linspace(0.6, 0.66, 7)]
    patients = ("p",) * 12 + tuple("abcdefg")
    given = numbered([frames, other], patients=patients, folds=("0",) * 12 + ("1",) * 7)
    assert given.means == pytest.approx({"m0": (0.9 + 7 * 0.53) / 8, "m1": (0.8 + 7 * 0.63) / 8})
    winner, why = best_mean(given)
    assert winner.name == "m1" and "over 8 patients (19 cases)" in why
    evidence = evidence_for(given, winner, best_mean)
    assert evidence.compared["m0"].difference == pytest.approx((-0.1 + 7 * 0.1) / 8)
    low, high = given.intervals(["m0", "m1"])
    plain = numbered([[0.9, *frames[12:]], [0.8, *other[12:]]])
    assert np.array_equal((low, high), plain.intervals(["m0", "m1"])), "as if each patient had one case"
    assert evidence.expected.mean == pytest.approx(np.mean([0.8, *frames[12:]])), "chosen on the other fold: m1 for p, m0 for the rest"
