"""The evidence for a choice: cases that are still there, and averages whose members' probabilities are."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from factories import make_plan
from selection_factories import DATASET, add_model, plan_of

from autoseg.data.descriptions import raw_dataset, write_planned_dataset
from autoseg.pipeline import choosing, describe_choice, find_best_configuration
from autoseg.pipeline.choosing import choose_again
from autoseg.runtime.serialization import write_json
from autoseg.runtime.workspace import Workspace
from autoseg.schema import candidate_name
from autoseg.selection import postprocessing_trials

MODELS = ("2d__Trainer", "3d_fullres__Trainer")


@pytest.fixture
def home(tmp_path: Path, tiny_dataset) -> Path:
    """Two models with their predictions of cases a and b in fold 0; the second is better."""
    tiny_dataset(tmp_path / "raw" / DATASET)
    write_json(tmp_path / "preprocessed" / DATASET / "plan.json", make_plan())
    for quality, model in enumerate(MODELS):
        add_model(tmp_path, model, make_plan(), quality=quality)
    return tmp_path


def test_averages_are_judged_where_all_probabilities_are_there(home):
    choice = find_best_configuration(1, home=home)
    assert set(choice.table) == {*MODELS, candidate_name(MODELS)}
    assert choice.organs["ball"] == MODELS
    assert choice.cases == 2


@pytest.mark.parametrize("removed", ["a.b2nd", "b.trace.json"])
def test_averages_whose_probabilities_were_removed_are_left_out(home, caplog, removed):
    (home / "results" / DATASET / MODELS[0] / "fold_0" / "validation" / removed).unlink()
    with caplog.at_level(logging.WARNING):
        choice = find_best_configuration(1, home=home)
    assert set(choice.table) == set(MODELS)
    assert choice.organs["ball"] == MODELS[1:]
    assert choice.cases == 2
    assert f"Averages with {MODELS[0]} are not judged" in caplog.text


def test_all_models_are_compared_though_one_has_more_folds_and_vote_with_all_of_theirs(home):
    """The first stage of a cascade has every fold, the others may have one."""
    for fold, case in (("1", "c"), ("2", "d")):
        add_model(home, MODELS[0], make_plan(), fold=fold, cases=case)
    choice = find_best_configuration(1, home=home, max_members=1)
    assert set(choice.table) == set(MODELS)
    assert choice.folds == ("0",)
    assert choice.organs["ball"] == (MODELS[1],)
    assert choice.member_folds == {MODELS[1]: ("0",)}
    add_model(home, "3d_lowres__Trainer", make_plan(), quality=2)
    add_model(home, "3d_lowres__Trainer", make_plan(), quality=2, fold="2", cases="d")
    assert find_best_configuration(1, home=home, max_members=1).member_folds == {"3d_lowres__Trainer": ("0", "2")}


def test_cases_that_left_the_dataset_are_left_out(home, caplog):
    raw = home / "raw" / DATASET
    (raw / "imagesTr" / "b_0000.nii.gz").unlink()
    (raw / "labelsTr" / "b.nii.gz").unlink()
    with caplog.at_level(logging.WARNING):
        choice = find_best_configuration(1, home=home)
    assert choice.cases == 1
    assert len(choice.table) == 3
    assert "no longer in the dataset and left out: b" in caplog.text


def test_cases_that_were_removed_after_planning_are_left_out(home, caplog):
    write_planned_dataset(Workspace(home), raw_dataset(Workspace(home), 1))
    labels = home / "raw" / DATASET / "labelsTr"
    (labels / "b.nii.gz").unlink()
    with caplog.at_level(logging.WARNING):
        assert find_best_configuration(1, home=home).cases == 1
    assert "no longer in the dataset and left out: b" in caplog.text
    written = (home / "results" / DATASET / "choice.json").read_bytes()
    shutil.rmtree(home / "raw" / DATASET)
    with pytest.raises(ValueError, match="expected the label maps of the cases"):
        find_best_configuration(1, home=home)
    assert (home / "results" / DATASET / "choice.json").read_bytes() == written


def test_the_planned_patients_are_the_units_of_tests_and_of_post_processing(home, monkeypatch):
    workspace = Workspace(home)
    raw = raw_dataset(workspace, 1)
    patients = {"a": "p1", "b": "p1", "c": "p2", "d": "p2"}
    write_planned_dataset(workspace, replace(raw, cases=tuple(replace(case, group=patients[case.name]) for case in raw.cases)))
    for model in MODELS:
        add_model(home, model, make_plan(), fold="1", cases="cd")
    units: dict[str, object] = {}
    choose, select_postprocessing = choosing.choose, postprocessing_trials.select_postprocessing
    monkeypatch.setattr(
        choosing, "choose", lambda *given, **named: units.update(tests=named["context"].patient_of) or choose(*given, **named)
    )
    monkeypatch.setattr(
        postprocessing_trials,
        "select_postprocessing",
        lambda *given, **named: units.update(masks=named["groups"]) or select_postprocessing(*given, **named),
    )
    find_best_configuration(1, home=home)
    assert units == {"tests": patients, "masks": ["p1", "p1", "p2", "p2"]}


def test_a_second_choice_keeps_to_the_rule_and_the_metric_of_the_first(home):
    assert choose_again(1, home=home).rule == "supported"
    find_best_configuration(1, home=home, rule="cheapest", metric="iou", max_members=1)
    again = choose_again(1, home=home)
    assert (again.rule, again.metric) == ("cheapest", "iou")
    assert (again.max_members, again.table.keys()) == (1, set(MODELS)), "and to its limits"
    path = home / "results" / DATASET / "choice.json"
    write_json(path, json.loads(path.read_text()) | {"by": "a rule that is no more"})
    assert choose_again(1, home=home).rule == "supported"


def test_models_that_are_too_slow_stay_left_out(home):
    for seconds, model in zip((2.0, 9.0), MODELS, strict=True):
        write_json(home / "results" / DATASET / model / "fold_0" / "validation" / "timings.json", {"a": seconds, "b": seconds})
    choice = find_best_configuration(1, home=home, max_seconds=5)
    assert set(choice.organs.values()) == {MODELS[:1]}
    again = choose_again(1, home=home)
    assert (again.max_seconds, set(again.organs.values())) == (5, {MODELS[:1]})


@pytest.mark.parametrize(
    ("options", "message"), [({"metric": "volume"}, "metric volume: expected one that says"), ({"rule": "bset_mean"}, "best_mean")]
)
def test_what_cannot_be_chosen_by_is_refused_before_anything_is_computed(home, monkeypatch, options, message):
    monkeypatch.setattr(choosing, "scored_candidates", None)
    with pytest.raises(ValueError, match=message):
        find_best_configuration(1, home=home, **options)


class TestModelsOfSomeOrgans:
    def test_averages_of_the_same_organs_are_judged_from_stored_probabilities(self, home):
        blocks = ("2d__Trainer__block", "3d_fullres__Trainer__block")
        for number, model in enumerate(blocks):
            add_model(home, model, plan_of("block"), quality=2 + number)
        choice = find_best_configuration(1, home=home)
        assert set(choice.table) == {*MODELS, candidate_name(MODELS), *blocks, candidate_name(blocks)}
        assert choice.table[candidate_name(blocks)] == {"block": 1.0}, "they say what is right"
        assert choice.organs == {"ball": MODELS, "block": MODELS}, "among equals what needs fewer networks"
        assert f"block  ->  {candidate_name(MODELS)}" in describe_choice(choice).splitlines()

    def test_the_model_of_more_organs_is_the_cheaper_one(self, home):
        shutil.rmtree(home / "results" / DATASET / MODELS[1])
        add_model(home, "2d__A__block", plan_of("block"))
        assert find_best_configuration(1, home=home, max_members=1).organs["block"] == (MODELS[0],)
        add_model(home, "2d__A__block", plan_of("block"), quality=1)
        assert find_best_configuration(1, home=home, max_members=1).organs["block"] == ("2d__A__block",)

    def test_folds_are_compared_in_which_every_organ_has_a_model(self, tmp_path, tiny_dataset, caplog):
        tiny_dataset(tmp_path / "raw" / DATASET)
        write_json(tmp_path / "preprocessed" / DATASET / "plan.json", make_plan())
        for fold, cases in enumerate(("a", "b", "c")):
            add_model(tmp_path, "2d__Trainer__ball", plan_of("ball"), fold=str(fold), cases=cases)
        add_model(tmp_path, "2d__Trainer__block", plan_of("block"), fold="1", cases="b")
        choice = find_best_configuration(1, home=tmp_path)
        assert choice.organs == {"ball": ("2d__Trainer__ball",), "block": ("2d__Trainer__block",)}
        assert (choice.folds, choice.cases) == (("1",), 1)
        assert choice.member_folds == {"2d__Trainer__ball": ("0", "1", "2"), "2d__Trainer__block": ("1",)}

    def test_a_case_without_annotation_of_its_organs_says_nothing_of_a_model(self, home, caplog):
        """Case a shows the ball only: the block's model has no score there, which must not cost the others theirs."""
        path = home / "raw" / DATASET / "dataset.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"annotated": {"a": ["ball"]}}))
        add_model(home, "2d__Trainer__block", plan_of("block"), quality=3, cases="b")
        with caplog.at_level(logging.WARNING):
            choice = find_best_configuration(1, home=home, max_members=1)
        assert choice.organs == {"ball": MODELS[1:], "block": ("2d__Trainer__block",)}
        assert choice.cases == 2
        assert "left out" not in caplog.text

    def test_a_model_without_any_score_is_left_out_of_the_comparison(self, home, caplog):
        add_model(home, "2d__Trainer__block", plan_of("block"), cases="")
        choice = find_best_configuration(1, home=home, max_members=1)
        assert choice.organs == {"ball": MODELS[1:], "block": MODELS[1:]}
        assert choice.cases == 2
        assert "they have no scores of the validation cases: 2d__Trainer__block" in caplog.text

    def test_models_without_any_score_are_taken_where_there_is_nothing_else(self, tmp_path, tiny_dataset):
        tiny_dataset(tmp_path / "raw" / DATASET)
        write_json(tmp_path / "preprocessed" / DATASET / "plan.json", make_plan())
        add_model(tmp_path, "2d__Trainer__block", plan_of("block"), cases="")
        choice = find_best_configuration(1, home=tmp_path)
        assert choice.organs == {"block": ("2d__Trainer__block",)}
        assert "the only model of it" in describe_choice(choice)

    def test_an_organ_whose_models_share_no_fold_with_the_others_keeps_the_best_of_them(self, home, caplog):
        for model in MODELS:
            shutil.rmtree(home / "results" / DATASET / model)
        for fold, cases in (("0", "a"), ("1", "b")):
            add_model(home, "2d__Trainer__ball", plan_of("ball"), fold=fold, cases=cases)
        add_model(home, "2d__Trainer__block", plan_of("block"), fold="all", cases="ab")
        only = find_best_configuration(1, home=home)
        assert only.organs == {"ball": ("2d__Trainer__ball",), "block": ("2d__Trainer__block",)}
        assert only.member_folds == {"2d__Trainer__ball": ("0", "1"), "2d__Trainer__block": ("all",)}
        assert only.reasons["block"] == "2d__Trainer__block: not compared with the others; the only model of it"
        for quality, fold, model in ((1, "2", "3d_lowres__Trainer__block"), (2, "3", "3d_fullres__Trainer__block")):
            add_model(home, model, plan_of("block"), quality=quality, fold=fold, cases="c")
        best = find_best_configuration(1, home=home)
        assert best.organs["block"] == ("3d_fullres__Trainer__block",)
        assert best.member_folds["3d_fullres__Trainer__block"] == ("3",)
        assert (best.folds, best.cases) == (("0", "1"), 2)
        assert "No model covers" not in caplog.text
