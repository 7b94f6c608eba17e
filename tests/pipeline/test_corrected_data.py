"""Images and label maps that were corrected and planned again after a model had been trained on them or judged by them."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle_home import DATASET, MODEL, HomeFactory, oracle_case

import autoseg
from autoseg.data.images import read_image, read_label, write_image, write_label
from autoseg.pipeline import PlanSettings, PredictSettings, TrainSettings, find_best_configuration, plan_and_preprocess, train
from autoseg.pipeline.reporting import write_report
from autoseg.runtime.case_contents import changed_contents, note_contents
from autoseg.runtime.checkpoints import load_checkpoint, save_checkpoint
from autoseg.runtime.hardware import StepCost
from autoseg.runtime.locks import exclusive_lock
from autoseg.runtime.provenance import Stamp, stamp_path
from autoseg.runtime.runs import Run
from autoseg.runtime.serialization import read_json, write_json
from autoseg.schema import Case, Score
from autoseg.trainers.corrected_references import is_only_judged_anew


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoseg.trainers.run_setup.measure_step", lambda job, device: StepCost(0.01, 1))
    monkeypatch.setattr("autoseg.trainers.history.plot_history", lambda rows, path: path.touch())


def run_of(home: Path) -> Run:
    return Run(home / "results" / DATASET / MODEL[3] / "fold_0")


def correct_label(home: Path, *cases: str, plan: bool = True) -> None:
    """Half of organ 1 becomes organ 2 in some cases; the intensities of all organs together, with which a run goes on, stay."""
    for name in cases:
        file = home / "raw" / DATASET / "labelsTr" / f"{name}.nii.gz"
        label = read_label(file)
        array = label.array.copy()
        where = np.argwhere(array == 1)
        array[tuple(where[: len(where) // 2].T)] = 2
        write_label(file, array, label.geometry)
    if plan:
        plan_again(home)


def plan_again(home: Path) -> None:
    plan_and_preprocess(1, PlanSettings(configurations=("3d_fullres",), workers=0), home=home)


def train_again(home: Path, **settings: Any) -> list[Score]:
    asked = {"network": "oracle_home:Oracle", "iterations": 3, "batch": 1, "device": "cpu", **settings}
    return train(1, "3d_fullres", 0, TrainSettings(**asked), home=home)


def split_of(home: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    split = run_of(home).record().split
    return split.train, split.val


def interrupted(home: Path) -> Run:
    """The run as it is before its training ends."""
    run = run_of(home)
    run.checkpoint.unlink()
    return run


def test_a_training_does_not_go_on_with_corrected_cases(oracle_home: HomeFactory) -> None:
    home = oracle_home()
    run, (trained, _) = interrupted(home), split_of(home)
    correct_label(home, trained[0])
    with pytest.raises(ValueError, match=rf"fold_0: was started with other contents of {trained[0]} \(label\).*--restart"):
        train_again(home)
    assert not run.checkpoint.exists()
    assert train_again(home, restart=True)


def test_a_training_goes_on_where_only_a_held_out_case_was_corrected(oracle_home: HomeFactory) -> None:
    home = oracle_home()
    interrupted(home)
    _, (held_out, *_) = split_of(home)
    correct_label(home, held_out)
    assert dice_of(train_again(home), held_out) == pytest.approx(2 / 3, abs=0.05)


def test_a_run_of_an_earlier_version_goes_on_and_says_what_is_not_known(oracle_home: HomeFactory, caplog: pytest.LogCaptureFixture) -> None:
    home = oracle_home()
    run, (trained, _) = interrupted(home), split_of(home)
    stamp_path(run.record_file).unlink()
    correct_label(home, trained[0])
    with caplog.at_level("INFO"):
        train_again(home)
    assert "did not note the contents of its cases" in caplog.text


def test_a_finished_run_says_that_it_was_trained_on_former_labels(oracle_home: HomeFactory, caplog: pytest.LogCaptureFixture) -> None:
    home = oracle_home()
    trained, _ = split_of(home)
    correct_label(home, *trained[:2])
    train_again(home)
    assert f"was trained on former contents of {trained[0]} (label), {trained[1]} (label); train it again with --restart" in caplog.text


def dice_of(scores: list[Score], case: str, organ: str = "organ1") -> float:
    return next(score.dice for score in scores if (score.case, score.organ) == (case, organ))


def test_held_out_cases_are_scored_again_after_their_labels_were_corrected(
    oracle_home: HomeFactory, caplog: pytest.LogCaptureFixture
) -> None:
    home = oracle_home()
    run, (_, (case, *_)) = run_of(home), split_of(home)
    assert dice_of(run.scores(), case) == 1.0
    before = find_best_configuration(1, home=home)
    correct_label(home, case)

    autoseg.predict((oracle_case(7)[0], (2.5, 0.8, 0.7)), 1, settings=PredictSettings(device="cpu"), home=home)
    assert f"choice.json was made with former contents of {case} (label); choose again" in caplog.text
    report = write_report(1, home=home, cases=0).read_text()
    assert f"scores of {case} (label): they were made with former contents" in report

    choice = find_best_configuration(1, home=home)
    assert f"scored again, as they were corrected since: {case} (label)" in caplog.text
    assert dice_of(run.scores(), case) == pytest.approx(2 / 3, abs=0.05)
    assert choice.table[MODEL[3]]["organ1"] == pytest.approx(np.mean([score.dice for score in run.scores() if score.organ == "organ1"]))
    assert choice.table[MODEL[3]]["organ1"] < before.table[MODEL[3]]["organ1"] == 1.0
    assert "former contents" not in write_report(1, home=home, cases=0).read_text()


def test_an_organ_that_is_no_longer_annotated_has_no_score(oracle_home: HomeFactory) -> None:
    home = oracle_home()
    run, (_, (case, *_)) = run_of(home), split_of(home)
    file = home / "raw" / DATASET / "labelsTr" / f"{case}.nii.gz"
    label = read_label(file)
    write_label(file, np.where(label.array == 1, 0, label.array), label.geometry)
    description = file.parent.parent / "dataset.json"
    description.write_text(description.read_text().replace("{", f'{{"annotated": {{"{case}": ["organ2"]}}, ', 1))
    plan_again(home)
    find_best_configuration(1, home=home)
    assert [score.organ for score in run.scores() if score.case == case] == ["organ2"]


def test_a_prediction_of_a_former_image_judges_no_model(oracle_home: HomeFactory, caplog: pytest.LogCaptureFixture) -> None:
    home = oracle_home()
    _, held_out = split_of(home)
    file = home / "raw" / DATASET / "imagesTr" / f"{held_out[0]}_0000.nii.gz"
    image = read_image([file])
    write_image(file, image.array + 1, image.geometry)
    plan_again(home)
    choice = find_best_configuration(1, home=home)
    assert f"was validated on former images of {held_out[0]} (image 0); train it again with --restart" in caplog.text
    assert choice.cases == len(held_out) - 1


def test_labels_that_were_changed_without_planning_again_judge_nothing(oracle_home: HomeFactory) -> None:
    home = oracle_home()
    _, (case, *_) = split_of(home)
    run_of(home).scores_file.unlink()
    run_of(home).case_scores(case).unlink()
    correct_label(home, case, plan=False)
    with pytest.raises(RuntimeError, match="expected the label map that was planned with.*autoseg_plan_and_preprocess again"):
        train_again(home)


def test_scores_of_an_earlier_version_stay(oracle_home: HomeFactory) -> None:
    home = oracle_home()
    run, (_, (case, *_)) = run_of(home), split_of(home)
    stamp_path(run.case_scores(case)).unlink()
    correct_label(home, case)
    find_best_configuration(1, home=home)
    assert dice_of(run.scores(), case) == 1.0
    assert not math.isnan(dice_of(run.scores(), case, "organ2"))


def test_a_scoring_that_was_interrupted_is_made_up_for(oracle_home: HomeFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    home = oracle_home()
    run, (_, (case, *_)) = run_of(home), split_of(home)
    correct_label(home, case)
    with monkeypatch.context() as killed:
        killed.setattr("autoseg.trainers.corrected_references.write_case_scores", interrupt)
        with pytest.raises(KeyboardInterrupt):
            find_best_configuration(1, home=home)
    find_best_configuration(1, home=home)
    assert dice_of(run.scores(), case) == dice_of(read_json(run.case_scores(case), list[Score]), case) == pytest.approx(2 / 3, abs=0.05)


def interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("lost", [False, True])
def test_scores_that_an_earlier_version_left_behind_an_interruption_are_right_again(oracle_home: HomeFactory, lost: bool) -> None:
    """It wrote the note and the scores of each case first, and all together last."""
    home = oracle_home()
    run, (_, (case, *_)) = run_of(home), split_of(home)
    before = run.scores_file.read_bytes()
    correct_label(home, case)
    find_best_configuration(1, home=home)
    run.scores_file.write_bytes(before)
    if lost:
        run.case_scores(case).unlink()
    choice = find_best_configuration(1, home=home)
    assert dice_of(run.scores(), case) == pytest.approx(2 / 3, abs=0.05)
    assert choice.table[MODEL[3]]["organ1"] < 1


def test_the_predictions_of_a_former_network_do_not_stand_for_the_new_one(oracle_home: HomeFactory) -> None:
    home = oracle_home()
    run, (_, held_out) = interrupted(home), split_of(home)
    before = {case: run.logits(case).stat().st_mtime_ns for case in held_out}
    train_again(home)
    assert all(run.logits(case).stat().st_mtime_ns != then for case, then in before.items())
    predicted = {case: run.logits(case).stat().st_mtime_ns for case in held_out}
    train_again(home)
    assert all(run.logits(case).stat().st_mtime_ns == then for case, then in predicted.items())


def test_a_replaced_network_is_validated_before_it_is_chosen(oracle_home: HomeFactory, caplog: Any) -> None:
    home = oracle_home()
    run, (_, held_out) = run_of(home), split_of(home)
    states, meta = load_checkpoint(run.checkpoint)
    save_checkpoint(run.checkpoint, states, {**meta, "of": "somebody else"})
    with pytest.raises(ValueError, match="nothing is trained and validated yet"):
        find_best_configuration(1, home=home)
    assert "folds were validated with other networks: 0; train them again" in caplog.text
    before = run.logits(held_out[0]).stat().st_mtime_ns
    train_again(home)
    assert run.logits(held_out[0]).stat().st_mtime_ns != before
    assert find_best_configuration(1, home=home).organs


def test_scores_without_a_note_of_their_network_stay(oracle_home: HomeFactory) -> None:
    home = oracle_home()
    run, (_, held_out) = run_of(home), split_of(home)
    for case in held_out:
        note = stamp_path(run.case_scores(case))
        stamp = read_json(note, Stamp)
        write_json(note, Stamp({key: one for key, one in stamp.inputs.items() if key != "network"}, {case: "all"}))
    before = run.logits(held_out[0]).stat().st_mtime_ns
    find_best_configuration(1, home=home)
    train_again(home)
    assert run.logits(held_out[0]).stat().st_mtime_ns == before


def test_headers_that_are_read_in_another_way_are_other_images(tmp_path: Path) -> None:
    case = Case("a", (tmp_path / "a.nii.gz",), tmp_path / "l.nii.gz", digests=("1:1", "2:2"), nifti_geometry="sform")
    note_contents(tmp_path / "a.scores.json", [case])
    assert changed_contents(tmp_path / "a.scores.json", [case]) == {}
    other = changed_contents(tmp_path / "a.scores.json", [replace(case, nifti_geometry="qform")])
    assert other == {"a": ("image headers, by --nifti-geometry",)} and not is_only_judged_anew(other["a"])


@pytest.mark.parametrize("probabilities", [True, False])
def test_a_corrected_case_without_its_label_map_of_validation(oracle_home: HomeFactory, probabilities: bool) -> None:
    home = oracle_home()
    run, (_, (case, *_)) = run_of(home), split_of(home)
    run.label_map(case, ".nii.gz").unlink()
    if not probabilities:
        run.logits(case).unlink()
    correct_label(home, case)
    if not probabilities:
        with pytest.raises(ValueError, match=rf"prediction of {case}, .* validate it again with autoseg_train {DATASET} 3d_fullres 0"):
            find_best_configuration(1, home=home)
        train_again(home)
    find_best_configuration(1, home=home)
    assert dice_of(run.scores(), case) == pytest.approx(2 / 3, abs=0.05)


def test_a_choice_waits_for_who_works_on_the_scores(oracle_home: HomeFactory) -> None:
    home = oracle_home()
    correct_label(home, split_of(home)[1][0])
    entered = threading.Event()

    def hold() -> None:
        with exclusive_lock(run_of(home).folder, "training"):
            entered.set()
            time.sleep(0.5)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait()
    assert find_best_configuration(1, home=home).organs
    thread.join()
