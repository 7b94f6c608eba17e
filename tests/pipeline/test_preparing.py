"""What planning and training refuse before they overwrite anything."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import story_data as data

import autoseg
from autoseg.data.descriptions import planned_dataset, raw_dataset
from autoseg.pipeline import PlanSettings, TrainSettings, evaluating, training
from autoseg.pipeline.preparing import plan_and_preprocess
from autoseg.preprocessing.storage import Store
from autoseg.runtime.commands import plan_command
from autoseg.runtime.hardware import StepCost
from autoseg.runtime.provenance import Stamp, record, stamp_path
from autoseg.runtime.serialization import read_json, write_json
from autoseg.runtime.workspace import find_workspace
from autoseg.schema import Dataset, Split
from autoseg.trainers import run_setup as jobs
from autoseg.trainers.training_spec import TrainingSpec

DATASET = "Dataset003_Tiny"
SETTINGS = PlanSettings(configurations=("2d",), memory_gb=0.2, workers=0)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Planned and preprocessed for 2d."""
    data.make_volumes(tmp_path / "raw" / DATASET, n_test=0)
    plan_and_preprocess(3, SETTINGS, home=tmp_path)
    return tmp_path


@pytest.fixture
def no_training(monkeypatch):
    """Whoever gets as far as preparing data for a training fails."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("too late")

    monkeypatch.setattr(training, "preprocess", fail)


def test_new_cases_are_refused_once_a_training_was_begun_and_nothing_is_overwritten(home):
    write_json(home / "results" / DATASET / "2d__Trainer" / "fold_0" / "run.json", {})
    plan_and_preprocess(3, SETTINGS, home=home)
    before = data.snapshot(home / "preprocessed")
    groups = {f"case_{number}": f"patient_{number // 2}" for number in range(4)}
    data.write_description(home / "raw" / DATASET, groups=groups)
    image, labels, geometry = data.draw_case(0)
    data.write_label(home / "raw" / DATASET / "labelsTr" / "case_0.nii.gz", labels, geometry)
    with pytest.raises(ValueError, match="have changed since a training of Dataset003_Tiny was begun"):
        plan_and_preprocess(3, SETTINGS, home=home)
    assert data.snapshot(home / "preprocessed") == before


class TestFolds:
    """`splits.json` is kept as long as it fits, whoever wrote it."""

    def plan(self, home: Path) -> list[Split]:
        plan_and_preprocess(3, SETTINGS, home=home)
        return read_json(self.path(home), list[Split])

    def path(self, home: Path) -> Path:
        return home / "preprocessed" / DATASET / "splits.json"

    def test_the_users_own_folds_are_used(self, home):
        before = self.plan(home)
        own = [{"train": one.train, "val": one.val} for one in reversed(before)]  # as in nnU-Net's splits_final.json
        write_json(self.path(home), own)
        assert self.plan(home) == before[::-1]

    def test_organs_that_come_later_change_no_fold(self, home):
        """A rare organ would be dealt out evenly; models trained before and after could not be compared."""
        before = self.plan(home)
        write_json(home / "results" / DATASET / "2d__Trainer" / "fold_0" / "run.json", {})
        _, labels, geometry = data.draw_case(2)
        data.write_label(home / "raw" / DATASET / "labelsTr" / "case_2.nii.gz", np.where(labels == data.BAR, 0, labels), geometry)
        assert self.plan(home) == before

    @pytest.mark.parametrize("wrong", ["a case is missing", "a patient on both sides", "nothing to train on"])
    def test_folds_that_do_not_fit_are_dealt_anew_and_it_is_said(self, home, wrong, caplog):
        before = self.plan(home)
        names = sorted(Store(home / "preprocessed" / DATASET / "2d").names())
        folds = {
            "a case is missing": {"train": names[2:], "val": names[1:2]},
            "a patient on both sides": {"train": names, "val": names[:1]},
            "nothing to train on": {"train": [], "val": names},
        }
        write_json(self.path(home), [folds[wrong]])
        assert self.plan(home) == before
        assert "fold 0 does not fit the dataset" in caplog.text


def test_a_plan_that_is_refused_leaves_the_former_description_with_the_former_plan(home):
    workspace = find_workspace(home)
    before = planned_dataset(workspace, DATASET)
    data.write_description(home / "raw" / DATASET, labels={"background": 0, "ball": data.BALL, "post": data.BAR})
    with pytest.raises(ValueError, match="2x"):
        plan_and_preprocess(3, replace(SETTINGS, configurations=("2x",)), home=home)
    assert planned_dataset(workspace, DATASET) == before
    plan_and_preprocess(3, SETTINGS, home=home)
    assert planned_dataset(workspace, DATASET).labels.names == workspace.plan(DATASET).labels.names == ("ball", "post")


class TestPatients:
    """What planning knows of the patients, the later stages know too."""

    CASES = {"p0_case_0", "p0_case_1", "p1_case_2", "p1_case_3"}

    @pytest.fixture
    def planned(self, tmp_path: Path) -> Path:
        data.make_volumes(tmp_path / "raw" / DATASET, n_test=0, groups=None)
        for path in sorted((tmp_path / "raw" / DATASET).glob("*Tr/case_*")):
            path.rename(path.with_name(f"p{int(path.name[5]) // 2}_{path.name}"))
        plan_and_preprocess(3, replace(SETTINGS, groups=r"^p\d+"), home=tmp_path)
        return tmp_path

    def test_they_are_those_that_the_user_told_the_planner(self, planned):
        workspace = find_workspace(planned)
        assert {case.group for case in raw_dataset(workspace, 3).cases} == self.CASES
        assert [case.group for case in planned_dataset(workspace, 3).cases] == ["p0", "p0", "p1", "p1"]

    def test_the_plan_records_what_was_asked_for_and_the_report_prints_it(self, planned):
        plan = find_workspace(planned).plan(DATASET)
        assert plan.settings == replace(SETTINGS, groups=r"^p\d+", workers=None)
        assert plan_command(plan).endswith("-c 2d --memory 0.2GB --groups '^p\\d+'")

    def test_training_copies_the_description_unchanged_and_its_cases_have_the_patients(self, planned, monkeypatch):
        seen: list[Dataset] = []
        monkeypatch.setattr(training, "validate_fold", lambda predictor, job, folders, dataset: seen.append(dataset) or [])
        monkeypatch.setattr(training, "mean_dice", lambda scores: 1.0)
        autoseg.train(3, "2d", 0, TrainSettings(iterations=1, device="cpu", batch=1), home=planned)
        assert {case.group for case in seen[0].cases} == {"p0", "p1"}
        planned_file, copied = (planned / part / DATASET / "dataset.json" for part in ("preprocessed", "results"))
        assert copied.read_bytes() == planned_file.read_bytes()

    def test_a_copied_home_trains_on_its_own_files(self, planned, tmp_path_factory, monkeypatch):
        there = shutil.copytree(planned, tmp_path_factory.mktemp("moved") / "home")
        shutil.rmtree(planned)
        seen: list[Dataset] = []
        monkeypatch.setattr(training, "validate_fold", lambda predictor, job, folders, dataset: seen.append(dataset) or [])
        monkeypatch.setattr(training, "mean_dice", lambda scores: 1.0)
        autoseg.train(3, "2d", 0, TrainSettings(iterations=1, device="cpu", batch=1), home=there)
        assert all(case.label.is_relative_to(there) and case.label.is_file() for case in seen[0].cases)

    def test_an_evaluation_compares_by_patient(self, planned, tmp_path, monkeypatch):
        heard: list[dict[str, str]] = []
        monkeypatch.setattr(evaluating, "compare_scores", lambda *_, patients, **__: heard.append(patients) or [])
        labels = planned / "raw" / DATASET / "labelsTr"
        evaluating.evaluate_predictions(labels, [labels, labels], dataset="3", home=planned, metrics=["dice"], workers=0)
        assert heard == [{case: case[:2] for case in self.CASES}]

    def test_a_case_whose_image_is_gone_is_named_before_training(self, planned):
        (planned / "raw" / DATASET / "imagesTr" / "p0_case_1_0000.nii.gz").unlink()
        with pytest.raises(ValueError, match=r"case p0_case_1: missing channel, expected .*case_1_0000\.nii\.gz"):
            autoseg.train(3, "2d", 0, TrainSettings(iterations=1, device="cpu"), home=planned)


def test_a_fingerprint_that_lacks_what_is_measured_now_is_measured_again(home):
    path = home / "preprocessed" / DATASET / "fingerprint.json"
    stamp = read_json(stamp_path(path), Stamp)
    record(path, replace(stamp, settings={name: value for name, value in stamp.settings.items() if name != "measured"}))
    plan_and_preprocess(3, SETTINGS, home=home)
    assert read_json(stamp_path(path), Stamp) == stamp


def test_a_run_is_checked_before_its_data_is_replaced(home, tiny_job):
    workspace = training.find_workspace(home)
    plan = workspace.plan(DATASET)
    record = home / "results" / DATASET / "2d__Trainer" / "fold_0" / "run.json"
    write_json(record, tiny_job(plan, "2d"))
    stored = home / "preprocessed" / DATASET / "2d"
    before = data.snapshot(stored)
    plan_path = home / "preprocessed" / DATASET / "plan.json"
    changed = read_json(plan_path, dict)
    changed["configurations"]["2d"]["spacing"] = [9.0, 9.0]
    write_json(plan_path, changed)
    with pytest.raises(ValueError, match="begun with spacing"):
        autoseg.train(3, "2d", 0, TrainSettings(iterations=1, device="cpu"), home=home)
    assert data.snapshot(stored) == before
    assert len(Store(stored).names()) == 4


@pytest.mark.usefixtures("no_training")
class TestRefusedAtOnce:
    def test_a_mistyped_checkpoint(self, home):
        settings = TrainSettings(iterations=1, device="cpu", pretrained=Path("typo.pt"))
        with pytest.raises(ValueError, match=r"typo\.pt: checkpoint not found"):
            autoseg.train(3, "2d", 0, settings, home=home)
        assert not (home / "results" / DATASET).exists()

    def test_a_fold_that_is_not_there(self, home):
        with pytest.raises(ValueError, match="expected 0 to 1 or all, got '7'"):
            autoseg.train(3, "2d", "07", home=home)

    def test_a_cascade_of_one_patient(self, home):
        plan_path = home / "preprocessed" / DATASET / "plan.json"
        changed = read_json(plan_path, dict)
        changed["configurations"]["3d_cascade"] = {
            **changed["configurations"]["3d_fullres"],
            "name": "3d_cascade",
            "previous_stage": "3d_lowres",
        }
        write_json(plan_path, changed)
        write_json(home / "preprocessed" / DATASET / "splits.json", [])
        with pytest.raises(ValueError, match=r"3d_cascade: .*one patient cannot be split.*\(2d, 3d_fullres, 2.5d\)"):
            autoseg.train(3, "3d_cascade", "all", home=home)


def test_a_new_fold_has_the_patch_of_the_others_or_is_refused(home, tiny_job, monkeypatch):
    plan = training.find_workspace(home).plan(DATASET)
    configuration = replace(plan.configurations["2d"], patch_size=(16, 16))
    run = home / "results" / DATASET / "2d__Trainer" / "fold_1"
    job = replace(tiny_job(plan, "2d"), configuration=configuration)
    write_json(run.with_name("fold_0") / "run.json", job)
    settings, cost = TrainSettings(seconds=1.0, device="cpu"), StepCost(seconds=1.0, peak_bytes=1)
    monkeypatch.setattr(jobs, "device_memory", lambda _: 100)
    monkeypatch.setattr(jobs, "measure_step", lambda one, _: cost)
    new = jobs.new_job(TrainingSpec(plan, plan.configurations["2d"]), job.split, run, None, settings=settings)
    assert new.configuration.patch_size == (16, 16), "though the time is too short for it"
    monkeypatch.setattr(jobs, "measure_step", lambda one, _: replace(cost, peak_bytes=50 * one.configuration.batch_size))
    new = jobs.new_job(TrainingSpec(plan, plan.configurations["2d"]), job.split, run, None, settings=settings)
    assert (new.configuration.patch_size, new.configuration.batch_size) == ((16, 16), 1), "a smaller batch instead of a smaller patch"
    monkeypatch.setattr(jobs, "measure_step", lambda one, _: replace(cost, peak_bytes=1000))
    with pytest.raises(RuntimeError, match="not even batch 1 of patch 16x16 fits"):
        jobs.new_job(TrainingSpec(plan, plan.configurations["2d"]), job.split, run, None, settings=settings)


def test_a_fold_has_one_name(home, monkeypatch):
    seen = []
    monkeypatch.setattr(training, "is_finished", lambda run: seen.append(run.name) or True)
    write_json(home / "results" / DATASET / "2d__Trainer" / "fold_0" / "validation" / "scores.json", [])
    for fold in (0, "0", "00"):
        assert autoseg.train(3, "2d", fold, TrainSettings(device="cpu"), home=home) == []
    assert seen == ["fold_0"] * 3
