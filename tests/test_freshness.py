"""What is done again and what is not: after files were replaced, whatever their times say, and after folders were copied."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import write_dataset

from autoseg.images import read_label, write_label
from autoseg.model import CaseFingerprint
from autoseg import preprocessing
from autoseg.pipeline import PlanSettings, preparing
from autoseg.pipeline.preparing import plan_and_preprocess
from autoseg.planners import fingerprint
from autoseg.provenance import file_id
from autoseg.records import read_json, to_plain, write_json
from autoseg.storage import Store
from autoseg.workspace import Workspace

DATASET = "Dataset001_Tiny"
SETTINGS = PlanSettings(configurations=("2d",), memory_gb=0.2, workers=0)


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
    for module, name, word in ((fingerprint, "measure_case", "measured"), (preprocessing, "preprocess_case", "preprocessed")):

        def noted(*given: object, real: Callable = getattr(module, name), word: str = word, **named: object) -> object:
            found.append(f"{word} {named.get('case') or given[0].name}")
            return real(*given, **named)

        monkeypatch.setattr(module, name, noted)
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
    copy = shutil.copytree(home, home.with_name("copied"))
    for path in copy.rglob("*"):
        os.utime(path, ns=(10**18, 10**18))
    return copy


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Time and content of every file below `folder`, locks aside."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


class TestPlanning:
    def test_contents_are_recorded_in_the_planned_description(self, home: Path) -> None:
        for case in Workspace(home).dataset(DATASET).cases:
            assert case.digests == (file_id(case.images[0]), file_id(case.label))

    def test_a_label_corrected_with_an_older_time_and_the_same_size_is_noticed(self, home: Path, work: list[str]) -> None:
        exchange_labels(label_of(home, "b"))
        plan_and_preprocess(1, SETTINGS, home=home)
        assert work == ["measured a", "measured b", "measured c", "measured d", "preprocessed b"]
        stored = Store(home / "preprocessed" / DATASET / "2d").load("b")
        assert np.array_equal(stored.segmentation[:] == 1, read_label(label_of(home, "b")).array == 2)
        assert Workspace(home).dataset(DATASET).cases[1].digests[1] == file_id(label_of(home, "b"))

    def test_a_copy_is_neither_measured_nor_preprocessed_again(self, home: Path, work: list[str]) -> None:
        copy = copied(home)
        shutil.rmtree(home)
        before = snapshot(copy / "preprocessed" / DATASET / "2d")
        plan_and_preprocess(1, SETTINGS, home=copy)
        assert work == []
        assert snapshot(copy / "preprocessed" / DATASET / "2d") == before

    def test_files_that_are_trusted_are_not_read_and_that_is_said(
        self, home: Path, work: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("autoseg.provenance.content_id", lambda path: pytest.fail(f"{path} is read"))
        with caplog.at_level(logging.INFO):
            plan_and_preprocess(1, PlanSettings(**{**vars(SETTINGS), "trust_files": True}), home=home)
        assert work == []
        assert "--trust-files: the contents of 8 of 8 files are not verified" in caplog.text

    def test_trust_ends_where_a_size_has_changed(self, home: Path, work: list[str]) -> None:
        image = home / "raw" / DATASET / "imagesTr" / "c_0000.nii.gz"
        image.write_bytes(image.read_bytes() + b"\0")
        plan_and_preprocess(1, PlanSettings(**{**vars(SETTINGS), "trust_files": True}), home=home)
        assert work[-1] == "preprocessed c" and len(work) == 5

    def test_one_whose_file_changes_after_planning_is_refused_by_name(self, home: Path, caplog: pytest.LogCaptureFixture) -> None:
        workspace = Workspace(home)
        dataset, plan = workspace.dataset(DATASET), workspace.plan(DATASET)
        exchange_labels(label_of(home, "b"))
        Store(home / "preprocessed" / DATASET / "2d").remove("b")
        preparing.preprocess(workspace, dataset, plan, plan.configurations["2d"], workers=0)
        assert f"b: {label_of(home, 'b')}: expected the content {dataset.cases[1].digests[1]}" in caplog.text
        assert "run autoseg_plan_and_preprocess again" in caplog.text
        assert Store(home / "preprocessed" / DATASET / "2d").names() == ["a", "c", "d"]


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
        monkeypatch.setattr("autoseg.provenance.content_id", lambda path: pytest.fail(f"{path} is read"))
        workspace = Workspace(old)
        plan = workspace.plan(DATASET)
        preparing.preprocess(workspace, workspace.dataset(DATASET), plan, plan.configurations["2d"], workers=0)
        assert work == []


def as_0_1_0_wrote_it(home: Path) -> None:
    """Turns the planning's artefacts into those of version 0.1.0."""
    folder, dataset = home / "preprocessed" / DATASET, Workspace(home).dataset(DATASET)
    files = {case.name: (*case.images, case.label) for case in dataset.cases}
    key = {
        "labels": dataset.labels,
        "files": {name: [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in paths] for name, paths in files.items()},
        "measured": [field.name for field in dataclasses.fields(CaseFingerprint)],
    }
    write_json(folder / "fingerprint_of.json", key)
    (folder / "fingerprint.stamp.json").unlink()
    plain = to_plain(dataset)
    write_json(folder / "dataset.json", plain | {"cases": [without(case, "digests") for case in plain["cases"]]})
    for name, paths in files.items():
        trace = folder / "2d" / f"{name}.trace.json"
        sizes, newest = [path.stat().st_size for path in paths], max(path.stat().st_mtime_ns for path in paths)
        old = {"stamp": f"{len(sizes)} files, {sum(sizes)} bytes, {newest}"}
        write_json(trace, without(read_json(trace, dict), "made_from") | old)


def without(values: dict, name: str) -> dict:
    return {key: value for key, value in values.items() if key != name}
