"""The evidence for a choice: cases that are still there, and averages whose members' probabilities are."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from factories import DATASET, add_model, plan_of, planned_home

from autoseg.data.descriptions import raw_dataset, write_planned_dataset
from autoseg.pipeline import choosing, describe_choice, find_best_configuration
from autoseg.pipeline.choosing import choose_again
from autoseg.runtime.case_contents import checkpoint_id
from autoseg.runtime.runs import ModelFolder
from autoseg.runtime.serialization import read_json, write_json
from autoseg.runtime.workspace import Workspace
from autoseg.schema import Choice, candidate_name
from autoseg.schema.cheaper_prediction import NO_MIRRORING, CheaperCase, CheaperValidation
from autoseg.selection import postprocessing_trials
from autoseg.selection.cheaper_ways import dice_loss

MODELS = ("2d__Trainer", "3d_fullres__Trainer")
BALL, BLOCK = "2d__Trainer__ball", "2d__Trainer__block"


@pytest.fixture
def home(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Path:
    """Two models with their predictions of cases a and b in fold 0; the second is better."""
    caplog.set_level(logging.WARNING)
    for quality, model in enumerate(MODELS):
        add_model(planned_home(tmp_path), model, quality=quality)
    return tmp_path


def singles(home: Path) -> Choice:
    return find_best_configuration(1, home=home, max_members=1)


@pytest.mark.parametrize("removed", ["", "a.b2nd", "b.trace.json"])
def test_averages_are_judged_where_all_probabilities_are_there(home, caplog, removed):
    if removed:
        (home / "results" / DATASET / MODELS[0] / "fold_0" / "validation" / removed).unlink()
    choice = find_best_configuration(1, home=home)
    assert set(choice.table) == {*MODELS, *(() if removed else (candidate_name(MODELS),))}
    assert choice.organs["ball"] == (MODELS[1:] if removed else MODELS)
    assert choice.cases == 2
    assert (f"Averages with {MODELS[0]} are not judged" in caplog.text) == bool(removed)


def test_all_models_are_compared_though_one_has_more_folds_and_vote_with_all_of_theirs(home):
    """The first stage of a cascade has every fold, the others may have one."""
    for fold, case in (("1", "c"), ("2", "d")):
        add_model(home, MODELS[0], fold=fold, cases=case)
    choice = singles(home)
    assert (set(choice.table), choice.folds, choice.organs["ball"]) == (set(MODELS), ("0",), (MODELS[1],))
    assert choice.member_folds == {MODELS[1]: ("0",)}
    for fold, cases in (("0", "ab"), ("2", "d")):
        add_model(home, "3d_lowres__Trainer", quality=2, fold=fold, cases=cases)
    assert singles(home).member_folds == {"3d_lowres__Trainer": ("0", "2")}


@pytest.mark.parametrize("planned", [False, True])
def test_cases_that_left_the_dataset_are_left_out(home, caplog, planned):
    raw, written = home / "raw" / DATASET, home / "results" / DATASET / "choice.json"
    if planned:
        write_planned_dataset(Workspace(home), raw_dataset(Workspace(home), 1))
    else:
        (raw / "imagesTr" / "b_0000.nii.gz").unlink()
    (raw / "labelsTr" / "b.nii.gz").unlink()
    choice = find_best_configuration(1, home=home)
    assert (choice.cases, len(choice.table)) == (1, 3)
    assert "no longer in the dataset and left out: b" in caplog.text
    if planned:
        before = written.read_bytes()
        shutil.rmtree(raw)
        with pytest.raises(ValueError, match="label maps of the cases"):
            find_best_configuration(1, home=home)
        assert written.read_bytes() == before


def test_the_planned_patients_are_the_units_of_tests_and_of_post_processing(home, monkeypatch):
    raw = raw_dataset(Workspace(home), 1)
    patients = {"a": "p1", "b": "p1", "c": "p2", "d": "p2"}
    write_planned_dataset(Workspace(home), replace(raw, cases=tuple(replace(case, group=patients[case.name]) for case in raw.cases)))
    for model in MODELS:
        add_model(home, model, fold="1", cases="cd")
    options: dict[str, object] = {}
    for module, name in ((choosing, "choose"), (postprocessing_trials, "select_postprocessing")):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given, real=real, **named: options.update(named) or real(*given, **named))
    find_best_configuration(1, home=home)
    assert (options["context"].patient_of, options["groups"]) == (patients, ["p1", "p1", "p2", "p2"])


def test_a_choice_records_what_cheaper_ways_lose(home):
    run = ModelFolder(home / "results" / DATASET / MODELS[0]).run("0")
    measured = [CheaperCase(case, NO_MIRRORING, case, {"ball": 0.8}, {"ball": 0.9}) for case in "ab"]
    write_json(run.validation / "cheaper.json", CheaperValidation(checkpoint_id(run.checkpoint), measured))
    choice = find_best_configuration(1, home=home)
    assert choice.cheaper == {MODELS[0]: {NO_MIRRORING: dice_loss(measured)}}
    assert read_json(home / "results" / DATASET / "choice.json", Choice).cheaper == choice.cheaper


def test_a_second_choice_keeps_to_the_rule_the_metric_and_the_limits_of_the_first(home):
    assert choose_again(1, home=home).rule == "supported"
    for seconds, model in zip((2.0, 9.0), MODELS, strict=True):
        write_json(home / "results" / DATASET / model / "fold_0" / "validation" / "timings.json", {"a": seconds, "b": seconds})
    options = {"rule": "cheapest", "metric": "iou", "max_members": 1, "max_seconds": 5}
    find_best_configuration(1, home=home, **options)
    again = choose_again(1, home=home)
    assert {name: getattr(again, name) for name in options} == options
    assert (again.table.keys(), set(again.organs.values())) == ({MODELS[0]}, {MODELS[:1]}), "the other one is too slow"
    path = home / "results" / DATASET / "choice.json"
    write_json(path, json.loads(path.read_text()) | {"rule": "a rule that is no more"})
    assert choose_again(1, home=home).rule == "supported"


@pytest.mark.parametrize(
    ("options", "message"),
    [({"metric": "volume"}, "metric volume"), ({"metric": "global_dice"}, "all cases"), ({"rule": "bset_mean"}, "best_mean")],
)
def test_what_cannot_be_chosen_by_is_refused_before_anything_is_computed(home, monkeypatch, options, message):
    monkeypatch.setattr(choosing, "scored_candidates", None)
    with pytest.raises(ValueError, match=message):
        find_best_configuration(1, home=home, **options)


class TestModelsOfSomeOrgans:
    def test_averages_of_the_same_organs_are_judged_from_stored_probabilities(self, home):
        blocks = (BLOCK, "3d_fullres__Trainer__block")
        for number, model in enumerate(blocks):
            add_model(home, model, plan_of("block"), quality=2 + number)
        choice = find_best_configuration(1, home=home)
        assert set(choice.table) == {*MODELS, candidate_name(MODELS), *blocks, candidate_name(blocks)}
        assert choice.table[candidate_name(blocks)] == {"block": 1.0}, "they say what is right"
        assert choice.organs == {"ball": MODELS, "block": MODELS}, "among equals what needs fewer networks"
        assert f"block  ->  {candidate_name(MODELS)}" in describe_choice(choice).splitlines()

    def test_the_model_of_more_organs_is_the_cheaper_one(self, home):
        shutil.rmtree(home / "results" / DATASET / MODELS[1])
        for quality, best in enumerate((MODELS[0], "2d__A__block")):
            add_model(home, "2d__A__block", plan_of("block"), quality=quality)
            assert singles(home).organs["block"] == (best,)

    def test_folds_are_compared_in_which_every_organ_has_a_model(self, tmp_path):
        for fold, cases in enumerate("abc"):
            add_model(planned_home(tmp_path), BALL, plan_of("ball"), fold=str(fold), cases=cases)
        add_model(tmp_path, BLOCK, plan_of("block"), fold="1", cases="b")
        choice = find_best_configuration(1, home=tmp_path)
        assert choice.organs == {"ball": (BALL,), "block": (BLOCK,)}
        assert (choice.folds, choice.cases) == (("1",), 1)
        assert choice.member_folds == {BALL: ("0", "1", "2"), BLOCK: ("1",)}

    def test_a_case_without_annotation_of_its_organs_says_nothing_of_a_model(self, home, caplog):
        """Case a shows the ball only: the block's model has no score there, which must not cost the others theirs."""
        path = home / "raw" / DATASET / "dataset.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"annotated": {"a": ["ball"]}}))
        add_model(home, BLOCK, plan_of("block"), quality=3, cases="b")
        choice = singles(home)
        assert (choice.organs, choice.cases) == ({"ball": MODELS[1:], "block": (BLOCK,)}, 2)
        assert "left out" not in caplog.text

    def test_a_model_without_any_score_is_taken_where_there_is_nothing_else(self, home, caplog):
        add_model(home, BLOCK, plan_of("block"), cases="")
        choice = singles(home)
        assert (choice.organs, choice.cases) == ({"ball": MODELS[1:], "block": MODELS[1:]}, 2)
        assert f"they have no scores of the validation cases: {BLOCK}" in caplog.text
        for model in MODELS:
            shutil.rmtree(home / "results" / DATASET / model)
        choice = find_best_configuration(1, home=home)
        assert choice.organs == {"block": (BLOCK,)}
        assert "the only model of it" in describe_choice(choice)

    def test_an_organ_whose_models_share_no_fold_with_the_others_keeps_the_best_of_them(self, tmp_path, caplog):
        for fold, cases in (("0", "a"), ("1", "b")):
            add_model(planned_home(tmp_path), BALL, plan_of("ball"), fold=fold, cases=cases)
        add_model(tmp_path, BLOCK, plan_of("block"), fold="all", cases="ab")
        only = find_best_configuration(1, home=tmp_path)
        assert only.organs == {"ball": (BALL,), "block": (BLOCK,)}
        assert only.member_folds == {BALL: ("0", "1"), BLOCK: ("all",)}
        assert only.reasons["block"] == f"{BLOCK}: not compared with the others; the only model of it"
        for quality, fold, model in ((1, "2", "3d_lowres__Trainer__block"), (2, "3", "3d_fullres__Trainer__block")):
            add_model(tmp_path, model, plan_of("block"), quality=quality, fold=fold, cases="c")
        best = find_best_configuration(1, home=tmp_path)
        assert (best.organs["block"], best.folds, best.cases) == (("3d_fullres__Trainer__block",), ("0", "1"), 2)
        assert best.member_folds["3d_fullres__Trainer__block"] == ("3",)
        assert "No model covers" not in caplog.text
