"""What becomes of labels in a merged dataset: renamed, joined, of unknown side; and what is refused, with a cure that works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from factories import change_info, labels, relabel, write_dataset

from autoseg import cli
from autoseg.data.checks import check_dataset
from autoseg.data.datasets import load_dataset
from autoseg.data.images import read_image, read_label, write_image
from autoseg.data.merge import merge_datasets
from autoseg.pipeline import PlanSettings, TrainSettings, find_best_configuration, merge, plan_and_preprocess, train
from autoseg.preprocessing.storage import Store
from autoseg.runtime.hardware import StepCost
from autoseg.runtime.serialization import read_json
from autoseg.runtime.workspace import Workspace
from autoseg.schema import Dataset
from autoseg.schema.run_record import RunRecord

BALL, BLOCK = 2, 5
"""Values in the label maps of `write_dataset`."""
MERGED = "Dataset009_All"


def a_dataset(raw: Path, number: int, name: str, values: dict[int, int], organs: dict[str, object], **more: object) -> None:
    """The tiny dataset with other values (what is not in `values` becomes background), and images of its own."""
    folder = write_dataset(raw / f"Dataset{number:03d}_{name}", ("a", "b"))
    for path in (folder / "labelsTr").iterdir():
        relabel(path, values)
    for path in (folder / "imagesTr").iterdir():
        image = read_image([path])
        write_image(path, image.array + number, image.geometry)
    change_info(folder, labels={"background": 0, **organs}, **more)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """LiTS: a liver (ball) with a tumor (block) outside of its label. KiTS: one kidney. BTCV: both kidneys and the spleen."""
    raw = tmp_path / "raw"
    a_dataset(raw, 1, "LiTS", {BALL: 1, BLOCK: 2}, {"liver": 1, "tumor": 2})
    a_dataset(raw, 2, "KiTS", {BALL: 1, BLOCK: 2}, {"kidney": 1, "cyst": 2})
    a_dataset(raw, 3, "BTCV", {BALL: 3, BLOCK: 4}, {"Kidney_Left": 3, "kidney_right": 4})
    a_dataset(raw, 4, "Livers", {BALL: 1}, {"liver": 1})
    return raw


def merged(raw: Path, numbers: list[int], *mapping: str, out: str = MERGED) -> tuple[Dataset, list[str]]:
    folders = [next(raw.glob(f"Dataset{number:03d}_*")) for number in numbers]
    sentences = merge_datasets(folders, raw / out, mapping=mapping, allow_external=[True] * len(folders))
    return load_dataset(raw / out, allow_external=True), sentences


def voxels(dataset: Dataset, name: str) -> np.ndarray:
    return read_label(next(case.label for case in dataset.cases if case.name == name)).array


def original(raw: Path, number: int) -> np.ndarray:
    return read_label(next(raw.glob(f"Dataset{number:03d}_*")) / "labelsTr" / "a.nii.gz").array


def annotated(dataset: Dataset) -> dict[str, tuple[str, ...] | None]:
    return {case.name.split("_")[0]: case.annotated for case in dataset.cases}


class TestMapped:
    def test_labels_with_one_name_are_their_union(self, raw):
        dataset, sentences = merged(raw, [1, 4], "lits:tumor=liver")
        assert dataset.labels == labels(liver=1)
        assert annotated(dataset) == {"LiTS": None, "Livers": None}
        assert np.array_equal(voxels(dataset, "LiTS_a"), (original(raw, 1) > 0).astype(int))
        assert sentences[0] == "Dataset001_LiTS: 2 cases with liver (tumor is liver); label maps written anew (2 became 1)"

    @pytest.mark.parametrize("which", ["1", "LiTS", "lits", "Dataset001_LiTS"])
    def test_several_labels_at_once_by_any_name_of_the_dataset(self, raw, which):
        dataset, _ = merged(raw, [1, 2], f"{which}:liver+Tumor=Liver with tumor", "kits:cyst=kidney")
        assert set(dataset.labels.names) == {"Liver with tumor", "kidney"}
        assert (voxels(dataset, "LiTS_a") > 0).sum() == (original(raw, 1) > 0).sum()

    def test_a_label_that_is_no_organ_is_background(self, raw):
        dataset, sentences = merged(raw, [1, 4], "lits:tumor=background")
        assert dataset.labels == labels(liver=1)
        assert np.array_equal(voxels(dataset, "LiTS_a"), original(raw, 1) == 1)
        assert "tumor is background" in sentences[0] and "2 became 0" in sentences[0]

    def test_of_unknown_side_is_annotated_as_a_union(self, raw):
        mapping = "kits:kidney=kidney_left+kidney_right", "kits:cyst=kidney_left+kidney_right"
        dataset, sentences = merged(raw, [2, 3], *mapping)
        assert dataset.labels == labels(Kidney_Left=3, kidney_right=4), "spelled as the dataset that knows them"
        assert annotated(dataset) == {"KiTS": ("Kidney_Left + kidney_right",), "BTCV": None}
        assert np.array_equal(voxels(dataset, "KiTS_a"), 3 * (original(raw, 2) > 0))
        assert np.array_equal(voxels(dataset, "BTCV_a"), original(raw, 3))
        assert sentences[0].startswith("Dataset002_KiTS: 2 cases with Kidney_Left + kidney_right (kidney is Kidney_Left + kidney_right,")
        assert check_dataset(raw / MERGED, workers=0, allow_external=True) == []

    def test_a_part_that_is_inside_of_an_organ_there_and_apart_here_is_a_union_too(self, raw):
        dataset, _ = merged(raw, [1, 4], "livers:liver=liver+tumor")
        assert dataset.labels == labels(liver=1, tumor=2)
        assert annotated(dataset) == {"LiTS": None, "Livers": ("liver + tumor",)}

    def test_a_merged_dataset_is_merged_again_with_its_unions_and_sources(self, raw):
        merged(raw, [2, 3], "kits:kidney+cyst=kidney_left+kidney_right", out="Dataset008_Kidneys")
        dataset, _ = merged(raw, [8, 4], "Kidneys:Kidney_Left=left kidney")
        found = {case.name: (case.annotated, case.source) for case in dataset.cases if case.name.endswith("_a")}
        assert found == {
            "Kidneys_KiTS_a": (("left kidney + kidney_right",), "Dataset002_KiTS"),
            "Kidneys_BTCV_a": (("left kidney", "kidney_right"), "Dataset003_BTCV"),
            "Livers_a": (("liver",), "Dataset004_Livers"),
        }
        dataset, _ = merged(raw, [8, 4], "Kidneys:Kidney_Left+kidney_right=kidney", out="Dataset010_NoSides")
        assert annotated(dataset) == {"Kidneys": ("kidney",), "Livers": ("liver",)}
        assert np.array_equal(voxels(dataset, "Kidneys_KiTS_a") > 0, original(raw, 2) > 0)

    def test_an_organ_made_of_labels_of_which_one_was_not_annotated_is_not_known(self, raw):
        change_info(raw / "Dataset001_LiTS", annotated={"a": ["liver"]})
        relabel(raw / "Dataset001_LiTS" / "labelsTr" / "a.nii.gz", {1: 1})
        a_dataset(raw, 5, "Spleens", {BALL: 1}, {"spleen": 1})
        change_info(
            raw / "Dataset001_LiTS", labels={"background": 0, "liver": 1, "tumor": 2, "spleen": 3}, annotated={"a": ["liver", "spleen"]}
        )
        dataset, _ = merged(raw, [1, 5], "lits:tumor=liver")
        assert {case.name: case.annotated for case in dataset.cases if case.name.startswith("LiTS")} == {
            "LiTS_a": ("spleen",),
            "LiTS_b": None,
        }
        assert not voxels(dataset, "LiTS_a").any(), "a part of a liver is neither liver nor background"
        assert voxels(dataset, "LiTS_b").any()

    def test_windows_go_with_the_organs(self, raw):
        change_info(raw / "Dataset002_KiTS", windows={"kidney": [400, 40]})
        dataset, _ = merged(raw, [2, 3], "kits:kidney+cyst=kidney_left+kidney_right")
        assert dataset.windows == {"Kidney_Left": (400.0, 40.0), "kidney_right": (400.0, 40.0)}

    def test_the_command(self, raw, capsys):
        arguments = ["-d", "1", "4", "-o", "9", "--map", "lits:tumor=liver", "--home", str(raw.parent)]
        assert cli.merge(arguments) == 0
        assert "(tumor is liver)" in capsys.readouterr().out


class TestRegions:
    """A dataset whose tumor is a region inside of its liver."""

    @pytest.fixture
    def nested(self, raw) -> Path:
        a_dataset(raw, 6, "Nested", {BALL: 1, BLOCK: 2}, {"liver": [1, 2], "tumor": [2]}, regions_class_order=[1, 2])
        return raw

    def test_inside_is_made_outside_or_the_whole(self, nested):
        apart, _ = merged(nested, [1, 6], "nested:tumor=tumor")
        assert apart.labels == labels(liver=1, tumor=2)
        assert np.array_equal(voxels(apart, "Nested_a"), original(nested, 6))
        whole, _ = merged(nested, [4, 6], "nested:tumor=liver", out="Dataset010_Whole")
        assert whole.labels == labels(liver=1)
        assert np.array_equal(voxels(whole, "Nested_a"), original(nested, 6) > 0)

    def test_regions_that_overlap_otherwise_are_refused(self, raw):
        a_dataset(raw, 6, "Odd", {BALL: 1, BLOCK: 2}, {"x": [1, 3], "y": [2, 3], "both": [3]}, regions_class_order=[1, 2, 3])
        a_dataset(raw, 7, "Odder", {BALL: 1, BLOCK: 2}, {"x": [1, 2, 3], "y": [2, 3]}, regions_class_order=[1, 2])
        assert merged(raw, [4, 6], "odd:both=x")[0].labels.names
        with pytest.raises(
            ValueError, match=r"Odder: cannot be merged: expected regions each with one value .*found x \[1, 2, 3\], y \[2, 3\]"
        ):
            merged(raw, [4, 7], out="Dataset010_No")


class TestClashes:
    CASES = {
        "sides": ([2, 3], [], "'kidney' has no side, and Dataset003_BTCV has Kidney_Left, kidney_right", 3),
        "tumour inside there": ([1, 4], [], "'tumor' lies outside of 'liver' there, and inside of it in Dataset004_Livers", 3),
        "named by its organ": ([5, 4], [], "'Liver_Tumours' lies outside of 'liver' there", 3),
        "region": ([6, 4], [], "'tumor' lies inside of 'liver', a region", 2),
        "cyst in a kidney without sides": ([2, 3], ["kits:kidney=Kidney_Left+kidney_right"], "'cyst' lies outside of 'Kidney_Left'", 2),
    }

    @pytest.mark.parametrize("case", CASES)
    def test_it_is_refused_and_every_cure_that_is_named_works(self, raw, case):
        numbers, given, message, cures = self.CASES[case]
        a_dataset(raw, 5, "Named", {BALL: 1, BLOCK: 2}, {"liver": 1, "Liver_Tumours": 2, "pancreas": 7})
        a_dataset(raw, 6, "Nested", {BALL: 1, BLOCK: 2}, {"liver": [1, 2], "tumor": [2]}, regions_class_order=[1, 2])
        with pytest.raises(ValueError, match=re.escape(message)) as error:
            merged(raw, numbers, *given)
        assert not (raw / MERGED).exists()
        named = re.findall(r"--map ((?:'[^']+'|[\w.]+:[^ ,;)]+)(?: [\w.]+:[^ ,;)]+)*)", str(error.value))
        assert len(named) == cures
        for number, cure in enumerate(named, 10):
            mapping = [*given, *shlex.split(cure)]
            if case == "sides":  # this clash is mended, and the next one would be found
                mapping.append("kits:cyst=background")
            dataset, _ = merged(raw, numbers, *mapping, out=f"Dataset{number:03d}_Cured")
            assert dataset.labels.names

    def test_what_is_meant_is_said_by_a_label_that_is_mapped_to_itself(self, raw):
        assert merged(raw, [1, 4], "lits:tumor=tumor")[0].labels == labels(liver=1, tumor=2)
        dataset, _ = merged(raw, [2, 3], "kits:kidney=kidney", "kits:cyst=cyst", out="Dataset010_Other")
        assert set(dataset.labels.names) == {"kidney", "cyst", "Kidney_Left", "kidney_right"}

    def test_organs_that_no_dataset_tells_apart(self, raw):
        with pytest.raises(ValueError, match="expected another dataset that shows 'kidney_left' by itself"):
            merged(raw, [2, 4], "kits:kidney=kidney_left+kidney_right", "kits:cyst=background")

    def test_an_organ_alone_and_in_a_union_of_one_dataset(self, raw):
        with pytest.raises(
            ValueError, match=r"LiTS: expected each organ alone or in one union, found 'liver' in 'liver' and 'liver \+ tumor'"
        ):
            merged(raw, [1, 4], "lits:tumor=liver+tumor")


class TestRefused:
    @pytest.mark.parametrize(
        ("mapping", "message"),
        [
            ("tumor=liver", "expected DATASET:LABEL=ORGAN such as lits:tumor=liver"),
            ("lits:tumor", "expected DATASET:LABEL=ORGAN"),
            ("lits:=liver", "expected DATASET:LABEL=ORGAN"),
            ("lits:tumor=", "expected DATASET:LABEL=ORGAN"),
            ("brats:tumor=liver", "dataset to merge: expected one of Dataset001_LiTS, Dataset004_Livers, got 'brats'"),
            ("lits:tumour=liver", "label of Dataset001_LiTS: expected one of liver, tumor, got 'tumour'. Did you mean 'tumor'"),
            ("lits:tumor=liver+Liver", "expected different organs, or background alone"),
            ("lits:tumor=liver+background", "expected different organs, or background alone"),
        ],
    )
    def test_a_text_that_says_nothing(self, raw, mapping, message):
        with pytest.raises(ValueError, match=re.escape(message)):
            merged(raw, [1, 4], mapping)

    def test_a_label_twice_and_a_case_of_which_nothing_is_left(self, raw):
        with pytest.raises(ValueError, match="expected each label once, got 'tumor' of Dataset001_LiTS twice"):
            merged(raw, [1, 4], "lits:tumor=liver", "1:tumor=x")
        with pytest.raises(ValueError, match="Livers: case a: expected an organ that is left by the mapping"):
            merged(raw, [1, 4], "livers:liver=background")


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("trainer", ["Trainer", "AdversarialTrainer", "SpatialConfigurationTrainer"])
def test_the_story_from_a_dataset_without_sides_to_a_choice(tmp_path, monkeypatch, trainer):
    """KiTS shows both kidneys as one, BTCV the sides; every fold validates some of both, and scores those that are told apart."""
    monkeypatch.setattr("autoseg.trainers.run_setup.measure_step", lambda *_: StepCost(seconds=0.01, peak_bytes=1))
    a_dataset(tmp_path / "raw", 1, "KiTS", {BALL: 1, BLOCK: 1}, {"kidney": 1})
    a_dataset(tmp_path / "raw", 2, "BTCV", {BALL: 1, BLOCK: 2}, {"kidney_left": 1, "kidney_right": 2})
    folder, _ = merge([1, 2], 9, name="Both", home=tmp_path, mapping=["kits:kidney=kidney_left+kidney_right"])
    plan = plan_and_preprocess(9, PlanSettings(configurations=("3d_fullres",), memory_gb=0.2, workers=0), home=tmp_path)
    assert plan.configurations["3d_fullres"].mirroring.pairs == ((0, 1),)
    stored = Store(Workspace(tmp_path).preprocessed(folder.name) / "3d_fullres").load("KiTS_a")
    assert stored.annotated == ("kidney_left + kidney_right",)
    assert [len(stored.locations[key]) > 0 for key in "01"] == [True, False]
    options = {"validation_batches": 1, "case_sampling": "alternating"}
    settings = TrainSettings(iterations=4, batch=2, device="cpu", trainer=trainer, options=options)
    scores = {fold: train(9, "3d_fullres", fold, settings, home=tmp_path) for fold in range(2)}
    assert {score.case.split("_")[0] for some in scores.values() for score in some} == {"BTCV"}
    record = Workspace(tmp_path).results(folder.name) / f"3d_fullres__{trainer}" / "fold_0" / "run.json"
    assert set(read_json(record, RunRecord).sources.values()) == {"Dataset001_KiTS", "Dataset002_BTCV"}
    assert set(find_best_configuration(9, home=tmp_path).organs) == {"kidney_left", "kidney_right"}
