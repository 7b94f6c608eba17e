"""The choice of the best candidate for each organ."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
from selection_factories import scores

from autoseg.runtime.serialization import read_json, write_json
from autoseg.schema import Choice, Score
from autoseg.selection.candidates import candidates_for
from autoseg.selection.choice import RULES, SelectionContext, choose
from autoseg.selection.rules import best_mean

FLAT, DEEP, BOTH = candidates_for(["2d", "3d"])


def test_an_organ_is_chosen_among_the_candidates_that_cover_it():
    candidates = candidates_for(["all", "liver_only"], organs={"all": ("liver", "spleen"), "liver_only": ("liver",)})
    table = {"all": scores(liver=[0.7, 0.8], spleen=[0.6, 0.6]), "liver_only": scores(liver=[0.9, 0.8])}
    choice = choose(table, candidates, ["liver", "spleen"], folds=[0])
    assert choice.organs == {"liver": ("liver_only",), "spleen": ("all",)}
    assert choice.table == {
        "all": {"liver": pytest.approx(0.75), "spleen": pytest.approx(0.6)},
        "liver_only": {"liver": pytest.approx(0.85)},
    }
    assert choice.reasons["spleen"].endswith("it is the only candidate")


def test_an_organ_that_no_candidate_covers_is_named_and_left_out(caplog):
    candidates = candidates_for(["one"], organs={"one": ("liver",)})
    with caplog.at_level(logging.WARNING):
        choice = choose({"one": scores(liver=[0.9])}, candidates, ["liver", "spleen", "aorta"], folds=[0])
    assert choice.organs == {"liver": ("one",)}
    assert "No model covers spleen, aorta" in caplog.text


def test_models_of_different_organs_need_no_case_in_common():
    """Two data sets in one, each with one organ annotated."""
    candidates = candidates_for(["one", "other"], organs={"one": ("liver",), "other": ("spleen",)})
    table = {"one": scores(liver=[0.9]), "other": [Score("x", "spleen", 0.8, 0.7, 1, 1)]}
    choice = choose(table, candidates, ["liver", "spleen"], folds=[0])
    assert choice.organs == {"liver": ("one",), "spleen": ("other",)}
    assert choice.cases == 2


def test_each_organ_gets_its_own_best():
    table = {
        "2d": scores(liver=[0.9, 0.9], spleen=[0.5, 0.7]),
        "3d": scores(liver=[0.8, 0.9], spleen=[0.8, 0.8]),
        "2d + 3d": scores(liver=[0.88, 0.9], spleen=[0.9, 0.8]),
    }
    choice = choose(table, [FLAT, DEEP, BOTH], ["liver", "spleen"], folds=[0, 1])
    assert choice.organs == {"liver": ("2d",), "spleen": ("2d", "3d")}
    assert choice.table["3d"] == {"liver": pytest.approx(0.85), "spleen": pytest.approx(0.8)}
    assert (choice.cases, choice.folds, choice.rule) == (2, (0, 1), "supported")
    assert choice.reasons["spleen"] == (
        "2d + 3d: mean Dice 0.8500 over 2 cases; next is 3d with 0.8000; too few cases for a test, so the best mean is taken"
    )


def test_ties_go_to_fewer_members_then_to_the_first_given():
    equal = {candidate.name: scores(liver=[0.9, 0.7]) for candidate in (FLAT, DEEP, BOTH)}
    assert choose(equal, [BOTH, DEEP, FLAT], ["liver"], folds=[0]).organs == {"liver": ("3d",)}
    assert choose(equal, [BOTH, FLAT, DEEP], ["liver"], folds=[0]).organs == {"liver": ("2d",)}
    reason = choose(equal, [FLAT, DEEP], ["liver"], folds=[0], rule="best_mean").reasons["liver"]
    assert reason == "2d: mean Dice 0.8000 over 2 cases; 3d is as good, but this one is cheaper"


def test_rounding_noise_is_a_tie():
    table = {"2d": scores(liver=[0.9]), "3d": scores(liver=[0.9 + 1e-9])}
    assert choose(table, [FLAT, DEEP], ["liver"], folds=[0]).organs["liver"] == ("2d",)


def test_only_cases_that_all_have_are_compared(caplog):
    table = {"2d": scores(liver=[0.5, 0.9, 0.9]), "3d": scores(liver=[0.6])}
    with caplog.at_level(logging.WARNING):
        choice = choose(table, [FLAT, DEEP], ["liver"], folds=[0])
    assert choice.organs["liver"] == ("3d",) and choice.cases == 1
    assert choice.table["2d"]["liver"] == 0.5
    assert "1 of 3 cases" in caplog.text


def test_cases_without_the_organ_are_left_out_and_false_alarms_count():
    table = {"2d": scores(liver=[0.8, math.nan]), "3d": scores(liver=[0.9, 0.0])}
    choice = choose(table, [FLAT, DEEP], ["liver"], folds=[0])
    assert choice.organs["liver"] == ("2d",)
    assert choice.table["3d"]["liver"] == pytest.approx(0.45)
    assert "over 1 case;" in choice.reasons["liver"]


def test_organ_that_no_case_has_goes_to_who_predicts_none():
    table = {"2d": scores(liver=[0.0, math.nan]), "3d": scores(liver=[math.nan, math.nan])}
    choice = choose(table, [FLAT, DEEP], ["liver"], folds=[0])
    assert choice.organs["liver"] == ("3d",)
    assert math.isnan(choice.table["3d"]["liver"])
    assert "no validation case has this organ" in choice.reasons["liver"]


@pytest.mark.parametrize(("metric", "good"), [("precision", 0.6), ("ravd", 30.0)])
def test_who_finds_nothing_is_not_right_because_its_metric_has_no_number(metric, good):
    """The precision of an empty mask is no number; of a metric that shall be low the worst that anybody has takes its place."""
    some = [Score(f"c{i}", "liver", 0.5, 0.4, 10, 10, {metric: good + i / 100}) for i in range(8)]
    none = [Score(f"c{i}", "liver", 0.0, 0.0, 0, 10, {metric: math.nan}) for i in range(8)]
    for order in ([FLAT, DEEP], [DEEP, FLAT]):
        choice = choose({"2d": none, "3d": some}, order, ["liver"], folds=[0], context=SelectionContext(metric))
        assert choice.organs["liver"] == ("3d",)
    assert choice.table["2d"]["liver"] == pytest.approx(0 if metric == "precision" else good + 0.07)


def test_single_candidate_says_so():
    choice = choose({"2d": scores(liver=[0.9])}, [FLAT], ["liver"], folds=[0])
    assert choice.reasons["liver"].endswith("it is the only candidate")


def test_rule_is_a_seam():
    table = {"2d": scores(liver=[0.9, 0.1]), "3d": scores(liver=[0.45, 0.45])}
    assert choose(table, [FLAT, DEEP], ["liver"], folds=[0]).organs["liver"] == ("2d",)
    choice = choose(table, [FLAT, DEEP], ["liver"], folds=[0], rule=f"{__name__}:safest")
    assert choice.organs["liver"] == ("3d",) and choice.rule.endswith(":safest")
    with pytest.raises(ValueError, match="rule of selection: expected one of best_mean, cheapest, supported, got 'best'"):
        choose(table, [FLAT, DEEP], ["liver"], folds=[0], rule="best")
    assert RULES["best_mean"] is best_mean


def safest(comparison):
    """A rule of its own: the best worst case."""
    return max(comparison.candidates, key=lambda candidate: np.nanmin(comparison.higher_is_better[candidate.name])), "best worst case"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"2d": scores(liver=[0.9])}, "no validation scores of 3d"),
        ({"2d": scores(liver=[0.9]), "3d": [Score("x", "liver", 0.9, 0.9, 1, 1)]}, r"no validation case in common \(2d: 1, 3d: 1\)"),
        ({"2d": scores(liver=[0.9]), "3d": scores(spleen=[0.9])}, "3d: case c0 has no score for liver"),
        ({"2d": scores(liver=[0.9]), "3d": scores(liver=[0.9]) * 2}, "3d: case c0 has two scores for liver"),
    ],
)
def test_incomplete_evidence_is_refused(table, message):
    with pytest.raises(ValueError, match=message):
        choose(table, [FLAT, DEEP], ["liver"], folds=[0])


def test_no_candidate_is_refused():
    with pytest.raises(ValueError, match="there is no candidate"):
        choose({}, [], ["liver"], folds=[0])


def test_choice_survives_its_file(tmp_path):
    table = {"2d": scores(liver=np.linspace(0.6, 0.9, 8).tolist()), "3d": scores(liver=np.linspace(0.5, 0.9, 8).tolist())}
    context = SelectionContext(fold_of={f"c{i}": "ab"[i % 2] for i in range(8)}, seconds={"2d": 1.5})
    choice = choose(table, [FLAT, DEEP], ["liver"], folds=["a", "b"], context=context)
    write_json(tmp_path / "choice.json", choice)
    again = read_json(tmp_path / "choice.json", Choice)
    write_json(tmp_path / "again.json", again)
    assert (tmp_path / "again.json").read_text() == (tmp_path / "choice.json").read_text()
    assert again.evidence["liver"].expected == choice.evidence["liver"].expected
    assert again.evidence["liver"].compared["3d"] == choice.evidence["liver"].compared["3d"]


class TestMetrics:
    """The choice follows the metric that was asked for, in its own direction."""

    @staticmethod
    def table():
        found = {"2d": ([0.9, 0.9], [9.0, 7.0], [-5.0, 5.0]), "3d": ([0.8, 0.8], [3.0, 5.0], [1.0, 1.0])}
        return {
            name: [Score(f"c{i}", "liver", d, d, 1, 1, {"hd95_surface": h, "volume_error": v}) for i, (d, h, v) in enumerate(zip(*three))]
            for name, three in found.items()
        }

    @pytest.mark.parametrize(("metric", "best"), [("dice", "2d"), ("hd95_surface", "3d"), ("volume_error", "3d")])
    def test_the_best_is_that_of_the_metric(self, metric, best):
        choice = choose(self.table(), [FLAT, DEEP], ["liver"], folds=[0], context=SelectionContext(metric=metric))
        assert choice.organs["liver"] == (best,)
        assert choice.metric == metric

    def test_numbers_are_the_metrics_own(self):
        choice = choose(self.table(), [FLAT, DEEP], ["liver"], folds=[0], context=SelectionContext(metric="hd95_surface"))
        assert choice.table == {"2d": {"liver": 8.0}, "3d": {"liver": 4.0}}
        assert choice.evidence["liver"].compared["2d"].difference == 4.0, "above 0: the chosen one is better"
        assert "3d: mean HD95 (surface) 4.00 mm over 2 cases" in choice.reasons["liver"]

    def test_a_signed_error_is_judged_by_its_size(self):
        choice = choose(self.table(), [FLAT, DEEP], ["liver"], folds=[0], context=SelectionContext(metric="volume_error"))
        assert choice.table["2d"]["liver"] == 5.0

    def test_a_metric_that_was_not_computed_is_named(self):
        with pytest.raises(ValueError, match="metric of liver in case c0: expected one of .*, got 'chaos'"):
            choose(self.table(), [FLAT, DEEP], ["liver"], folds=[0], context=SelectionContext(metric="chaos"))


def test_patients_are_what_is_tested():
    """Two cases of each of three patients are no six cases."""
    table = {"2d": scores(liver=[0.5] * 6), "3d": scores(liver=[0.6, 0.61, 0.62, 0.63, 0.64, 0.65])}
    alone = choose(table, [FLAT, DEEP], ["liver"], folds=[0])
    assert alone.evidence["liver"].compared["2d"].p_value == pytest.approx(2 / 64)
    patients = {f"c{i}": f"p{i // 2}" for i in range(6)}
    together = choose(table, [FLAT, DEEP], ["liver"], folds=[0], context=SelectionContext(patient_of=patients))
    assert math.isnan(together.evidence["liver"].compared["2d"].p_value)
    assert "too few cases for a test" in together.reasons["liver"]


def test_seconds_decide_which_is_the_simplest():
    table = {"2d": scores(liver=[0.9] * 8), "3d": scores(liver=[0.9] * 8)}
    assert choose(table, [FLAT, DEEP], ["liver"], folds=[0]).organs["liver"] == ("2d",)
    quick = choose(table, [FLAT, DEEP], ["liver"], folds=[0], context=SelectionContext(seconds={"2d": 9.0, "3d": 2.0}))
    assert quick.organs["liver"] == ("3d",) and quick.seconds == {"2d": 9.0, "3d": 2.0}
    unknown = choose(table, [FLAT, DEEP], ["liver"], folds=[0], context=SelectionContext(seconds={"3d": 2.0}))
    assert unknown.organs["liver"] == ("2d",)
