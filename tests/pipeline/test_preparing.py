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
from autoseg.runtime.runs import Run
from autoseg.runtime.serialization import read_json, write_json
from autoseg.runtime.workspace import Workspace
from autoseg.schema import Dataset, Split
from autoseg.trainers import run_setup
from autoseg.trainers.training_spec import TrainingSpec

DATASET = "Dataset003_Tiny"
SETTINGS = PlanSettings(configurations=("2d",), memory_gb=0.2, workers=0)
ONE_STEP = TrainSettings(iterations=1, device="cpu", batch=1)
quick_trainings = data.quick_trainings
FOLD_0 = Path("results", DATASET, "2d__Trainer", "fold_0")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Planned and preprocessed for 2d."""
    data.make_volumes(tmp_path / "raw" / DATASET, n_test=0)
    plan_and_preprocess(3, SETTINGS, home=tmp_path)
    return tmp_path


def change_plan(home: Path, configuration: str, **changes: object) -> None:
    """Adds a configuration, the planned 2d one with changes, to ``plan.json``, or replaces it."""
    path = home / "preprocessed" / DATASET / "plan.json"
    plan = read_json(path, dict)
    plan["configurations"][configuration] = plan["configurations"]["2d"] | changes
    write_json(path, plan)


def write_labels(home: Path, case: int, shown: tuple[int, ...] = (data.BALL, data.BAR)) -> None:
    _, labels, geometry = data.draw_case(case)
    path = home / "raw" / DATASET / "labelsTr" / f"case_{case}.nii.gz"
    data.write_label(path, np.where(np.isin(labels, shown), labels, 0), geometry)


def test_new_cases_are_refused_once_a_training_was_begun_and_nothing_is_overwritten(home):
    write_json(home / FOLD_0 / "run.json", {})
    plan_and_preprocess(3, SETTINGS, home=home)
    before = data.snapshot(home / "preprocessed")
    data.write_description(home / "raw" / DATASET, groups={f"case_{number}": f"patient_{number // 2}" for number in range(4)})
    write_labels(home, 0)
    with pytest.raises(ValueError, match="have changed since a training of Dataset003_Tiny"):
        plan_and_preprocess(3, SETTINGS, home=home)
    assert data.snapshot(home / "preprocessed") == before


class TestFolds:
    """`splits.json` is kept as long as it fits; what planning wrote is made anew where it does not, what a person wrote is refused."""

    def plan(self, home: Path) -> list[Split]:
        plan_and_preprocess(3, SETTINGS, home=home)
        return Workspace(home).splits(DATASET)

    def write(self, home: Path, folds: list[dict]) -> None:
        write_json(home / "preprocessed" / DATASET / "splits.json", folds, digest=False)

    def test_the_users_own_folds_are_used(self, home):
        before = self.plan(home)
        self.write(home, [{"train": one.train, "val": one.val} for one in reversed(before)])  # as in nnU-Net's splits_final.json
        assert self.plan(home) == before[::-1]

    def test_organs_that_come_later_change_no_fold(self, home):
        """A rare organ would be dealt out evenly; models trained before and after could not be compared."""
        before = self.plan(home)
        write_json(home / FOLD_0 / "run.json", {})
        write_labels(home, 2, shown=(data.BALL,))
        assert self.plan(home) == before

    def add_case(self, home: Path) -> None:
        for part, suffix in (("imagesTr", "_0000"), ("labelsTr", "")):
            folder = home / "raw" / DATASET / part
            shutil.copyfile(folder / f"case_0{suffix}.nii.gz", folder / f"case_9{suffix}.nii.gz")
        data.write_description(home / "raw" / DATASET, groups={f"case_{number}": f"patient_{number % 2}" for number in (0, 1, 2, 3, 9)})

    @pytest.mark.parametrize("stamped", [True, False], ids=["with a stamp", "of an earlier version, without"])
    def test_folds_that_planning_made_are_dealt_anew_where_they_do_not_fit_and_it_is_said(self, home, stamped, caplog):
        path = home / "preprocessed" / DATASET / "splits.json"
        if not stamped:
            stamp_path(path).unlink()
        self.add_case(home)
        assert {case for split in self.plan(home) for case in split.val} == {f"case_{number}" for number in (0, 1, 2, 3, 9)}
        assert "case case_9 is new or gone" in caplog.text

    def test_the_users_own_folds_are_never_replaced(self, home):
        path = home / "preprocessed" / DATASET / "splits.json"
        self.write(home, [{"train": one.train, "val": one.val} for one in reversed(self.plan(home))])
        before = path.read_bytes()
        self.add_case(home)
        with pytest.raises(ValueError, match=r"splits\.json: was written or changed by hand.*case case_9 is new or gone.*move it away"):
            self.plan(home)
        assert path.read_bytes() == before

    def test_a_case_that_cannot_be_read_is_taken_out_of_the_users_folds_and_their_file_stays(self, home, caplog):
        path = home / "preprocessed" / DATASET / "splits.json"
        self.add_case(home)
        one, other = ["case_0", "case_2", "case_9"], ["case_1", "case_3"]
        data.write_description(home / "raw" / DATASET, groups={f"case_{number}": f"patient_{number}" for number in (0, 1, 2, 3, 9)})
        self.write(home, [{"train": one, "val": other}, {"train": other, "val": one}])
        before, image = path.read_bytes(), home / "raw" / DATASET / "imagesTr" / "case_9_0000.nii.gz"
        whole = image.read_bytes()
        image.write_bytes(whole[:90])
        assert self.plan(home) == [Split(("case_0", "case_2"), ("case_1", "case_3")), Split(("case_1", "case_3"), ("case_0", "case_2"))]
        assert path.read_bytes() == before
        assert "these cases cannot be used, and are left out: case_9" in caplog.text
        image.write_bytes(whole)
        assert self.plan(home)[0].train == ("case_0", "case_2", "case_9")
        image.unlink()
        self.write(home, [{"train": ["case_0", "case_1", "case_2", "case_3"], "val": ["case_9"]}])
        with pytest.raises(ValueError, match=r"splits\.json: fold 0: expected a validation case that can be used, but case_9 cannot"):
            self.plan(home)

    ALL = ("case_0", "case_1", "case_2", "case_3")

    @pytest.mark.parametrize(
        ("folds", "said"),
        [
            ([{"train": ALL[2:3], "val": ALL[1:2]}], "fold 0: case case_0 is new or gone"),
            ([{"train": ALL[:2], "val": ALL[2:]}], "fold 0: patient .* is on both sides"),
            ([{"train": (), "val": ALL}], "fold 0: train: expected at least one case"),
            ([{"train": ALL, "val": ()}], "fold 0: val: expected at least one case"),
            ([{"train": (*ALL[:2], "case_1"), "val": ALL[2:]}], "fold 0: train: expected each case once, found 'case_1' 2 times"),
            ([{"train": ALL[:3], "val": ALL[2:]}], "fold 0: .*found 'case_2' in both train and val"),
            ([{"train": (*ALL[:2], "case_7"), "val": ALL[2:]}], "fold 0: .*found 'case_7', which is none of them"),
            ([{"train": ("../x",), "val": ALL}], "fold 0: train: name of a case: .*path separator"),
            ([{"train": ALL[:2], "val": "case_2"}], "fold 0: val: expected a list of names of cases, found 'case_2'"),
            ([{"train": [1], "val": ALL}], "fold 0: train: expected a list of names of cases, found 1"),
            ([{"train": ALL}], "fold 0: expected a list of objects"),
            ({"train": ALL, "val": ALL}, "expected a list of objects"),
            ([], "it has no fold"),
            (None, "expected a list of objects"),
        ],
    )
    def test_folds_of_the_user_that_are_wrong_are_refused_and_stay(self, home, folds, said):
        path = home / "preprocessed" / DATASET / "splits.json"
        self.write(home, folds)
        before = path.read_bytes()
        with pytest.raises(ValueError, match=rf"splits\.json: .*{said}"):
            self.plan(home)
        assert path.read_bytes() == before

    def test_folds_that_were_broken_after_planning_are_refused_by_a_training(self, home):
        self.write(home, [{"train": self.ALL[:3], "val": self.ALL[2:]}])
        with pytest.raises(ValueError, match="found 'case_2' in both train and val"):
            autoseg.train(3, "2d", 0, ONE_STEP, home=home)


def test_patients_are_remembered_when_a_dataset_is_planned_again(home, caplog):
    data.write_description(home / "raw" / DATASET, groups="")
    shutil.rmtree(home / "preprocessed")
    first = plan_and_preprocess(3, replace(SETTINGS, groups=r"\d"), home=home)
    caplog.set_level("INFO")
    assert plan_and_preprocess(3, SETTINGS, home=home) == first
    assert {case.group for case in planned_dataset(Workspace(home), DATASET).cases} == set("0123")
    assert "patients are found by --groups" in caplog.text


def test_a_plan_that_is_refused_leaves_the_former_description_with_the_former_plan(home):
    workspace = Workspace(home)
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

    def test_the_plan_records_what_was_asked_for_and_the_report_prints_it(self, planned):
        workspace = Workspace(planned)
        assert {case.group for case in raw_dataset(workspace, 3).cases} == self.CASES
        assert [case.group for case in planned_dataset(workspace, 3).cases] == ["p0", "p0", "p1", "p1"]
        plan = workspace.plan(DATASET)
        assert plan.settings == replace(SETTINGS, groups=r"^p\d+", workers=None)
        assert plan_command(plan).endswith("-c 2d --memory 0.2GB --groups '^p\\d+'")

    def test_training_in_a_moved_home_copies_the_description_and_knows_patients_and_files(self, planned, tmp_path_factory, monkeypatch):
        seen: list[Dataset] = []
        monkeypatch.setattr(training, "validate_fold", lambda predictor, job, folders, dataset: seen.append(dataset) or [])
        monkeypatch.setattr(training, "mean_dice", lambda scores: 1.0)
        monkeypatch.setattr(training.Trainer, "fit", lambda trainer, **_: trainer.network)
        there = shutil.move(planned, tmp_path_factory.mktemp("moved") / "home")
        autoseg.train(3, "2d", 0, ONE_STEP, home=there)
        assert [case.group for case in seen[0].cases] == ["p0", "p0", "p1", "p1"]
        assert all(case.label.is_relative_to(there) and case.label.is_file() for case in seen[0].cases)
        planned_file, copied = (there / part / DATASET / "dataset.json" for part in ("preprocessed", "results"))
        assert copied.read_bytes() == planned_file.read_bytes()

    def test_an_evaluation_compares_by_patient(self, planned, monkeypatch):
        heard: list[dict[str, str]] = []
        monkeypatch.setattr(evaluating, "compare_scores", lambda *_, patients, **__: heard.append(patients) or [])
        labels = planned / "raw" / DATASET / "labelsTr"
        one, other = (shutil.copytree(labels, planned / name) for name in ("one", "other"))
        evaluating.evaluate_predictions(labels, [one, other], dataset="3", home=planned, metrics=["dice"], workers=0)
        assert heard == [{case: case[:2] for case in self.CASES}]

    def test_a_case_whose_image_is_gone_is_named_before_training(self, planned):
        (planned / "raw" / DATASET / "imagesTr" / "p0_case_1_0000.nii.gz").unlink()
        with pytest.raises(ValueError, match=r"case p0_case_1: missing channel, expected .*case_1_0000\.nii\.gz"):
            autoseg.train(3, "2d", 0, ONE_STEP, home=planned)


def test_a_fingerprint_that_lacks_what_is_measured_now_is_measured_again(home):
    path = home / "preprocessed" / DATASET / "fingerprint.json"
    stamp = read_json(stamp_path(path), Stamp)
    record(path, replace(stamp, settings={name: value for name, value in stamp.settings.items() if name != "measured"}))
    plan_and_preprocess(3, SETTINGS, home=home)
    assert read_json(stamp_path(path), Stamp) == stamp


def test_a_run_is_checked_before_its_data_is_replaced(home, tiny_job):
    write_json(home / FOLD_0 / "run.json", tiny_job(Workspace(home).plan(DATASET), "2d"))
    stored = home / "preprocessed" / DATASET / "2d"
    before = data.snapshot(stored)
    change_plan(home, "2d", spacing=[9.0, 9.0])
    with pytest.raises(ValueError, match="started with spacing"):
        autoseg.train(3, "2d", 0, ONE_STEP, home=home)
    assert data.snapshot(stored) == before
    assert len(Store(stored).names()) == 4


def test_mistakes_are_refused_before_data_is_prepared(home, monkeypatch):
    monkeypatch.setattr(training, "preprocess", lambda *_, **__: pytest.fail("too late"))
    with pytest.raises(ValueError, match=r"typo\.pt: checkpoint not found"):
        autoseg.train(3, "2d", 0, replace(ONE_STEP, pretrained=Path("typo.pt")), home=home)
    with pytest.raises(ValueError, match="expected 0 to 1 or all, got '7'"):
        autoseg.train(3, "2d", "07", home=home)
    change_plan(home, "3d_cascade", name="3d_cascade", previous_stage="3d_lowres")
    write_json(home / "preprocessed" / DATASET / "splits.json", [], digest=False)
    with pytest.raises(ValueError, match=r"3d_cascade: .*one patient cannot be split.*\(2d, 3d_fullres, 2.5d\)"):
        autoseg.train(3, "3d_cascade", "all", home=home)
    assert not (home / "results" / DATASET).exists()


def test_a_new_fold_has_the_patch_of_the_others_or_is_refused(home, tiny_job, monkeypatch):
    plan = Workspace(home).plan(DATASET)
    job = replace(tiny_job(plan, "2d"), configuration=replace(plan.configurations["2d"], patch_size=(16, 16)))
    write_json(home / FOLD_0 / "run.json", job)
    monkeypatch.setattr(run_setup, "device_memory", lambda _: 100)

    def new_configuration(cost):
        monkeypatch.setattr(run_setup, "measure_step", lambda one, _: StepCost(1.0, cost(one.configuration)))
        spec, settings = TrainingSpec(plan, plan.configurations["2d"]), TrainSettings(seconds=1.0, device="cpu")
        return run_setup.new_record(spec, job.split, Run(home / FOLD_0.with_name("fold_1")), None, settings=settings).configuration

    assert new_configuration(lambda one: 1).patch_size == (16, 16), "though the time is too short for it"
    smaller = new_configuration(lambda one: 50 * one.batch_size)
    assert (smaller.patch_size, smaller.batch_size) == ((16, 16), 1), "a smaller batch instead of a smaller patch"
    with pytest.raises(RuntimeError, match="not even batch 1 of patch 16x16 fits"):
        new_configuration(lambda one: 1000)


def test_a_fold_has_one_name(home):
    write_json(home / FOLD_0 / "validation" / "scores.json", [])
    (home / FOLD_0 / "checkpoint_final.pt").touch()
    for fold in (0, "0", "00"):
        assert autoseg.train(3, "2d", fold, TrainSettings(device="cpu"), home=home) == []
