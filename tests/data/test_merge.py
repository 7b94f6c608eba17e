"""Datasets with different organs as one, and the whole pipeline on it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from factories import change_info, labels, relabel, write_dataset

from autoseg import cli
from autoseg.data.checks import check_dataset
from autoseg.data.datasets import load_dataset
from autoseg.data.images import read_image, read_label, write_image
from autoseg.data.merge import merge_datasets
from autoseg.data.sources import bare_name
from autoseg.pipeline import PlanSettings, TrainSettings, find_best_configuration, merge, plan_and_preprocess, train
from autoseg.preprocessing.storage import Store
from autoseg.runtime.hardware import StepCost
from autoseg.runtime.serialization import read_json
from autoseg.runtime.workspace import Workspace
from autoseg.schema import Choice

BALL, BLOCK = 2, 5
"""Values in the label maps of `write_dataset`."""


def one_organ(folder: Path, values: dict[int, int], labels: dict[str, object], names: tuple[str, ...] = ("a", "b"), **more: object) -> Path:
    """The tiny dataset with other label values (what is not in `values` becomes background) and names."""
    for path in (write_dataset(folder, names) / "labelsTr").iterdir():
        relabel(path, values)
    return change_info(folder, labels={"background": 0, **labels}, **more)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Dataset 1 has the ball as 1, dataset 2 the block, as 1 too; so the block becomes 2. No scan is in both."""
    one_organ(tmp_path / "raw" / "Dataset001_Balls", {BALL: 1}, {"Ball": 1}, groups={"a": "anna", "b": "anna"})
    blocks = one_organ(tmp_path / "raw" / "Dataset002_Blocks", {BLOCK: 1}, {"block": 1})
    for path in (blocks / "imagesTr").iterdir():
        image = read_image([path])
        write_image(path, image.array + 1, image.geometry)
    return tmp_path / "raw"


def merged(raw: Path, *names: str, out: str = "Dataset009_Both") -> tuple[Path, list[str]]:
    return raw / out, merge_datasets([raw / name for name in names or ("Dataset001_Balls", "Dataset002_Blocks")], raw / out)


def values_of(path: Path) -> set[int]:
    return set(np.unique(read_label(path).array).tolist())


def groups_of(folder: Path) -> list[str]:
    return [case.group for case in load_dataset(folder, allow_external=True).cases]


class TestMerged:
    def test_cases_organs_and_annotations(self, raw):
        folder, _ = merged(raw)
        dataset = load_dataset(folder, allow_external=True)
        assert (dataset.labels, dataset.channels) == (labels(Ball=1, block=2), ("MR",))
        assert [(case.name, case.annotated, case.group) for case in dataset.cases] == [
            ("Balls_a", ("Ball",), "Balls_anna"),
            ("Balls_b", ("Ball",), "Balls_anna"),
            ("Blocks_a", ("block",), "Blocks_a"),
            ("Blocks_b", ("block",), "Blocks_b"),
        ]

    def test_images_stay_where_they_are_and_only_changed_label_maps_are_written(self, raw):
        folder, sentences = merged(raw)
        assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
            *("dataset.json", "labelsTr/Blocks_a.nii.gz", "labelsTr/Blocks_b.nii.gz"),
        ]
        files = json.loads((folder / "dataset.json").read_text())["dataset"]
        assert files["Balls_a"] == {
            "images": ["../Dataset001_Balls/imagesTr/a_0000.nii.gz"],
            "label": "../Dataset001_Balls/labelsTr/a.nii.gz",
        }
        original, copy = (read_label(path) for path in (raw / "Dataset002_Blocks/labelsTr/a.nii.gz", folder / "labelsTr/Blocks_a.nii.gz"))
        assert np.array_equal(copy.array, original.array * 2)
        assert copy.geometry == original.geometry
        assert sentences == [
            "Dataset001_Balls: 2 cases with Ball; images and label maps stay where they are",
            "Dataset002_Blocks: 2 cases with block; label maps written anew (1 became 2)",
        ]
        raw.rename(raw.with_name("elsewhere"))
        assert len(load_dataset(raw.with_name("elsewhere") / folder.name, allow_external=True).cases) == 4

    def test_a_dataset_from_elsewhere_is_named_by_its_absolute_path(self, raw, tmp_path):
        other = one_organ(tmp_path / "other" / "Dataset002_Blocks", {BLOCK: 3}, {"block": 3})
        merge_datasets([raw / "Dataset001_Balls", other], raw / "Dataset009_Both")
        files = json.loads((raw / "Dataset009_Both" / "dataset.json").read_text())["dataset"]
        assert files["Blocks_a"]["label"] == str(other / "labelsTr" / "a.nii.gz")
        assert not (raw / "Dataset009_Both" / "labelsTr").exists()

    def test_the_same_organ_in_another_spelling_is_the_same_and_the_first_spelling_stays(self, raw):
        one_organ(raw / "Dataset003_All", {BALL: 4, BLOCK: 7}, {"ball": 4, "BLOCK": 7})
        dataset = load_dataset(merged(raw, "Dataset001_Balls", "Dataset003_All")[0], allow_external=True)
        assert dataset.labels == labels(Ball=1, BLOCK=7)
        assert [case.annotated for case in dataset.cases] == [None, None, ("Ball",), ("Ball",)]  # All_a, All_b, Balls_a, Balls_b
        assert values_of(dataset.cases[0].label) == {0, 1, 7}

    def test_images_without_label_maps_come_along(self, raw):
        plain = read_image([raw / "Dataset001_Balls/imagesTr/a_0000.nii.gz"])
        write_image(raw / "Dataset001_Balls/imagesUn/new_0000.nii.gz", plain.array + 7, plain.geometry)
        shutil.copytree(raw / "Dataset001_Balls/imagesTr", raw / "Dataset002_Blocks/imagesUn")
        (raw / "Dataset002_Blocks/imagesUn/a_0000.nii.gz").rename(raw / "Dataset002_Blocks/imagesUn/same_0000.nii.gz")
        (raw / "Dataset002_Blocks/imagesUn/b_0000.nii.gz").unlink()
        folder, sentences = merged(raw)
        dataset = load_dataset(folder, allow_external=True)
        # An image that is labelled elsewhere belongs to the same patient, whose pseudo-labels no fold sees that validates on it.
        assert [(case.name, case.group) for case in dataset.unlabelled] == [("Balls_new", "Balls_new"), ("Blocks_same", "Balls_anna")]
        assert read_image(dataset.unlabelled[0].images).array.mean() == pytest.approx(plain.array.mean() + 7, rel=1e-3)
        assert "2 cases with Ball and 1 images without label maps;" in sentences[0]
        assert len(dataset.cases) == 4
        with pytest.raises(ValueError, match="case Balls_new: expected files inside of the dataset's folder"):
            change_info(folder, dataset={"x": {"images": "x.nii.gz", "label": "y.nii.gz"}}) and load_dataset(folder)

    def test_cases_that_would_have_one_name_are_refused(self, raw):
        one_organ(raw / "Dataset003_Balls_x", {BALL: 1}, {"Ball": 1}, ("y", "z"))
        one_organ(raw / "Dataset004_Balls", {BALL: 1}, {"Ball": 1}, ("x_y", "z"))
        with pytest.raises(ValueError, match="Dataset003_Balls_x and Dataset004_Balls: cases of both would be called Balls_x_y"):
            merged(raw, "Dataset003_Balls_x", "Dataset004_Balls")

    def test_ignore_labels_are_one(self, raw):
        one_organ(raw / "Dataset003_Partly", {BALL: 255, BLOCK: 1}, {"block": 1, "ignore": 255})
        one_organ(raw / "Dataset004_More", {BALL: 9, BLOCK: 255}, {"bump": 255, "ignore": 9})
        dataset = load_dataset(merged(raw, "Dataset001_Balls", "Dataset003_Partly", "Dataset004_More")[0], allow_external=True)
        assert dataset.labels == labels(Ball=1, block=2, bump=3, ignore=255)
        cases = {case.name: case for case in dataset.cases}
        assert values_of(cases["Partly_a"].label) == {0, 2, 255}
        assert values_of(cases["More_a"].label) == {0, 3, 255}
        assert cases["Partly_a"].annotated == ("block",)

    def test_annotations_of_a_dataset_that_is_partial_itself_are_kept(self, raw):
        one_organ(raw / "Dataset003_All", {BALL: 1}, {"ball": 1, "block": 2, "third": 3}, annotated={"a": ["ball"]})
        dataset = load_dataset(merged(raw, "Dataset001_Balls", "Dataset003_All")[0], allow_external=True)
        assert {case.name: case.annotated for case in dataset.cases if case.name.startswith("All")} == {"All_a": ("Ball",), "All_b": None}

    def test_datasets_of_one_name_are_told_apart(self, raw):
        one_organ(raw / "Dataset003_balls", {BLOCK: 1}, {"block": 1})
        names = [case.name for case in load_dataset(merged(raw, "Dataset001_Balls", "Dataset003_balls")[0], allow_external=True).cases]
        assert names == ["Dataset001_Balls_a", "Dataset001_Balls_b", "Dataset003_balls_a", "Dataset003_balls_b"]

    @pytest.mark.parametrize("place", [os.symlink, shutil.copyfile])
    def test_cases_of_one_image_or_of_copies_of_it_are_one_patient_and_no_mistake(self, raw, place):
        image = raw / "Dataset002_Blocks" / "imagesTr" / "b_0000.nii.gz"
        image.unlink()
        place(raw / "Dataset001_Balls" / "imagesTr" / "a_0000.nii.gz", image)
        folder, _ = merged(raw)
        assert groups_of(folder) == ["Balls_anna", "Balls_anna", "Blocks_a", "Balls_anna"]
        assert check_dataset(folder, workers=0, allow_external=True) == []

    def test_files_of_one_size_are_told_apart_and_so_are_patients_with_one_empty_channel(self, raw):
        scan = (raw / "Dataset001_Balls" / "imagesTr" / "a_0000.nii.gz").read_bytes()
        (raw / "Dataset002_Blocks" / "imagesTr" / "b_0000.nii.gz").write_bytes(scan[:-1] + bytes([scan[-1] ^ 1]))
        for folder in (raw / "Dataset001_Balls", raw / "Dataset002_Blocks"):
            for name in "ab":
                (folder / "imagesTr" / f"{name}_0001.nii.gz").write_bytes(b"empty")
            change_info(folder, channel_names={"0": "MR", "1": "T2"})
        assert groups_of(merged(raw)[0]) == ["Balls_anna", "Balls_anna", "Blocks_a", "Blocks_b"]

    def test_windows_of_organs_are_kept_and_other_channel_names_pointed_out(self, raw):
        one_organ(raw / "Dataset003_Other", {BLOCK: 2}, {"block": 2}, channel_names={"0": "CT"}, windows={"block": [400, 40]})
        folder, sentences = merged(raw, "Dataset001_Balls", "Dataset003_Other")
        assert sentences[0].startswith("Dataset003_Other: its channels are called CT; they are taken for MR of Dataset001_Balls")
        assert load_dataset(folder, allow_external=True).channels == ("MR",)
        assert load_dataset(folder, allow_external=True).windows == {"block": (400.0, 40.0)}


class TestRefused:
    @pytest.mark.parametrize(
        ("labels", "more", "message"),
        [
            ({"both": [2, 5], "block": [5]}, {"regions_class_order": [2, 5]}, "'block' lies inside of 'both', a region"),
            ({"ball": 1, "BALL": 2}, {}, "names differ in more than case"),
            ({"ball": 1}, {"channel_names": {"0": "MR", "1": "T2"}}, r"expected 1 channels .*Dataset001_Balls \(MR\), found 2 \(MR, T2\)"),
        ],
    )
    def test_datasets_that_do_not_fit(self, raw, labels, more, message):
        folder = one_organ(raw / "Dataset003_Other", {BALL: 2}, labels, **more)
        for image in sorted((folder / "imagesTr").iterdir()) if "channel_names" in more else []:
            shutil.copyfile(image, str(image).replace("_0000", "_0001"))
        with pytest.raises(ValueError, match=f"Dataset003_Other: .*{message}"):
            merged(raw, "Dataset001_Balls", "Dataset003_Other")

    def test_an_undeclared_value_leaves_nothing_behind(self, raw):
        relabel(raw / "Dataset002_Blocks" / "labelsTr" / "b.nii.gz", {1: 7})
        with pytest.raises(ValueError, match=r"b\.nii\.gz: expected the label values \[0, 1\], found also 7"):
            merged(raw)
        assert sorted(path.name for path in raw.iterdir()) == ["Dataset001_Balls", "Dataset002_Blocks"]

    def test_one_dataset_twice_and_a_folder_that_is_there(self, raw):
        with pytest.raises(ValueError, match="at least two different ones, got Dataset001_Balls, Dataset001_Balls"):
            merged(raw, "Dataset001_Balls", "Dataset001_Balls")
        with pytest.raises(ValueError, match="expected a new folder"):
            merged(raw, out="Dataset002_Blocks")

    @pytest.mark.parametrize(
        ("ids", "number", "name", "message"),
        [
            ([1, 2], 2, None, "which Dataset002_Blocks has"),
            ([1, 2], 0, None, "1 to 999, got 0"),
            ([1, 2], 9, "a/b", "letters, digits"),
            ([], 9, None, "at least two, got none"),
        ],
    )
    def test_an_id_or_a_name_that_cannot_be_used(self, raw, ids, number, name, message):
        with pytest.raises(ValueError, match=message):
            merge(ids, number, name=name, home=raw.parent)


def test_bare_names():
    assert [bare_name(name) for name in ("Dataset003_Liver", "Task07_Pancreas", "liver")] == ["Liver", "Pancreas", "liver"]


def test_the_command_says_what_it_did_and_what_comes_next(raw, capsys):
    assert cli.merge(["-d", "1", "2", "-o", "9", "--home", str(raw.parent)]) == 0
    out = capsys.readouterr().out
    assert "2 cases with block; label maps written anew (1 became 2)" in out
    assert f"The merged dataset is {raw / 'Dataset009_Balls_Blocks'}" in out
    assert "Next: autoseg_plan_and_preprocess -d 9" in out
    assert cli.check(["-d", "9", "--home", str(raw.parent), "--workers", "0"]) == 0


@pytest.mark.usefixtures("no_pictures")
def test_the_story_from_two_datasets_with_one_organ_each_to_a_choice(tmp_path, monkeypatch):
    monkeypatch.setattr("autoseg.trainers.run_setup.measure_step", lambda *_: StepCost(seconds=0.01, peak_bytes=1))
    names = tuple(f"case_{number}" for number in range(4))
    one_organ(tmp_path / "raw" / "Dataset001_Balls", {BALL: 1}, {"ball": 1}, names)
    one_organ(tmp_path / "raw" / "Dataset002_Blocks", {BLOCK: 1}, {"block": 1}, names)
    folder, _ = merge([1, 2], 9, name="Both", home=tmp_path)
    plan_and_preprocess(9, PlanSettings(configurations=("3d_fullres",), memory_gb=0.2, workers=0), home=tmp_path)
    workspace = Workspace(tmp_path)
    splits, data = workspace.splits(folder.name), Store(workspace.preprocessed(folder.name) / "3d_fullres")
    assert {name: data.load(name).annotated for name in data.names()} == {
        f"{source}_{name}": (organ,) for source, organ in (("Balls", "ball"), ("Blocks", "block")) for name in names
    }
    assert all({name.split("_")[0] for name in split.val} == {"Balls", "Blocks"} for split in splits[:3]), "every fold validates both"
    settings = TrainSettings(iterations=3, batch=2, device="cpu", options={"validation_batches": 1})
    scores = train(9, "3d_fullres", 0, settings, home=tmp_path)
    assert {(score.case.split("_")[0], score.organ) for score in scores} == {("Balls", "ball"), ("Blocks", "block")}
    assert len(scores) == len(splits[0].val)
    choice = find_best_configuration(9, home=tmp_path)
    assert set(choice.organs) == {"ball", "block"}
    assert read_json(workspace.results(folder.name) / "choice.json", Choice).cases == len(splits[0].val)
