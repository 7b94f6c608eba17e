"""The choice of the best candidate for each organ."""

from __future__ import annotations

import math

import numpy as np
import pytest
from factories import scores

from autoseg.runtime.registry import allowed_code
from autoseg.runtime.serialization import read_json, write_json
from autoseg.schema import Choice, Score
from autoseg.selection.candidates import candidates_for
from autoseg.selection.choice import SelectionContext, choose

FLAT, DEEP, BOTH = candidates_for(["2d", "3d"])


def chosen(table, organs=("liver",), candidates=(FLAT, DEEP), **options):
    """The choice by scores of one fold; what else is known of the cases by its name in `SelectionContext`."""
    known = {name: options.pop(name) for name in ("metric", "fold_of", "patient_of", "seconds") if name in options}
    return choose(table, candidates, organs, context=SelectionContext(**known), **{"folds": ["0"], **options})


def test_an_organ_is_chosen_among_the_candidates_that_cover_it(caplog):
    candidates = candidates_for(["all", "liver_only"], organs={"all": ("liver", "spleen"), "liver_only": ("liver",)})
    table = {"all": scores(liver=[0.7, 0.8], spleen=[0.6, 0.6]), "liver_only": scores(liver=[0.8, 0.9])}
    choice = chosen(table, ["liver", "spleen", "aorta", "vein"], candidates)
    assert choice.organs == {"liver": ("liver_only",), "spleen": ("all",)}
    assert choice.table == {
        "all": {"liver": pytest.approx(0.75), "spleen": pytest.approx(0.6)},
        "liver_only": {"liver": pytest.approx(0.85)},
    }
    assert choice.reasons["spleen"].endswith("it is the only candidate")
    assert "No model covers aorta, vein" in caplog.text


def test_models_of_different_organs_need_no_case_in_common():
    """Two data sets in one, each with one organ annotated."""
    candidates = candidates_for(["one", "other"], organs={"one": ("liver",), "other": ("spleen",)})
    table = {"one": scores(liver=[0.9]), "other": [Score("x", "spleen", 0.8, 0.7, 1, 1)]}
    choice = chosen(table, ["liver", "spleen"], candidates)
    assert (choice.organs, choice.cases) == ({"liver": ("one",), "spleen": ("other",)}, 2)


def test_each_organ_gets_its_own_best():
    table = {
        "2d": scores(liver=[0.9, 0.9], spleen=[0.5, 0.7]),
        "3d": scores(liver=[0.8, 0.9], spleen=[0.8, 0.8]),
        "2d + 3d": scores(liver=[0.88, 0.9], spleen=[0.9, 0.8]),
    }
    choice = chosen(table, ["liver", "spleen"], [FLAT, DEEP, BOTH], folds=["0", "1"])
    assert choice.organs == {"liver": ("2d",), "spleen": ("2d", "3d")}
    assert choice.table["3d"] == {"liver": pytest.approx(0.85), "spleen": pytest.approx(0.8)}
    assert (choice.cases, choice.folds, choice.rule) == (2, ("0", "1"), "supported")
    assert choice.reasons["spleen"] == (
        "2d + 3d: mean Dice 0.8500 over 2 cases; 2 patients are too few for a test, but it is better than 2d with 0.6000 in every one, "
        "by 0.2500 on average (at least 0.0200 needed)"
    )


def test_ties_go_to_fewer_members_then_to_the_first_given():
    equal = {candidate.name: scores(liver=[0.9, 0.7]) for candidate in (FLAT, DEEP, BOTH)}
    for first, second in ((DEEP, FLAT), (FLAT, DEEP)):
        assert chosen(equal, candidates=[BOTH, first, second]).organs == {"liver": first.members}
    reason = chosen(equal, rule="best_mean").reasons["liver"]
    assert reason == "2d: mean Dice 0.8000 over 2 cases; 3d is as good, but this one is cheaper"
    nearly = {"2d": scores(liver=[0.9]), "3d": scores(liver=[0.9 + 1e-9])}
    assert chosen(nearly).organs["liver"] == ("2d",), "noise of rounding"


def test_only_cases_that_all_have_are_compared(caplog):
    choice = chosen({"2d": scores(liver=[0.5, 0.9, 0.9]), "3d": scores(liver=[0.6])})
    assert (choice.organs["liver"], choice.cases, choice.table["2d"]["liver"]) == (("3d",), 1, 0.5)
    assert "1 of 3 cases" in caplog.text


@pytest.mark.parametrize(
    ("flat", "deep", "best", "mean_of_deep", "reason"),
    [
        ([0.8, math.nan], [0.9, 0.0], "2d", 0.45, "over 1 case;"),
        ([0.0, math.nan], [math.nan, math.nan], "3d", math.nan, "no validation case has this organ"),
    ],
)
def test_cases_without_the_organ_are_left_out_and_false_alarms_count(flat, deep, best, mean_of_deep, reason):
    choice = chosen({"2d": scores(liver=flat), "3d": scores(liver=deep)})
    assert choice.organs["liver"] == (best,)
    assert choice.table["3d"]["liver"] == pytest.approx(mean_of_deep, nan_ok=True)
    assert reason in choice.reasons["liver"]


@pytest.mark.parametrize(("metric", "good"), [("precision", 0.6), ("ravd", 30.0)])
def test_who_finds_nothing_is_not_right_because_its_metric_has_no_number(metric, good):
    """The precision of an empty mask is no number; of a metric that shall be low the worst that anybody has takes its place."""
    some = [Score(f"c{i}", "liver", 0.5, 0.4, 10, 10, {metric: good + i / 100}) for i in range(8)]
    none = [Score(f"c{i}", "liver", 0.0, 0.0, 0, 10, {metric: math.nan}) for i in range(8)]
    for order in ([FLAT, DEEP], [DEEP, FLAT]):
        choice = chosen({"2d": none, "3d": some}, candidates=order, metric=metric)
        assert choice.organs["liver"] == ("3d",)
    assert choice.table["2d"]["liver"] == pytest.approx(0 if metric == "precision" else good + 0.07)


def test_a_rule_is_a_name_or_a_function():
    table = {"2d": scores(liver=[0.9, 0.1]), "3d": scores(liver=[0.45, 0.45])}
    assert chosen(table).organs["liver"] == ("2d",)
    with allowed_code([__name__]):
        choice = chosen(table, rule=f"{__name__}:safest")
    assert choice.organs["liver"] == ("3d",) and choice.rule.endswith(":safest")
    with pytest.raises(ValueError, match="one of best_mean, cheapest, supported, got 'best'"):
        chosen(table, rule="best")


def safest(comparison):
    """A rule of its own: the best worst case."""
    return max(comparison.candidates, key=lambda candidate: np.nanmin(comparison.higher_is_better[candidate.name])), "best worst case"


@pytest.mark.parametrize(
    ("deep", "message"),
    [
        ([], "no validation scores of 3d"),
        ([Score("x", "liver", 0.9, 0.9, 1, 1)], r"no validation case in common \(2d: 1, 3d: 1\)"),
        (scores(spleen=[0.9]), "3d: case c0 has no score for liver"),
        (scores(liver=[0.9]) * 2, "3d: case c0 has two scores for liver"),
        (None, "there is no candidate"),
    ],
)
def test_incomplete_evidence_is_refused(deep, message):
    with pytest.raises(ValueError, match=message):
        chosen({"2d": scores(liver=[0.9]), "3d": deep}, candidates=[] if deep is None else [FLAT, DEEP])


def test_choice_survives_its_file(tmp_path):
    table = {"2d": scores(liver=np.linspace(0.6, 0.9, 8).tolist()), "3d": scores(liver=np.linspace(0.5, 0.9, 8).tolist())}
    choice = chosen(table, folds=["0", "1"], fold_of={f"c{i}": "01"[i % 2] for i in range(8)}, seconds={"2d": 1.5})
    write_json(tmp_path / "choice.json", choice)
    again = read_json(tmp_path / "choice.json", Choice)
    write_json(tmp_path / "again.json", again)
    assert (tmp_path / "again.json").read_text() == (tmp_path / "choice.json").read_text()
    assert again.evidence["liver"].expected == choice.evidence["liver"].expected
    assert again.evidence["liver"].compared["3d"] == choice.evidence["liver"].compared["3d"]


@pytest.mark.parametrize(
    ("metric", "best", "mean_of_flat", "difference", "reason"),
    [
        ("dice", "2d", 0.9, 0.1, "mean Dice 0.9000"),
        ("hd95_surface", "3d", 8.0, 4.0, "3d: mean HD95 (surface) 4.00 mm over 2 cases"),
        ("volume_error", "3d", 5.0, 4.0, "1.00 ml"),  # a signed error is judged by its size
    ],
)
def test_the_best_is_that_of_the_metric(metric, best, mean_of_flat, difference, reason):
    values = {"2d": [(0.9, 9.0, -5.0), (0.9, 7.0, 5.0)], "3d": [(0.8, 3.0, 1.0), (0.8, 5.0, 1.0)]}
    table = {
        name: [Score(f"c{i}", "liver", d, d, 1, 1, {"hd95_surface": h, "volume_error": v}) for i, (d, h, v) in enumerate(rows)]
        for name, rows in values.items()
    }
    choice = chosen(table, metric=metric)
    assert (choice.organs["liver"], choice.metric, choice.table["2d"]["liver"]) == ((best,), metric, pytest.approx(mean_of_flat))
    assert reason in choice.reasons["liver"]
    (other,) = {"2d", "3d"} - {best}
    assert choice.evidence["liver"].compared[other].difference == pytest.approx(difference), "above 0: the chosen one is better"
    with pytest.raises(ValueError, match="metric of liver in case c0: .*, got 'chaos'"):
        chosen(table, metric="chaos")


def test_patients_are_what_is_tested():
    """Two cases of each of three patients are no six cases."""
    table = {"2d": scores(liver=[0.5] * 6), "3d": scores(liver=[0.6, 0.61, 0.62, 0.63, 0.64, 0.65])}
    assert chosen(table).evidence["liver"].compared["2d"].p_value == pytest.approx(2 / 64)
    together = chosen(table, patient_of={f"c{i}": f"p{i // 2}" for i in range(6)})
    assert math.isnan(together.evidence["liver"].compared["2d"].p_value)
    assert "3 patients are too few for a test" in together.reasons["liver"]


@pytest.mark.parametrize(("seconds", "best"), [({}, "2d"), ({"2d": 9.0, "3d": 2.0}, "3d"), ({"3d": 2.0}, "2d")])
def test_seconds_decide_which_is_the_simplest(seconds, best):
    choice = chosen({"2d": scores(liver=[0.9] * 8), "3d": scores(liver=[0.9] * 8)}, seconds=seconds)
    assert (choice.organs["liver"], choice.seconds) == ((best,), seconds)


def test_a_model_whose_organ_is_zero_in_all_cases_joins_no_average_of_it():
    """The 3D model has not learnt the aorta: an average with it must not win by luck, nor be the average that is taken instead of a tie."""
    flat, deep = np.linspace(0.5, 0.9, 12), np.linspace(0.52, 0.88, 12)
    table = {"2d": scores(liver=flat, aorta=flat), "3d": scores(liver=deep, aorta=[0.0] * 11 + [math.nan])}
    table["2d + 3d"] = scores(liver=flat + 0.05, aorta=flat + 0.05)
    choice = chosen(table, ["liver", "aorta"], [FLAT, DEEP, BOTH])
    assert choice.organs == {"liver": ("2d", "3d"), "aorta": ("2d",)}
    assert set(choice.evidence["aorta"].compared) == {"2d", "3d"}
    assert choice.reasons["aorta"].endswith("; 3d: Dice 0 in all cases, so in no average")
    assert "in no average" not in choice.reasons["liver"]
    almost = table | {"3d": scores(liver=deep, aorta=[0.0] * 11 + [0.1])}
    assert chosen(almost, ["aorta"], [FLAT, DEEP, BOTH]).organs["aorta"] == ("2d", "3d")
    for rule in ("best_mean", "cheapest"):
        assert chosen(table, ["aorta"], [FLAT, DEEP, BOTH], rule=rule).organs["aorta"] == ("2d",)
