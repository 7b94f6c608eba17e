"""A model that has not learnt is said so: before a training with too few steps, and after it."""

from __future__ import annotations

import argparse
import math

import pytest

from autoseg.cli.units import duration
from autoseg.planners.budget import STEPS_TO_LEARN
from autoseg.schema import Budget, Score
from autoseg.trainers.learning_checks import FAR_TOO_FEW, FEW, not_learnt, round_time, too_few_steps


def time(seconds: float) -> Budget:
    return Budget("time", seconds, 4, "as asked")


def score(organ: str, dice: float, *, predicted: int = 9, case: str = "a") -> Score:
    return Score(case, organ, dice, dice / 2, predicted, 9)


def test_nine_steps_are_far_too_few_and_an_hour_would_do() -> None:
    assert too_few_steps(time(90), 10.0) == "About 9 steps: far too few to learn from; give --time 3h"
    assert too_few_steps(time(90), 4.0) == "About 22 steps: far too few to learn from; give --time 1h"
    assert too_few_steps(time(300), 1.0) == "About 300 steps: few to learn from; give --time 15m"
    assert too_few_steps(Budget("iterations", 9, 1, "asked"), 2.0).startswith(
        f"9 steps: far too few to learn from; give --iterations {STEPS_TO_LEARN}"
    )


def test_enough_steps_and_trained_weights_need_no_warning() -> None:
    assert too_few_steps(time(600), 600 / FEW) == ""
    assert too_few_steps(time(90), 10.0, fine_tunes=True) == ""


@pytest.mark.parametrize("seconds", [1, 59, 61, 3600, 3601, 40000, 90000, 10**6])
def test_times_are_round_enough_and_can_be_typed(seconds: int) -> None:
    try:
        given = duration(round_time(seconds))
    except argparse.ArgumentTypeError:
        pytest.fail(round_time(seconds))
    assert seconds * 0.999 <= given <= max(60, 2.2 * seconds)


def test_organs_that_were_not_learnt_are_named_with_what_to_do() -> None:
    scores = [score("liver", 0.9), score("spleen", 0.31), score("aorta", 0.0, predicted=0), score("kidney", 0.05)]
    lines = not_learnt(scores, steps=9, seconds=90.0, budget=time(90))
    assert lines == [
        "NOT LEARNT: aorta: in the held-out cases, but never predicted.",
        "NOT LEARNT: kidney (Dice 0.05).",
        "LEARNT BADLY: spleen (Dice 0.31).",
        "9 steps are far too few: give --time 3h --longer, which goes on from here.",
    ]
    assert "--iterations 800 --restart" in not_learnt(scores, steps=100, budget=Budget("iterations", 100, 1, ""))[-1]
    many = not_learnt(scores, steps=5000, seconds=5000.0, budget=time(5000))[-1]
    assert "labels" in many and "far too few" not in many


def test_what_was_learnt_or_is_absent_is_no_reason_to_warn() -> None:
    assert not_learnt([score("liver", 0.8), Score("a", "spleen", math.nan, math.nan, 0, 0)], steps=9) == []
    assert FAR_TOO_FEW < FEW < STEPS_TO_LEARN
