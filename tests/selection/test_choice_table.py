"""The choice as text."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoseg.schema import Choice, Score
from autoseg.selection.candidates import candidates_for
from autoseg.selection.choice import SelectionContext, choose
from autoseg.selection.choice_table import SHOWN, describe_choice

BASE = np.linspace(0.6, 0.9, 20)
LUCK = {f"m{i:02d}": BASE + np.random.default_rng(i).normal(0, 0.02, 20) for i in range(20)}


def choice_of(values, *, rule="supported", metric="dice", folds=5):
    """``{"2d": [...]}`` of one organ, with seconds where there are several folds."""
    seconds = {name: 1.0 + place for place, name in enumerate(values)} if folds > 1 else {}
    context = SelectionContext(metric, {f"c{i}": str(i % folds) for i in range(len(BASE))}, seconds=seconds)
    scores = {
        name: [Score(f"c{i}", "liver", min(v, 1), min(v, 1), 1, 1, {metric: v}) for i, v in enumerate(some)]
        for name, some in values.items()
    }
    return choose(scores, candidates_for(list(values), 1), ["liver"], folds=[*map(str, range(folds))], rule=rule, context=context)


def test_candidates_stand_in_order_and_the_chosen_one_is_marked():
    lines = describe_choice(choice_of({"2d": BASE, "3d": BASE + 0.05 + 0.001 * np.arange(20)})).splitlines()
    assert lines[0] == "liver  ->  3d"
    assert lines[1].split() == ["candidate", "mean", "95", "%", "interval", "behind", "by", "p", "corrected", "s/case"]
    assert lines[2].split()[:3] == ["*", "3d", "0.8095"] and lines[2].split()[-1] == "2"
    assert lines[3].split()[:2] == ["2d", "0.7500"]
    assert lines[2].index("0.8095") == lines[3].index("0.7500")
    assert lines[3].split()[-4:] == ["0.0595", "<0.001", "<0.001", "1"]
    assert lines[4].startswith("  why: 3d: mean Dice 0.8095 over 20 cases; better than 2d with 0.7500")
    assert lines[5].startswith("  expected on new images: 0.8095 [0.7") and lines[5].endswith("(nested; the naive figure is 0.8095)")


def test_the_interval_says_for_which_images_it_holds():
    choice = choice_of({"2d": BASE, "3d": BASE + 0.05})
    for told in (describe_choice(choice), choice.evidence["liver"].expected.holds_for):
        assert "images like the training images: of the same scanners, protocols and mix of diseases" in told
    assert "like the training images" not in describe_choice(choice_of({"2d": BASE}, folds=1)), "nothing is promised"


@pytest.mark.parametrize("rule", ["supported", "best_mean"])
def test_of_twenty_candidates_the_best_six_are_shown_and_always_the_chosen_one(rule):
    choice = choice_of(LUCK, rule=rule)
    text, chosen = describe_choice(choice), choice.organs["liver"][0]
    listed = [line for line in text.splitlines() if line.startswith(("    m", "  * m"))]
    assert len(listed) == SHOWN and "    and 14 more" in text.splitlines()
    place = [line.startswith(f"  * {chosen}") for line in listed].index(True)
    assert (chosen == "m00") if rule == "supported" else (place == 0), "the simplest of equals, or the best"
    if others := sorted(set(choice.evidence["liver"].expected.chosen.values()) - {chosen}):
        assert f"without one of the folds the choice would also be {', '.join(others)}" in text
    assert others or rule == "supported"


def test_units_and_direction_of_the_metric():
    lines = describe_choice(choice_of({"2d": 10 * BASE, "3d": 5 * BASE}, metric="hd95_surface")).splitlines()
    assert lines[2].split()[:3] == ["*", "3d", "3.75"] and lines[3].split()[:2] == ["2d", "7.50"]
    assert lines[-2] == "HD95 (surface) in mm over 20 validation cases of fold 0, 1, 2, 3, 4; rule supported."


def test_a_single_fold_says_that_there_is_no_estimate():
    text = describe_choice(choice_of({"2d": BASE}, folds=1))
    assert "somewhat worse than 0.7500, by which it was chosen (one fold gives no estimate)" in text
    assert "s/case" not in text, "columns without numbers are left out"


def test_a_choice_without_evidence_can_still_be_described():
    text = describe_choice(Choice({"liver": ("2d__T",)}, ("all",), {}, 0, {"liver": "2d__T: the only model of it"}))
    assert text.splitlines()[:2] == ["liver  ->  2d__T", "  why: 2d__T: the only model of it"]


def test_models_that_were_validated_otherwise_are_named():
    choice = choice_of({"2d": BASE, "3d": BASE})
    assert "Validation was shortened" not in describe_choice(choice)
    told = describe_choice(replace(choice, validated={"2d": "4 mirrored copies", "3d": "no mirrored copies"}))
    assert "(2d: 4 mirrored copies; 3d: no mirrored copies)" in told and "small differences between these models say nothing" in told
    assert "can be compared" in describe_choice(replace(choice, validated=dict.fromkeys(("2d", "3d"), "no mirrored copies")))
