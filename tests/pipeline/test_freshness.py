"""What is done again and what is not: after files were replaced, whatever their times say, and after folders were copied."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import story_data as data
from factories import CASES, write_dataset

import autoseg
from autoseg import cli
from autoseg.data.descriptions import planned_dataset
from autoseg.data.images import read_image, read_label, write_image, write_label
from autoseg.data.references import reference_of
from autoseg.pipeline import PlanSettings, PredictSettings, TrainSettings, chosen_models, preparing
from autoseg.pipeline.model_source import source_of_dataset
from autoseg.pipeline.preparing import plan_and_preprocess
from autoseg.pipeline.reporting import read_report
from autoseg.planners import fingerprint
from autoseg.preprocessing import preprocess as preprocessing
from autoseg.preprocessing.storage import Store
from autoseg.runtime.provenance import content_id, file_id
from autoseg.runtime.serialization import read_json, to_jsonable, write_json
from autoseg.runtime.workspace import Workspace
from autoseg.schema import CaseFingerprint, Choice, Fingerprint
from autoseg.selection import candidate_scores, postprocessing_choice
from autoseg.trainers.cascade.out_of_fold import folds_that_validate, prepare_previous

DATASET = "Dataset001_Tiny"
SETTINGS = PlanSettings(configurations=("2d",), memory_gb=0.2, workers=0)
CASCADE = PlanSettings(configurations=("3d_cascade",), force_lowres=True, memory_gb=0.2, workers=0)
FAST = PredictSettings(mirror=False, device="cpu")
SHORT = TrainSettings(iterations=2, batch=2, device="cpu")
FILES_READ = "autoseg.runtime.provenance.content_id"
quick_trainings = data.quick_trainings


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Planned and preprocessed for 2d, from files that are not compressed: other content has the same size."""
    folder = write_dataset(tmp_path / "home" / "raw" / DATASET)
    for path in (folder / "labelsTr").iterdir():
        one = read_label(path)
        write_label(path.with_name(path.name.removesuffix(".gz")), one.array.astype(np.uint8), one.geometry)
        path.unlink()
    plan_and_preprocess(1, SETTINGS, home=tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the cases that are measured, and preprocessed, from now on."""
    found: list[str] = []
    measure_case, preprocess_case = fingerprint.measure_case, preprocessing.preprocess_case
    measured, preprocessed = (lambda case: found.append(f"measured {case}")), (lambda case: found.append(f"preprocessed {case}"))
    monkeypatch.setattr(fingerprint, "measure_case", lambda case, *rest: measured(case.name) or measure_case(case, *rest))
    monkeypatch.setattr(preprocessing, "preprocess_case", lambda *rest, case: preprocessed(case) or preprocess_case(*rest, case=case))
    return found


def label_of(home: Path, case: str) -> Path:
    return home / "raw" / DATASET / "labelsTr" / f"{case}.nii"


def exchange_labels(path: Path) -> None:
    """Corrects a label map; its size and its time stay as they were."""
    before, one = path.stat(), read_label(path)
    write_label(path, np.choose(np.searchsorted([0, 2, 5], one.array), [0, 5, 2]).astype(np.uint8), one.geometry)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns - 10**9))
    assert path.stat().st_size == before.st_size


def copied(home: Path) -> Path:
    """The home folder in another place, every file with the same time."""
    return copy_with_one_time(home, home.with_name("copied"))


def copy_with_one_time(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    for path in target.rglob("*"):
        os.utime(path, ns=(10**18, 10**18))
    return target


def contents(folder: Path) -> dict[str, bytes]:
    """Content of every file below `folder`."""
    return {name: (folder / name).read_bytes() for name in data.snapshot(folder)}


class TestPlanning:
    def test_contents_are_recorded_in_the_planned_description(self, home: Path) -> None:
        for case in planned_dataset(Workspace(home), DATASET).cases:
            assert case.digests == (file_id(case.images[0]), file_id(case.label))

    def test_a_label_corrected_with_an_older_time_and_the_same_size_is_noticed(self, home: Path, work: list[str]) -> None:
        exchange_labels(label_of(home, "b"))
        plan_and_preprocess(1, SETTINGS, home=home)
        assert work == ["measured a", "measured b", "measured c", "measured d", "preprocessed b"]
        stored = Store(home / "preprocessed" / DATASET / "2d").load("b")
        assert np.array_equal(stored.segmentation[:] == 1, read_label(label_of(home, "b")).array == 2)
        assert planned_dataset(Workspace(home), DATASET).cases[1].digests[1] == file_id(label_of(home, "b"))

    def test_a_copy_is_neither_measured_nor_preprocessed_again(self, home: Path, work: list[str]) -> None:
        copy = copied(home)
        shutil.rmtree(home)
        before = data.snapshot(copy / "preprocessed" / DATASET / "2d")
        plan_and_preprocess(1, SETTINGS, home=copy)
        assert work == []
        assert data.snapshot(copy / "preprocessed" / DATASET / "2d") == before

    def test_files_that_are_trusted_are_not_read_and_that_is_said(
        self, home: Path, work: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(FILES_READ, lambda path: pytest.fail(f"{path} is read"))
        plan = (home / "preprocessed" / DATASET / "plan.json").read_bytes()
        options = ("-d", "1", "-c", "2d", "--memory", "0.2GB", "--workers", "0", "--home", str(home))
        assert cli.plan_and_preprocess([*options, "--trust-files"]) == 0
        assert work == []
        assert "--trust-files: the contents of 8 of 8 files are not verified" in caplog.text
        assert (home / "preprocessed" / DATASET / "plan.json").read_bytes() == plan, "it is no part of the plan"

    def test_what_was_measured_for_a_plan_that_is_refused_is_not_measured_again(self, home: Path, work: list[str]) -> None:
        shutil.rmtree(home / "preprocessed")
        with pytest.raises(ValueError, match="configuration of Dataset001_Tiny"):
            plan_and_preprocess(1, dataclasses.replace(SETTINGS, configurations=("2f",)), home=home)
        assert len(work) == 4
        plan_and_preprocess(1, SETTINGS, home=home)
        assert [word for word in work[4:] if word.startswith("measured")] == []

    def test_trust_ends_where_a_size_has_changed(self, home: Path, work: list[str]) -> None:
        image = home / "raw" / DATASET / "imagesTr" / "c_0000.nii.gz"
        image.write_bytes(image.read_bytes() + b"\0")
        plan_and_preprocess(1, dataclasses.replace(SETTINGS, trust_files=True), home=home)
        assert work[-1] == "preprocessed c" and len(work) == 5

    def test_one_whose_file_changes_after_planning_is_refused_by_name(self, home: Path, caplog: pytest.LogCaptureFixture) -> None:
        workspace = Workspace(home)
        dataset, plan = planned_dataset(workspace, DATASET), workspace.plan(DATASET)
        exchange_labels(label_of(home, "b"))
        Store(home / "preprocessed" / DATASET / "2d").remove("b")
        preparing.preprocess(workspace, dataset, plan, plan.configurations["2d"], workers=0)
        assert f"b: {label_of(home, 'b')}: expected the content {dataset.cases[1].digests[1]}" in caplog.text
        assert "run autoseg_plan_and_preprocess again" in caplog.text
        assert Store(home / "preprocessed" / DATASET / "2d").names() == ["a", "c", "d"]


class TestPictures:
    """Their spacing is written in a file beside them."""

    @pytest.fixture
    def pictures(self, tmp_path: Path) -> Path:
        folder = write_dataset(tmp_path / "home" / "raw" / DATASET)
        for path in [*folder.glob("*Tr/*")]:
            one = read_image([path])
            write_image(path.with_name(path.name.replace(".nii.gz", ".tif")), one.array.astype(np.uint8), one.geometry)
            path.unlink()
        info = json.loads((folder / "dataset.json").read_text())
        (folder / "dataset.json").write_text(json.dumps(info | {"file_ending": ".tif"}))
        plan_and_preprocess(1, SETTINGS, home=tmp_path / "home")
        return tmp_path / "home"

    @pytest.mark.parametrize("trust", [False, True])
    def test_a_corrected_spacing_is_noticed(self, pictures: Path, work: list[str], trust: bool) -> None:
        sidecar = pictures / "raw" / DATASET / "imagesTr" / f"{CASES[1]}_0000.json"
        sidecar.write_text(sidecar.read_text().replace(" ", ""))
        plan_and_preprocess(1, replace(SETTINGS, trust_files=trust), home=pictures)
        assert work == [], "the same numbers"
        sidecar.write_text(json.dumps({"spacing": [5, 1, 1]}))
        plan_and_preprocess(1, replace(SETTINGS, trust_files=trust), home=pictures)
        assert {"measured " + CASES[1], "preprocessed " + CASES[1]} <= set(work)
        assert read_json(pictures / "preprocessed" / DATASET / "fingerprint.json", Fingerprint).cases[1].spacing == (5, 1, 1)

    def test_a_spacing_corrected_after_planning_is_refused_by_name(self, pictures: Path, caplog: pytest.LogCaptureFixture) -> None:
        shutil.rmtree(pictures / "preprocessed" / DATASET / "2d")
        (pictures / "raw" / DATASET / "labelsTr" / f"{CASES[1]}.json").write_text(json.dumps({"spacing": [5, 1, 1]}))
        dataset = planned_dataset(Workspace(pictures), 1)
        with pytest.raises(ValueError, match=rf"{CASES[1]}: .*labelsTr.{CASES[1]}.tif: expected the content .* that was planned with"):
            preprocessing._identified(dataset.cases[1])
        with pytest.raises(ValueError, match=f"{CASES[1]}.tif: expected the label map that was planned with"):
            reference_of(dataset.cases[1], dataset.labels)

    def test_what_was_planned_before_spacings_counted_stays_while_they_are_those_measured(self, pictures: Path, work: list[str]) -> None:
        for file in (pictures / "preprocessed").rglob("*.json"):
            if "+" in (written := file.read_text()):
                file.write_text(re.sub(r"\+[0-9a-f]{16}:", ":", re.sub(r'"digest": "[^"]*",?\s*', "", written)))
        before = contents(pictures / "preprocessed" / DATASET / "2d")
        plan_and_preprocess(1, SETTINGS, home=pictures)
        assert work == [] and contents(pictures / "preprocessed" / DATASET / "2d") == before
        dataset = planned_dataset(Workspace(pictures), 1)
        assert not any("+" in one for case in dataset.cases for one in case.digests)
        reference_of(dataset.cases[1], dataset.labels)
        for kind, name in (("imagesTr", f"{CASES[1]}_0000"), ("labelsTr", CASES[1])):
            (pictures / "raw" / DATASET / kind / f"{name}.json").write_text(json.dumps({"spacing": [5, 1, 1]}))
        plan_and_preprocess(1, SETTINGS, home=pictures)
        digests = {case.name: case.digests for case in planned_dataset(Workspace(pictures), 1).cases}
        assert all("+" in one for one in digests[CASES[1]]) and not any("+" in one for one in digests[CASES[0]])
        assert "preprocessed " + CASES[1] in work


class TestOf010:
    """What version 0.1.0 left, which knew files by size and time."""

    @pytest.fixture
    def old(self, home: Path) -> Path:
        as_0_1_0_wrote_it(home)
        return copied(home)

    def test_artefacts_of_the_same_sizes_are_kept_and_get_a_stamp(
        self, old: Path, work: list[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO):
            plan_and_preprocess(1, SETTINGS, home=old)
        assert work == []
        assert "the files are read once to identify them" in caplog.text
        folder = old / "preprocessed" / DATASET
        assert not (folder / "fingerprint_of.json").exists()
        stored = Store(folder / "2d").load("a")
        assert stored.made_from.inputs["label"] == file_id(label_of(old, "a"))
        exchange_labels(label_of(old, "b"))
        plan_and_preprocess(1, SETTINGS, home=old)
        assert work[-1] == "preprocessed b" and len(work) == 5

    def test_another_size_is_not_believed(self, old: Path, work: list[str]) -> None:
        image = old / "raw" / DATASET / "imagesTr" / "c_0000.nii.gz"
        image.write_bytes(image.read_bytes() + b"\0")
        plan_and_preprocess(1, SETTINGS, home=old)
        assert work == ["measured a", "measured b", "measured c", "measured d", "preprocessed c"]

    def test_a_later_stage_keeps_what_agrees_by_size_without_reading_it(
        self, old: Path, work: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(FILES_READ, lambda path: pytest.fail(f"{path} is read"))
        workspace = Workspace(old)
        plan = workspace.plan(DATASET)
        preparing.preprocess(workspace, planned_dataset(workspace, DATASET), plan, plan.configurations["2d"], workers=0)
        assert work == []


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with both stages of a cascade, a choice among them and a prediction; two patients, hence two folds."""
    home = tmp_path_factory.mktemp("trained") / "home"
    folder = write_dataset(home / "raw" / DATASET)
    info = read_json(folder / "dataset.json", dict)
    write_json(folder / "dataset.json", info | {"groups": {name: f"patient {number % 2}" for number, name in enumerate(CASES)}})
    (folder / "imagesTs").mkdir()
    shutil.copy(folder / "imagesTr" / "a_0000.nii.gz", folder / "imagesTs" / "new_0000.nii.gz")
    plan_and_preprocess(1, CASCADE, home=home)
    autoseg.train(1, "3d_cascade", 0, SHORT, home=home)
    autoseg.find_best_configuration(1, home=home)
    predict(home)
    return home


def predict(home: Path, images: Path | None = None) -> None:
    images = images or home / "raw" / DATASET / "imagesTs"
    assert autoseg.predict_folder(images, home / "out", FAST, home=home) == {}


class TestCopies:
    """A folder that was copied, unzipped or moved is as current as it was before, whatever the times of its files."""

    @pytest.fixture
    def copy(self, trained: Path, tmp_path: Path) -> Path:
        return copy_with_one_time(trained, tmp_path / "copy")

    def test_prediction_neither_chooses_nor_predicts_again(self, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(chosen_models, "choose_again", None)
        for path in (copy / "results").rglob("scores.json"):
            os.utime(path, ns=(2 * 10**18, 2 * 10**18))
        before = data.snapshot(copy), contents(copy)
        predict(copy)
        assert (data.snapshot(copy), contents(copy)) == before

    def test_results_alone_predict_in_another_home(self, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(chosen_models, "choose_again", None)
        other = tmp_path / "other"
        results = copy_with_one_time(trained / "results" / DATASET, other / "results" / DATASET)
        before = data.snapshot(results)
        predict(other, trained / "raw" / DATASET / "imagesTs")
        assert data.snapshot(results) == before
        for path in (trained / "out").glob("*.nii.gz"):
            assert np.array_equal(read_label(path).array, read_label(other / "out" / path.name).array)

    def test_training_is_finished_and_the_previous_stage_current(
        self, copy: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        before = data.snapshot(copy)
        with caplog.at_level(logging.INFO):
            autoseg.train(1, "3d_cascade", 0, SHORT, home=copy)
        assert "is finished already" in caplog.text
        monkeypatch.setattr("autoseg.trainers.cascade.out_of_fold.on_grid", None)
        model, preprocessed, workspace = copy / "results" / DATASET / "3d_lowres__Trainer", copy / "preprocessed" / DATASET, Workspace(copy)
        folds = folds_that_validate(workspace.splits(DATASET))
        prepare_previous(model, folds, CASES, preprocessed / "3d_fullres", workspace.plan(DATASET), progress=False)
        assert data.snapshot(copy) == before

    def test_planning_touches_no_case(self, copy: Path, work: list[str]) -> None:
        before = contents(copy)
        plan_and_preprocess(1, CASCADE, home=copy)
        assert work == []
        assert contents(copy) == before

    def test_averages_are_not_computed_again(self, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(candidate_scores, "average_all", None)
        monkeypatch.setattr(postprocessing_choice, "_measure", None)
        read: list[Path] = []
        monkeypatch.setattr(FILES_READ, lambda path: read.append(path) or content_id(path))
        before = (copy / "results" / DATASET / "choice.json").read_bytes()
        autoseg.find_best_configuration(1, home=copy)
        assert (copy / "results" / DATASET / "choice.json").read_bytes() == before
        assert {"".join(path.suffixes) for path in read} == {".nii.gz"}, "probabilities have their ids beside them"
        assert not any(path.is_relative_to(copy / "raw") for path in read), "later stages read no raw files to identify them"


class TestChoice:
    """It is made again when a fold was validated that it does not know, or validated anew."""

    @pytest.fixture
    def chosen(self, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr(chosen_models, "load_model", lambda folder, *_, **__: folder)
        monkeypatch.setattr(chosen_models, "check_channels", lambda *_: None)
        monkeypatch.setattr(chosen_models, "Ensemble", lambda choice, *_: choice)
        return copy_with_one_time(trained, tmp_path / "copy")

    def scores(self, home: Path) -> Path:
        return home / "results" / DATASET / "3d_lowres__Trainer" / "fold_0" / "validation" / "scores.json"

    def is_made_again(self, home: Path) -> bool:
        path = home / "results" / DATASET / "choice.json"
        before = path.stat().st_mtime_ns
        chosen_models.load_ensemble(source_of_dataset(Workspace(home), DATASET), FAST)
        return path.stat().st_mtime_ns != before

    def missing(self, home: Path) -> list[str]:
        workspace = Workspace(home)
        return [one.what for one in read_report(workspace, DATASET, planned_dataset(workspace, 1)).missing]

    def test_it_says_what_it_was_made_of(self, chosen: Path) -> None:
        made_from = read_json(chosen / "results" / DATASET / "choice.json", Choice).made_from
        assert sorted(made_from) == ["3d_cascade__Trainer/0", "3d_lowres__Trainer/0", "3d_lowres__Trainer/1"]
        assert made_from["3d_lowres__Trainer/0"] == file_id(self.scores(chosen))

    def test_scores_of_another_validation_make_it_again_though_they_are_older(self, chosen: Path) -> None:
        path = self.scores(chosen)
        write_json(path, [score | {"dice": score["dice"] / 2} for score in read_json(path, list)])
        os.utime(path, ns=(1, 1))
        assert any(what.startswith("a choice that knows 3d_lowres__Trainer/0") for what in self.missing(chosen))
        assert self.is_made_again(chosen)
        assert not any(what.startswith("a choice that knows") for what in self.missing(chosen))
        assert not self.is_made_again(chosen)

    def test_without_the_data_it_stays(self, chosen: Path) -> None:
        write_json(self.scores(chosen), [])
        shutil.rmtree(chosen / "preprocessed")
        assert not self.is_made_again(chosen)

    def test_one_of_0_1_0_stays_until_there_is_a_model_it_does_not_know(self, chosen: Path) -> None:
        path = chosen / "results" / DATASET / "choice.json"
        write_json(path, without(read_json(path, dict), "made_from"))
        os.utime(path, ns=(1, 1))
        assert not self.is_made_again(chosen)
        shutil.copytree(chosen / "results" / DATASET / "3d_lowres__Trainer", chosen / "results" / DATASET / "3d_lowres__Trainer__again")
        assert self.is_made_again(chosen)
        assert "3d_lowres__Trainer__again/0" in read_json(path, Choice).made_from


def as_0_1_0_wrote_it(home: Path) -> None:
    """Turns the planning's artefacts into those of version 0.1.0."""
    folder, dataset = home / "preprocessed" / DATASET, planned_dataset(Workspace(home), DATASET)
    files = {case.name: (*case.images, case.label) for case in dataset.cases}
    key = {
        "labels": dataset.labels,
        "files": {name: [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in paths] for name, paths in files.items()},
        "measured": [field.name for field in dataclasses.fields(CaseFingerprint)],
    }
    write_json(folder / "fingerprint_of.json", key)
    (folder / "fingerprint.stamp.json").unlink()
    plain = to_jsonable(dataset)
    write_json(folder / "dataset.json", plain | {"cases": [without(case, "digests") for case in plain["cases"]]})
    for name, paths in files.items():
        trace = folder / "2d" / f"{name}.trace.json"
        sizes, newest = [path.stat().st_size for path in paths], max(path.stat().st_mtime_ns for path in paths)
        old = {"stamp": f"{len(sizes)} files, {sum(sizes)} bytes, {newest}"}
        write_json(trace, without(read_json(trace, dict), "made_from") | old)


def without(values: dict, name: str) -> dict:
    return {key: value for key, value in values.items() if key != name}
