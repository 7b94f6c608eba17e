"""The description of a planned dataset: what every stage after planning reads, wherever the home folder is copied or moved to."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from factories import change_info

from autoseg.data.datasets import load_dataset
from autoseg.data.descriptions import (
    check_files,
    copy_planned_dataset,
    planned_dataset,
    raw_dataset,
    read_description,
    write_description,
    write_planned_dataset,
)
from autoseg.runtime.serialization import to_jsonable, write_json
from autoseg.runtime.workspace import Workspace
from autoseg.schema import Dataset

DATASET = "Dataset003_Liver"
CASES = ("p1_a", "p1_b", "p2_a", "p2_b")
PATIENTS = r"^p\d+"


@pytest.fixture
def home(tmp_path: Path, tiny_dataset) -> Path:
    """A home folder in which a dataset was planned, with two patients."""
    home = tmp_path / "home"
    tiny_dataset(home / "raw" / DATASET, CASES)
    write_planned_dataset(Workspace(home), raw_dataset(Workspace(home), 3, groups=PATIENTS))
    return home


def files_of(dataset: Dataset) -> list[Path]:
    return [dataset.folder, *(file for case in dataset.cases for file in (*case.images, case.label))]


def as_by_0_1_0(home: Path, part: str = "preprocessed") -> None:
    """Describes the raw dataset as version 0.1.0 did, with absolute paths."""
    write_json(home / part / DATASET / "dataset.json", to_jsonable(load_dataset(home / "raw" / DATASET)))


class TestPaths:
    def test_they_are_relative_to_the_home_folder(self, home):
        stored = json.loads((home / "preprocessed" / DATASET / "dataset.json").read_text())
        assert stored["folder"] == f"raw/{DATASET}"
        assert stored["cases"][0]["images"] == [f"raw/{DATASET}/imagesTr/p1_a_0000.nii.gz"]
        assert stored["cases"][0]["label"] == f"raw/{DATASET}/labelsTr/p1_a.nii.gz"

    def test_those_outside_the_home_folder_stay_absolute(self, home, tmp_path, tiny_dataset):
        alone = tiny_dataset(tmp_path / "usb" / "Dataset005_Brain", CASES[:1])
        workspace = Workspace(home)
        write_planned_dataset(workspace, raw_dataset(workspace, str(alone)))
        stored = json.loads((home / "preprocessed" / alone.name / "dataset.json").read_text())
        assert (stored["folder"], stored["cases"][0]["label"]) == (str(alone), str(alone / "labelsTr" / "p1_a.nii.gz"))
        assert planned_dataset(workspace, 5) == raw_dataset(workspace, str(alone))

    def test_a_path_that_leads_out_of_the_home_folder_again_stays_absolute(self, home, tmp_path):
        dataset = load_dataset(home / "raw" / DATASET)
        inside, outside = (dataset.folder / place / "p1_a_0000.nii.gz" for place in ("../Dataset004_X/imagesTr", "../../../elsewhere"))
        dataset = replace(dataset, cases=(replace(dataset.cases[0], images=(inside, outside)),))
        write_description(home / "x.json", dataset, home)
        stored = json.loads((home / "x.json").read_text())["cases"][0]["images"]
        assert stored == [f"raw/{DATASET}/../Dataset004_X/imagesTr/p1_a_0000.nii.gz", str(outside)]

    def test_a_folder_that_was_named_through_a_link_is_inside_all_the_same(self, home, tmp_path):
        (tmp_path / "link").symlink_to(home, target_is_directory=True)
        for named in (home, tmp_path / "link"):
            write_description(home / "x.json", load_dataset(named / "raw" / DATASET), home)
            assert read_description(home / "x.json", home=home, raw=home / "raw") == load_dataset(home / "raw" / DATASET)


class TestCopiedHome:
    """A home folder reads its own files, whether the one that it was copied from is still there or not."""

    @pytest.mark.parametrize("old_format", [False, True])
    @pytest.mark.parametrize("original", ["untouched", "removed"])
    def test_it_reads_its_own_files(self, home, tmp_path, original, old_format):
        if old_format:
            as_by_0_1_0(home)
        there = shutil.copytree(home, tmp_path / "copy")
        label = there / "raw" / DATASET / "labelsTr" / "p1_a.nii.gz"
        label.write_bytes(b"changed in the copy")
        if original == "removed":
            shutil.rmtree(home)
        dataset = planned_dataset(Workspace(there), 3)
        assert all(file.is_relative_to(there) and file.exists() for file in files_of(dataset))
        assert dataset.cases[0].label.read_bytes() == b"changed in the copy"

    def test_the_patients_of_the_plan_go_with_it(self, home, tmp_path):
        there = shutil.copytree(home, tmp_path / "copy")
        assert [case.group for case in raw_dataset(Workspace(there), "Liver").cases] == list(CASES)
        assert planned_dataset(Workspace(there), "Liver") == raw_dataset(Workspace(there), "Liver", groups=PATIENTS)

    @pytest.mark.parametrize("old_format", [False, True])
    def test_a_folder_of_datasets_that_was_renamed_or_lies_elsewhere_is_found(self, home, tmp_path, monkeypatch, old_format):
        if old_format:
            as_by_0_1_0(home)
        (home / "raw").rename(home / "nnUNet_raw")
        assert all(file.exists() for file in files_of(planned_dataset(Workspace(home), 3)))
        (home / "nnUNet_raw").rename(tmp_path / "data")
        monkeypatch.setenv("nnUNet_raw", str(tmp_path / "data"))
        assert all(file.exists() for file in files_of(planned_dataset(Workspace(home), 3)))

    def test_a_file_outside_the_home_stays_where_it_is_though_the_home_has_one_of_its_name(self, home, tmp_path, tiny_dataset):
        """A merged dataset may refer to the images of another home."""
        other = tiny_dataset(tmp_path / "other" / "raw" / DATASET)
        dataset = load_dataset(home / "raw" / DATASET)
        elsewhere = other / "imagesTr" / "p1_a_0000.nii.gz"
        dataset = replace(dataset, cases=(replace(dataset.cases[0], images=(elsewhere,)),))
        write_planned_dataset(Workspace(home), dataset)
        assert planned_dataset(Workspace(home), 3).cases[0].images == (elsewhere,)

    def test_results_without_the_data_still_tell_what_was_planned(self, home, tmp_path):
        workspace = Workspace(home)
        copy_planned_dataset(workspace, DATASET)
        copied = (home / "results" / DATASET / "dataset.json").read_bytes()
        assert copied == (home / "preprocessed" / DATASET / "dataset.json").read_bytes()
        shutil.copytree(home / "results", tmp_path / "alone" / "results")
        planned = planned_dataset(workspace, 3)
        found = [planned_dataset(Workspace(tmp_path / "alone"), which) for which in (3, "liver", DATASET, str(home / "raw" / DATASET))]
        assert all((one.labels, len(one.cases)) == (planned.labels, 4) for one in found)
        assert found[0].folder == tmp_path / "alone" / "raw" / DATASET

    def test_a_dataset_that_came_from_elsewhere_is_followed_to_where_the_user_says_it_lies_now(self, home, tmp_path, tiny_dataset):
        workspace, former = Workspace(home), tiny_dataset(tmp_path / "usb" / "Dataset005_Brain", CASES)
        write_planned_dataset(workspace, raw_dataset(workspace, str(former), groups=PATIENTS))
        (tmp_path / "usb").rename(tmp_path / "usb2")
        now = planned_dataset(workspace, str(tmp_path / "usb2" / former.name))
        assert {case.group for case in now.cases} == {"p1", "p2"} and all(file.exists() for file in files_of(now))


class TestPlanned:
    def test_what_changes_in_raw_is_seen_when_it_is_planned_again(self, home, tiny_dataset):
        workspace = Workspace(home)
        before = planned_dataset(workspace, 3)
        change_info(home / "raw" / DATASET, labels={"background": 0, "ball": 2})
        assert planned_dataset(workspace, 3) == before
        assert raw_dataset(workspace, 3).labels.names == ("ball",)
        write_planned_dataset(workspace, raw_dataset(workspace, 3))
        assert planned_dataset(workspace, 3).labels.names == ("ball",)

    def test_a_dataset_that_was_never_planned_is_read_as_it_is(self, home, tmp_path, tiny_dataset):
        tiny_dataset(home / "raw" / "Dataset004_Lung", CASES[:1])
        alone = tiny_dataset(tmp_path / "usb" / DATASET, CASES[:1])
        assert planned_dataset(Workspace(home), 4) == load_dataset(home / "raw" / "Dataset004_Lung")
        assert planned_dataset(Workspace(home), str(alone)) == load_dataset(alone), "another one of the same name"

    def test_files_that_are_gone_are_named(self, home):
        dataset = planned_dataset(Workspace(home), 3)
        check_files(dataset, home)
        dataset.cases[1].images[0].unlink()
        dataset.cases[2].label.unlink()
        with pytest.raises(ValueError, match=r"case p1_b: missing channel, expected .*p1_b_0000.*; case p2_a: missing label, .*p2_a\.nii"):
            check_files(dataset, home)

    def test_a_damaged_description_is_named(self, home):
        (home / "preprocessed" / DATASET / "dataset.json").write_text("{")
        with pytest.raises(ValueError, match=r"preprocessed.*dataset\.json: damaged"):
            planned_dataset(Workspace(home), 3)
