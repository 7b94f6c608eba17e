"""The rules of choice, on tables whose best is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from selection_factories import comparison

from autoseg.selection.rules import best_mean, cheapest, supported

BASE = np.linspace(0.5, 0.9, 20)
WOBBLE = 0.02 * np.random.default_rng(5).normal(size=20)


def winner_of(rule, values, **more):
    winner, reason = rule(comparison(values, **more))
    return winner.name, reason


class TestSupported:
    def test_a_challenger_that_is_better_in_nearly_every_case_is_taken(self):
        values = {"2d": BASE, "3d": BASE + 0.03 + WOBBLE / 4}
        name, reason = winner_of(supported, values)
        assert name == "3d"
        assert "better than 2d with 0.7000, p < 0.001 corrected for 1 comparison" in reason

    def test_a_lucky_challenger_is_not(self):
        """One case makes its mean the better one."""
        lucky = BASE - 0.001
        lucky[3] += 0.3
        values = {"2d": BASE, "3d": lucky}
        assert winner_of(best_mean, values)[0] == "3d"
        name, reason = winner_of(supported, values)
        assert name == "2d"
        assert "none is better beyond luck" in reason and "3d with 0.7140" in reason

    def test_significantly_worse_ranks_are_no_support_for_a_better_mean(self):
        rare = BASE - 0.001 * np.arange(1, 21)
        rare[3] += 5
        assert winner_of(best_mean, {"2d": BASE, "3d": rare})[0] == "3d"
        assert winner_of(supported, {"2d": BASE, "3d": rare})[0] == "2d"

    def test_the_number_of_candidates_counts(self):
        """Better in 16 of 20 cases: p = 0.003, enough for one comparison, not for one of thirty."""
        better = BASE + np.where(np.arange(20) % 5 == 0, -1, 1) * np.linspace(0.010, 0.012, 20)
        assert winner_of(supported, {"2d": BASE, "3d": better})[0] == "3d"
        others = {f"n{i}": BASE - 0.05 + 0.1 * np.random.default_rng(i).normal(size=20) * (np.arange(20) % 2) for i in range(60)}
        crowd = comparison({"2d": BASE, "3d": better} | others)
        assert crowd.p_value(crowd.candidates[1], crowd.candidates[0]) < 0.05
        weak = {f"w{i}": BASE + 0.001 * np.random.default_rng(i).normal(size=20) for i in range(60)}
        assert winner_of(supported, {"2d": BASE, "3d": better} | weak)[0] == "2d"

    def test_the_average_of_two_that_are_tied_is_taken_instead_of_either(self):
        values = {"2d": BASE + WOBBLE, "3d": BASE - WOBBLE[::-1], "2d + 3d": BASE + 0.002 * np.sign(WOBBLE) + 0.006}
        name, reason = winner_of(supported, values)
        assert name == "2d + 3d"
        assert "cannot be told apart (p = " in reason and "is taken instead of either" in reason

    def test_an_average_that_is_worse_is_not(self):
        values = {"2d": BASE + WOBBLE, "3d": BASE - WOBBLE[::-1], "2d + 3d": BASE - 0.01 * np.sign(WOBBLE) - 0.006}
        assert winner_of(supported, values)[0] == "2d"

    def test_of_two_that_beat_the_simplest_and_are_tied_the_average_is_taken(self):
        one, other = BASE + 0.05 + WOBBLE, BASE + 0.05 - WOBBLE[::-1]
        values = {"2d": BASE, "low": one, "3d": other, "low + 3d": np.maximum(one, other) - 0.001}
        assert winner_of(supported, values)[0] == "low + 3d"

    def test_few_cases_allow_no_test(self):
        name, reason = winner_of(supported, {"2d": [0.5] * 5, "3d": [0.6] * 5})
        assert name == "3d"
        assert reason.endswith("too few cases for a test, so the best mean is taken")
        assert winner_of(supported, {"2d": [0.5] * 7, "3d": [0.5] * 4 + [0.6] * 3})[0] == "2d", "enough cases, too few differences"

    def test_lower_is_better_where_the_metric_says_so(self):
        values = {"2d": 10 * BASE, "3d": 10 * BASE - 0.3 + WOBBLE}
        name, reason = winner_of(supported, values, metric="hd95_surface")
        assert name == "3d"
        assert "mean HD95 (surface) 6.7" in reason and " mm over 20 cases" in reason
        assert winner_of(supported, values, metric="chaos")[0] == "2d"

    def test_an_organ_that_no_case_has_goes_to_who_predicts_none(self):
        assert winner_of(supported, {"2d": [0.0, math.nan] * 5, "3d": [math.nan] * 10})[0] == "3d"
        assert winner_of(supported, {"2d": [0.0] * 10, "3d": [math.nan] * 10})[0] == "3d"
        name, reason = winner_of(supported, {"2d": [math.nan] * 10, "3d": [math.nan] * 10})
        assert name == "2d" and "no validation case has this organ" in reason

    @pytest.mark.parametrize(("metric", "alarm"), [("dice", 0.0), ("hd95_surface", 200.0), ("chaos", 0.0)])
    def test_false_alarms_are_evidence_against_who_raises_them(self, metric, alarm):
        """Both are the same where the organ is; only the first also sees it in eight cases without it."""
        alarms, none = np.r_[BASE, [alarm] * 8], np.r_[BASE, [math.nan] * 8]
        name, reason = winner_of(supported, {"2d": alarms, "3d": none}, metric=metric)
        assert name == "3d" and "p = 0.0078 corrected for 1 comparison" in reason
        assert winner_of(supported, {"2d": none, "3d": alarms}, metric=metric)[0] == "2d"


class TestCheapest:
    SECONDS = {"2d": 1.0, "3d": 9.0, "2d + 3d": 10.0}

    def test_the_cheapest_within_the_interval_of_the_best(self):
        values = {"2d": BASE - 0.01, "3d": BASE, "2d + 3d": BASE + 0.01}
        name, reason = winner_of(cheapest, values, seconds=self.SECONDS)
        assert name == "2d"
        assert "of 2d + 3d with 0.7100, at 1 instead of 10 s a case" in reason

    def test_the_best_where_all_others_lie_outside(self):
        values = {"2d": BASE - 0.2, "3d": BASE - 0.1, "2d + 3d": BASE}
        name, reason = winner_of(cheapest, values, seconds=self.SECONDS)
        assert name == "2d + 3d" and "the best, and none that is cheaper lies within" in reason

    def test_without_times_members_are_counted(self):
        values = {"2d": BASE - 0.01, "3d": BASE, "2d + 3d": BASE + 0.01}
        name, reason = winner_of(cheapest, values, seconds={"2d": 1.0})
        assert name == "3d", "of two single models the better one"
        assert "at 1 instead of 2 models" in reason


class TestBestMean:
    def test_the_best_and_the_next(self):
        assert winner_of(best_mean, {"2d": [0.5, 0.6], "3d": [0.7, 0.8]}) == (
            "3d",
            "3d: mean Dice 0.7500 over 2 cases; next is 2d with 0.5500",
        )

    @pytest.mark.parametrize("rule", [best_mean, supported, cheapest])
    def test_one_candidate(self, rule):
        assert winner_of(rule, {"2d": [0.5]}) == ("2d", "2d: mean Dice 0.5000 over 1 case; it is the only candidate")
