"""The rules of choice, on tables whose best is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from factories import comparison

from autoseg.selection.rules import best_mean, cheapest, supported

BASE = np.linspace(0.5, 0.9, 20)
WOBBLE = 0.02 * np.random.default_rng(5).normal(size=20)
ONE, OTHER = BASE + 0.05 + WOBBLE, BASE + 0.05 - WOBBLE[::-1]
SECONDS = {"2d": 1.0, "3d": 9.0, "2d + 3d": 10.0}


def changed(values, by):
    """One case makes a mean the better one."""
    return values + by * (np.arange(len(values)) == 3)


LUCKY = {"2d": BASE, "3d": changed(BASE - 0.001, 0.3)}
WORSE_RANKS = {"2d": BASE, "3d": changed(BASE - 0.001 * np.arange(1, 21), 5)}
TIED = {"2d": BASE + WOBBLE, "3d": BASE - WOBBLE[::-1]}
NONE = [math.nan] * 10

TABLES = {
    "better in nearly every case": (
        supported,
        {"2d": BASE, "3d": BASE + 0.03 + WOBBLE / 4},
        "3d",
        "than 2d with 0.7000, p < 0.001 corrected for 1",
    ),
    "lucky": (supported, LUCKY, "2d", "none is better beyond luck (the best mean is that of 3d with 0.7140"),
    "lucky, by its mean": (best_mean, LUCKY, "3d", ""),
    "worse ranks": (supported, WORSE_RANKS, "2d", ""),
    "worse ranks, by its mean": (best_mean, WORSE_RANKS, "3d", ""),
    "tied": (supported, TIED | {"2d + 3d": BASE + 0.002 * np.sign(WOBBLE) + 0.006}, "2d + 3d", "cannot be told apart (p = "),
    "average that is worse": (supported, TIED | {"2d + 3d": BASE - 0.01 * np.sign(WOBBLE) - 0.006}, "2d", ""),
    "two beat the simplest": (
        supported,
        {"2d": BASE, "low": ONE, "3d": OTHER, "low + 3d": np.maximum(ONE, OTHER) - 0.001},
        "low + 3d",
        "",
    ),
    "few, a lead in every patient": (
        supported,
        {"2d": [0.5] * 5, "3d": [0.6] * 5},
        "3d",
        "5 patients are too few for a test, but it is better than 2d with 0.5000 in every one, by 0.1000 on average (at least 0.0200",
    ),
    "few, a large lead that one patient makes": (
        supported,
        {"2d": [0.5] * 5, "3d": [0.49, 0.9, 0.9, 0.9, 0.9]},
        "2d",
        "5 patients are too few for a test, so the simplest stays: 3d with 0.8180 leads by 0.3180 and is better in 4 of 5; at least 0.0200",
    ),
    "few, a small lead": (supported, {"2d": [0.5] * 4, "3d": [0.519] * 4}, "2d", "leads by 0.0190 and is better in 4 of 4"),
    "few, exactly enough": (supported, {"2d": [0.5] * 4, "3d": [0.52] * 4}, "3d", ""),
    "few, several lead": (supported, {"2d": [0.5] * 3, "3d": [0.6] * 3, "2d + 3d": [0.61] * 3}, "2d + 3d", ""),
    "few, none leads": (supported, {"2d": [0.5] * 3, "3d": [0.4] * 3}, "2d", "the simplest, and none is better (next is 3d with 0.4000)"),
    "one patient": (supported, {"2d": [0.5], "3d": [0.51]}, "2d", "1 patient is too few for a test"),
    "few, false alarms": (supported, {"2d": [0.5, 0.0], "3d": [0.53, math.nan]}, "3d", "by 0.5150 on average"),
    "too few differences": (supported, {"2d": [0.5] * 7, "3d": [0.5] * 4 + [0.6] * 3}, "2d", ""),
    "alarms": (supported, {"2d": [0.0, math.nan] * 5, "3d": NONE}, "3d", ""),
    "only alarms": (supported, {"2d": [0.0] * 10, "3d": NONE}, "3d", ""),
    "no case has the organ": (supported, {"2d": NONE, "3d": NONE}, "2d", "no validation case has this organ"),
    "next": (best_mean, {"2d": [0.5, 0.6], "3d": [0.7, 0.8]}, "3d", "3d: mean Dice 0.7500 over 2 cases; next is 2d with 0.5500"),
}
"""Rule, values of the candidates, the winner and what the reason must say."""


def winner_of(rule, values, **more):
    winner, reason = rule(comparison(values, **more))
    return winner.name, reason


@pytest.mark.parametrize(("rule", "values", "best", "why"), TABLES.values(), ids=TABLES)
def test_the_winner_and_why(rule, values, best, why):
    name, reason = winner_of(rule, values)
    assert name == best and why in reason


def test_the_number_of_candidates_counts():
    """Better in 16 of 20 cases: p = 0.003, enough for one comparison, not for one of thirty."""
    two = {"2d": BASE, "3d": BASE + np.where(np.arange(20) % 5 == 0, -1, 1) * np.linspace(0.010, 0.012, 20)}
    assert winner_of(supported, two)[0] == "3d"
    pair = comparison(two)
    assert pair.p_value(pair.candidates[1], pair.candidates[0]) < 0.05
    weak = {f"w{i}": BASE + 0.001 * np.random.default_rng(i).normal(size=20) for i in range(60)}
    assert winner_of(supported, two | weak)[0] == "2d"


def test_frames_of_few_patients_are_few():
    """Six frames of three patients, better in each: the test over frames would say p = 0.031."""
    values = {"2d": [0.5] * 6, "3d": [0.51] * 6}
    assert winner_of(supported, values)[0] == "3d"
    name, why = winner_of(supported, values, patients=tuple("aabbcc"))
    assert name == "2d" and "3 patients are too few" in why
    assert winner_of(supported, {"2d": [0.5] * 6, "3d": [0.4, 0.64] * 3}, patients=tuple("aabbcc"))[0] == "3d", "better in each on average"


@pytest.mark.parametrize(
    ("metric", "before", "after", "best"),
    [
        ("hd95_surface", 10.0, 9.1, "2d"),
        ("hd95_surface", 10.0, 8.9, "3d"),
        ("chaos", 80.0, 81.9, "2d"),
        ("chaos", 80.0, 82.1, "3d"),
    ],
)
def test_a_lead_worth_two_hundredths_of_dice_in_another_metric(metric, before, after, best):
    """A tenth of a mean distance, two points of a hundred."""
    assert winner_of(supported, {"2d": [before] * 4, "3d": [after] * 4}, metric=metric)[0] == best


def test_lower_is_better_where_the_metric_says_so():
    values = {"2d": 10 * BASE, "3d": 10 * BASE - 0.3 + WOBBLE}
    name, reason = winner_of(supported, values, metric="hd95_surface")
    assert name == "3d"
    assert "mean HD95 (surface) 6.7" in reason and " mm over 20 cases" in reason
    assert winner_of(supported, values, metric="chaos")[0] == "2d"


@pytest.mark.parametrize(("metric", "alarm"), [("dice", 0.0), ("hd95_surface", 200.0), ("chaos", 0.0)])
def test_false_alarms_are_evidence_against_who_raises_them(metric, alarm):
    """Both are the same where the organ is; only the first also sees it in eight cases without it."""
    alarms, none = np.r_[BASE, [alarm] * 8], np.r_[BASE, [math.nan] * 8]
    name, reason = winner_of(supported, {"2d": alarms, "3d": none}, metric=metric)
    assert name == "3d" and "p = 0.0078 corrected for 1 comparison" in reason
    assert winner_of(supported, {"2d": none, "3d": alarms}, metric=metric)[0] == "2d"


@pytest.mark.parametrize(
    ("behind", "seconds", "best", "why"),
    [
        ((0.01, 0, -0.01), SECONDS, "2d", "of 2d + 3d with 0.7100, at 1 instead of 10 s a case"),
        ((0.2, 0.1, 0), SECONDS, "2d + 3d", "the best, and none that is cheaper lies within"),
        ((0.01, 0, -0.01), {"2d": 1.0}, "3d", "at 1 instead of 2 models"),  # of two single models the better one
    ],
)
def test_the_cheapest_within_the_interval_of_the_best(behind, seconds, best, why):
    values = {name: BASE - one for name, one in zip(SECONDS, behind, strict=True)}
    name, reason = winner_of(cheapest, values, seconds=seconds)
    assert name == best and why in reason


@pytest.mark.parametrize("rule", [best_mean, supported, cheapest])
def test_one_candidate(rule):
    assert winner_of(rule, {"2d": [0.5]}) == ("2d", "2d: mean Dice 0.5000 over 1 case; it is the only candidate")
