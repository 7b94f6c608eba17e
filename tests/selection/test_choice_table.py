"""The choice as text."""

from __future__ import annotations

import numpy as np

from autoseg.schema import Choice, Score
from autoseg.selection.candidates import candidates_for
from autoseg.selection.choice import SelectionContext, choose
from autoseg.selection.choice_table import SHOWN, describe_choice


def choice_of(values, *, max_members=1, rule="supported", metric="dice"):
    """``{"2d": [...]}`` of one organ, in five folds, with seconds."""
    candidates = [one for one in candidates_for([name for name in values if " + " not in name], max_members) if one.name in values]
    n_cases = len(next(iter(values.values())))
    context = SelectionContext(
        metric, {f"c{i}": str(i % 5) for i in range(n_cases)}, seconds={name: 1.0 + place for place, name in enumerate(values)}
    )
    scores = {name: [Score(f"c{i}", "liver", v, v, 1, 1, {metric: v}) for i, v in enumerate(some)] for name, some in values.items()}
    return choose(scores, candidates, ["liver"], folds=["0", "1", "2", "3", "4"], rule=rule, context=context)


BASE = np.linspace(0.6, 0.9, 20)


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


def test_of_twenty_candidates_the_best_six_are_shown_and_always_the_chosen_one():
    luck = {f"m{i:02d}": BASE + np.random.default_rng(i).normal(0, 0.02, 20) for i in range(20)}
    choice = choice_of(luck)
    lines = describe_choice(choice).splitlines()
    listed = [line for line in lines if line.startswith(("    m", "  * m"))]
    assert len(listed) == SHOWN and "    and 14 more" in lines
    assert choice.organs["liver"] == ("m00",), "the simplest of equals"
    assert any(line.startswith("  * m00") for line in listed)
    best = choice_of(luck, rule="best_mean")
    assert describe_choice(best).splitlines()[2].startswith(f"  * {best.organs['liver'][0]}")


def test_an_unstable_choice_says_what_else_it_might_have_been():
    luck = {f"m{i:02d}": BASE + np.random.default_rng(i).normal(0, 0.02, 20) for i in range(20)}
    choice = choice_of(luck, rule="best_mean")
    others = set(choice.evidence["liver"].expected.chosen.values()) - set(choice.organs["liver"])
    assert others
    assert f"without one of the folds the choice would also be {', '.join(sorted(others))}" in describe_choice(choice)


def test_units_and_direction_of_the_metric():
    lines = describe_choice(choice_of({"2d": 10 * BASE, "3d": 5 * BASE}, metric="hd95_surface")).splitlines()
    assert lines[2].split()[:3] == ["*", "3d", "3.75"] and lines[3].split()[:2] == ["2d", "7.50"]
    assert lines[-2] == "HD95 (surface) in mm over 20 validation cases of fold 0, 1, 2, 3, 4; rule supported."


def test_a_single_fold_says_that_there_is_no_estimate():
    scores = {"2d": [Score(f"c{i}", "liver", v, v, 1, 1) for i, v in enumerate(BASE)]}
    told = describe_choice(choose(scores, candidates_for(["2d"]), ["liver"], folds=["0"]))
    assert "somewhat worse than 0.7500, by which it was chosen (one fold gives no estimate)" in told
    assert "s/case" not in told, "columns without numbers are left out"


def test_a_choice_without_evidence_can_still_be_described():
    text = describe_choice(Choice({"liver": ("2d__T",)}, ("all",), {}, 0, {"liver": "2d__T: the only model of it"}))
    assert text.splitlines()[:2] == ["liver  ->  2d__T", "  why: 2d__T: the only model of it"]
