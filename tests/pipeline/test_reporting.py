"""The report of a results folder: what is there is shown, what is missing is named with the command that adds it."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import CASES, make_case, make_configuration, make_geometry, make_job, make_plan, whole_trace, write_dataset, write_volume

from autoseg import cli
from autoseg.data.descriptions import planned_dataset, raw_dataset, write_planned_dataset
from autoseg.inference.logits import Logits
from autoseg.inference.quantised_logits import save_logits
from autoseg.pipeline.reporting import read_report, write_report
from autoseg.report import Report
from autoseg.report.cases import pick_cases
from autoseg.runtime.outputs import NOTES
from autoseg.runtime.runs import FINAL_CHECKPOINT
from autoseg.runtime.serialization import write_json
from autoseg.runtime.workspace import Workspace
from autoseg.schema import CandidateComparison, Choice, Evidence, NestedEstimate, Score, Split
from autoseg.schema.run_record import RunEnvironment
from autoseg.schema.settings import TrainSettings
from autoseg.selection.dice_regression import QualityEstimate
from autoseg.selection.quality_estimation import read_estimated_dice, write_quality_estimates
from autoseg.trainers.run_environment import RUN_ENVIRONMENT

DATASET = "Dataset001_Tiny"
MODELS = ("2d__Trainer", "3d_fullres__Trainer")
PICTURE = re.compile(r'<image href="data:image/')


def add_fold(home: Path, model: str, fold: str, cases: str, dice: float) -> None:
    """A fold that was trained for three rounds and validated on some cases, on which it is right everywhere."""
    plan = make_plan()
    run = home / "results" / DATASET / model / f"fold_{fold}"
    write_json(run / "run.json", make_job(plan))
    (run / "history.csv").write_text("round,iteration,train_loss,mean_dice,dice_ball,seconds\n1,5,1.5,0.2,0.1,2\n2,10,0.5,0.6,0.7,61\n")
    scores = []
    for name in cases:
        _, labels = make_case(CASES.index(name))
        trace = whole_trace(labels.shape, case=name, geometry=make_geometry(labels.shape, (2.0, 1.0, 1.0)))
        logits = np.stack([(labels == value) * 9 for value in range(3)]).astype(np.float32)
        save_logits(run / "validation", name, Logits(logits, trace), plan.labels)
        write_volume(run / "validation" / f"{name}.nii.gz", np.array([0, 2, 5], np.uint8)[labels])
        scores += [Score(name, organ, dice + 0.01 * CASES.index(name), 0.4, 10, 10) for organ in plan.labels.names]
    write_json(run / "validation" / "scores.json", scores)
    (run / FINAL_CHECKPOINT).touch()


def choose(home: Path) -> Choice:
    """The average segments the ball, the second model the block."""
    compared = {name: CandidateComparison(0.8, 0.7, 0.9, 0.01, 0.2, 0.4) for name in (*MODELS, " + ".join(MODELS))}
    evidence = {organ: Evidence(MODELS[1], 4, compared, NestedEstimate(0.77, 0.71, 0.83, 0.8, 4)) for organ in ("ball", "block")}
    table = {name: {"ball": 0.8, "block": 0.8} for name in compared}
    choice = Choice({"ball": MODELS, "block": MODELS[1:]}, ("0", "1"), table, 4, evidence=evidence)
    write_json(home / "results" / DATASET / "choice.json", choice)
    return choice


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Two models with two folds each, without a choice."""
    write_dataset(tmp_path / "raw" / DATASET)
    write_json(tmp_path / "preprocessed" / DATASET / "plan.json", make_plan())
    write_json(
        tmp_path / "preprocessed" / DATASET / "splits.json", [Split(("c", "d"), ("a", "b")), Split(("a", "b"), ("c", "d"))], digest=False
    )
    for quality, model in enumerate(MODELS):
        for fold, cases in (("0", "ab"), ("1", "cd")):
            add_fold(tmp_path, model, fold, cases, 0.6 + 0.1 * quality)
    return tmp_path


def page_of(home: Path, **options: object) -> str:
    return write_report(1, home=home, **options).read_text(encoding="utf-8")


def report_of(home: Path) -> Report:
    workspace = Workspace(home)
    return read_report(workspace, DATASET, planned_dataset(workspace, 1))


def test_a_whole_results_folder(home: Path) -> None:
    choose(home)
    page = page_of(home)
    assert (home / "results" / DATASET / "report.html").is_file()
    for wanted in ("ball", "block", "2d + 3d_fullres", "0.770 [0.710, 0.830]", "autoseg_train Dataset001_Tiny 3d_fullres 0 --iterations 8"):
        assert wanted in page, wanted
    assert "Best" in page and "Worst" in page and "Median" in page
    assert len(PICTURE.findall(page)) == 3 * 3
    assert "ball <b>1.000</b>" in page, "drawn from the stored probabilities, which are right"
    assert len(re.findall(r"<span [^>]*>1\.000</span>", page)) >= 3, "the table of cases agrees with the pictures"
    assert "Not in this report" not in page


def test_a_report_that_was_copied_without_hidden_files_is_written_again(home: Path) -> None:
    page_of(home)
    shutil.rmtree(home / "results" / DATASET / NOTES)
    assert "Dataset001_Tiny" in page_of(home)


def test_without_a_choice_it_says_how_to_make_one(home: Path) -> None:
    page = page_of(home, cases=1)
    assert "autoseg_find_best_configuration Dataset001_Tiny" in page
    assert len(PICTURE.findall(page)) == 3
    assert "nested estimate" not in page


@pytest.mark.parametrize("is_described", [False, True])
def test_the_data_may_be_gone(home: Path, is_described: bool) -> None:
    choose(home)
    if is_described:
        raw = raw_dataset(Workspace(home), 1)
        write_planned_dataset(Workspace(home), replace(raw, cases=tuple(replace(case, group="one") for case in raw.cases)))
    shutil.rmtree(home / "raw" / DATASET)
    page = page_of(home, out=home / "here.html")
    assert "the images are no longer in raw/" in page
    assert not PICTURE.search(page)
    assert "0.770" in page
    if is_described:
        facts = report_of(home).dataset
        assert (facts.cases, facts.patients) == (4, 1)


def test_removed_predictions_leave_out_their_pictures(home: Path) -> None:
    choose(home)
    for path in (home / "results").rglob("*.b2nd"):
        path.unlink()
    page = page_of(home)
    assert "their stored predictions were removed" in page
    assert not PICTURE.search(page)


def test_before_any_training_there_is_a_plan_to_show(home: Path) -> None:
    shutil.rmtree(home / "results")
    page = page_of(home)
    assert "none is trained yet" in page
    assert "autoseg_train Dataset001_Tiny 3d_fullres 0" in page
    write_json(home / "preprocessed" / DATASET / "plan.json", make_plan(make_configuration(2)))
    assert "autoseg_train Dataset001_Tiny 2d 0" in page_of(home), "what there is"
    (home / "preprocessed" / DATASET / "plan.json").unlink()
    with pytest.raises(ValueError, match="autoseg_plan_and_preprocess -d Dataset001_Tiny"):
        write_report(1, home=home)
    with pytest.raises(ValueError, match="expected 0 or more, got -1"):
        write_report(1, home=home, cases=-1)


def test_one_fold_gives_no_nested_estimate_and_says_which_command_adds_one(home: Path) -> None:
    for model in MODELS:
        shutil.rmtree(home / "results" / DATASET / model / "fold_1")
    choice = choose(home)
    write_json(home / "results" / DATASET / "choice.json", Choice(choice.organs, ("0",), choice.table, 2))
    page = page_of(home, cases=0)
    assert "two folds of every model: <code>autoseg_train Dataset001_Tiny 3d_fullres 1 --iterations 8" in page, "all that fold 0 was asked"
    assert "autoseg_find_best_configuration Dataset001_Tiny" in page


def test_folds_that_the_choice_does_not_count_are_validated_all_the_same(home: Path) -> None:
    shutil.rmtree(home / "results" / DATASET / MODELS[1] / "fold_1")
    record = replace(make_job(make_plan()), settings=TrainSettings(trainer="AdversarialTrainer"))
    write_json(home / "results" / DATASET / MODELS[1] / "fold_0" / "run.json", record)
    choice = choose(home)
    table = {name: row for name, row in choice.table.items() if name != MODELS[0]}
    write_json(home / "results" / DATASET / "choice.json", replace(choice, folds=("0",), table=table))
    missing = {one.what.partition(":")[0]: one.command for one in report_of(home).missing}
    assert not any("validation of" in what for what in missing), missing
    assert missing[f"the comparison of {MODELS[0]}"] == f"autoseg_find_best_configuration {DATASET}"
    command = missing["the nested estimate"]  # of the model that lacks the fold
    assert command.startswith(f"autoseg_train {DATASET} 3d_fullres 1 ") and "--trainer AdversarialTrainer" in command
    (home / "results" / DATASET / MODELS[0] / "fold_1" / "validation" / "scores.json").unlink()
    assert any(one.what.startswith(f"validation of {MODELS[0]} fold 1") for one in report_of(home).missing)


def test_scores_of_another_version_are_a_mistake_that_names_the_file(home: Path) -> None:
    path = home / "results" / DATASET / MODELS[0] / "fold_1" / "validation" / "scores.json"
    path.write_text(json.dumps([{"case": "c", "unknown": 1}]))
    with pytest.raises(ValueError, match="scores.json"):
        write_report(1, home=home, cases=0)


def test_organs_that_were_declared_after_planning_do_not_spoil_the_pictures(home: Path) -> None:
    choose(home)
    path = home / "raw" / DATASET / "dataset.json"
    described = json.loads(path.read_text())
    path.write_text(json.dumps(described | {"labels": {"background": 0, "another": 1, "ball": 2, "block": 5}}))
    page = page_of(home)
    assert len(PICTURE.findall(page)) == 3 * 3
    assert page.count("ball</b>") == 0 and ">ball <b>1.000" in page


def test_what_a_run_was_trained_on_is_read(home: Path) -> None:
    run = home / "results" / DATASET / MODELS[1] / "fold_0"
    where = RunEnvironment("A processor, 2 cores", "cpu", "2.9", 2 * 10**9)
    write_json(run / RUN_ENVIRONMENT, [where])
    runs = {(one.model, one.fold): one for one in report_of(home).runs}
    assert runs[MODELS[1], "0"].run_environment == (where,) and runs[MODELS[1], "1"].run_environment == ()
    assert runs[MODELS[1], "0"].command.endswith("--seed 3 --device cpu")
    assert "A processor, 2 cores" in page_of(home, cases=0)


def test_averages_are_read_case_by_case_from_what_the_choice_kept(home: Path) -> None:
    choose(home)
    average = " + ".join(MODELS)
    record = {"made_from": {}, "scores": {average: [Score("a", "ball", 0.9, 0.8, 1, 1)], "other": [Score("a", "ball", 0.1, 0.1, 1, 1)]}}
    write_json(home / "results" / DATASET / "candidates" / "dice" / "fold_0" / "a.json", record)
    report = report_of(home)
    assert report.scores[average] == {"ball": {"a": 0.9}}
    assert set(report.scores) == {average, *MODELS}
    assert report.folds_of == {"a": "0", "b": "0", "c": "1", "d": "1"}
    assert report.runs[0].history[-1]["seconds"] == 61
    assert report.parameters["3d_fullres__Trainer"] > 1000


def test_a_damaged_run_does_not_take_the_report_with_it(home: Path) -> None:
    path = home / "results" / DATASET / MODELS[0] / "fold_1" / "run.json"
    path.write_text(json.dumps({"plan": json.loads(path.read_text())["plan"]}))
    assert "2d" in page_of(home, cases=0)


def test_predicted_dice_of_a_case_comes_from_the_others(tmp_path: Path) -> None:
    points = [QualityEstimate(f"c{place}", 0.1 * place, 0.2 * place - 0.1) for place in range(1, 6)]
    write_quality_estimates(tmp_path, {"ball": [*points, QualityEstimate("unknown", float("nan"), 0.3)]})
    choice = Choice({}, (), {}, 0)
    estimated_dice = read_estimated_dice(tmp_path, choice)["ball"]
    assert [one.case for one in estimated_dice] == ["c1", "c2", "c3", "c4", "c5"]
    assert [one.estimated for one in estimated_dice] == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])
    assert read_estimated_dice(tmp_path / "nowhere", choice) == {}


def test_pictured_cases_lie_at_even_distances() -> None:
    ranked = [(f"case_{place}", place / 10) for place in range(9)]
    assert pick_cases(ranked, 3) == {"case_8": "Best", "case_4": "Median", "case_0": "Worst"}
    assert list(pick_cases(ranked, 5).values()) == ["Best", "Rank 3 of 9", "Median", "Rank 7 of 9", "Worst"]
    assert pick_cases(ranked[:2], 5) == {"case_1": "Best", "case_0": "Worst"}
    assert pick_cases(ranked, 1) == {"case_4": "Median"}
    assert pick_cases([], 3) == {}


def test_the_command_says_where_the_report_is(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = home / "sub" / "report.html"
    assert cli.report(["1", "-o", str(out), "--cases", "0", "--home", str(home)]) == 0
    assert str(out) in capsys.readouterr().out
    assert out.is_file()
    assert cli.report(["9", "--home", str(home)]) == 2
