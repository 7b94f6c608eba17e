"""The evaluation command: several predictions, files, tolerances."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from factories import write_dataset, write_volume

from autoseg import evaluate_folders
from autoseg.cli import evaluate


@pytest.fixture
def folders(tmp_path):
    """References and two predictions of seven cases: `moved` is a voxel off, `right` is not."""
    for number in range(7):
        array = np.zeros((6, 12 + number, 12), np.uint8)
        array[1:4, 3:8, 3:9] = 1
        for name, some in (("labels", array), ("moved", np.roll(array, 1, axis=2)), ("right", array)):
            write_volume(tmp_path / name / f"case_{number}.nii.gz", some, spacing=(1.5, 1.0, 3.0))
    return tmp_path


def run(folders, *arguments):
    return evaluate([str(one) for one in ("-r", folders / "labels", *arguments)])


def test_two_predictions_are_compared(folders, capsys):
    assert run(folders, "-p", folders / "moved", folders / "right", "--json", folders / "x.json", "--csv", folders / "x.csv") == 0
    printed = capsys.readouterr().out
    assert f"B = {folders / 'right'}" in printed and "95 % interval" in printed
    found = json.loads((folders / "x.json").read_text())
    assert [one["summary"]["label 1"]["means"]["hd_border"] for one in found["results"]] == [1.5, 0.0]
    (compared,) = found["comparisons"]
    dice = next(one for one in compared["differences"] if one["metric"] == "dice")
    assert (dice["first"], dice["second"], dice["p_value"]) == pytest.approx((5 / 6, 1.0, 2 / 2**7))
    rows = list(csv.DictReader((folders / "x.csv").open()))
    assert len(rows) == 14 and float(rows[0]["hd_border (mm)"]) == 1.5


@pytest.mark.parametrize(("frames", "patients"), [("fg", 3), ("f", 6)])
def test_frames_of_a_patient_are_one_observation_without_a_dataset(tmp_path, capsys, frames, patients):
    """Six frames of three patients, better in each: over frames the test would say p = 0.031."""
    for number in range(6):
        array = np.zeros((6, 12 + number, 12), np.uint8)
        array[1:4, 3 : 8 + number % 3, 3:9] = 1
        name = f"p{number // len(frames)}_{frames[number % len(frames)]}.nii.gz"
        for folder, some in (("labels", array), ("moved", np.roll(array, 1, axis=2)), ("right", array)):
            write_volume(tmp_path / folder / name, some)
    assert run(tmp_path, "-p", tmp_path / "moved", tmp_path / "right", "--metrics", "hd_border", "--json", tmp_path / "x.json") == 0
    (found,) = json.loads((tmp_path / "x.json").read_text())["comparisons"][0]["differences"]
    assert (found["cases"], found["patients"]) == (6, patients)
    assert found["p_value"] == (None if patients == 3 else pytest.approx(2 / 64))
    printed = " ".join(capsys.readouterr().out.split())
    assert ("Paired over the patients (guessed from the names of the cases)" in printed) == (patients == 3)


def test_tolerance_and_metrics_are_the_users(folders, capsys):
    assert run(folders, "-p", folders / "moved", "--metrics", "nsd_border", "--tolerance", "1.5") == 0
    printed = capsys.readouterr().out
    assert "1.0000" in printed and "NSD: share within 1.5 mm" in printed and "CHAOS score" not in printed
    assert run(folders, "-p", folders / "moved", "--metrics", "nsd_border", "--tolerance", "label 1=1.4") == 0
    assert "(label 1 1.4 mm)" in capsys.readouterr().out


def test_tolerance_of_an_organ_that_no_case_annotates(tmp_path, capsys):
    folder = write_dataset(tmp_path / "Dataset001_Tiny")
    info = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**info, "annotated": {"a": ["ball"]}, "tolerances": {"block": 3.0}}))
    path = folder / "labelsTr" / "a.nii.gz"
    label = sitk.ReadImage(str(path))
    sitk.WriteImage(sitk.Cast(label == 2, sitk.sitkUInt8) * 2, str(path))
    assert evaluate([str(one) for one in ("-r", path, "-p", shutil.copy(path, tmp_path), "-d", folder)]) == 0
    printed = capsys.readouterr().out
    assert "ball" in printed and "block" not in printed


def test_predictions_are_scored_with_post_processing_and_stay_as_they_are(folders, capsys):
    for path in sorted((folders / "right").glob("*.nii.gz")):
        array = np.asarray(sitk.GetArrayFromImage(sitk.ReadImage(str(path))))
        array[5, 11, 10:] = 1
        write_volume(path, array, spacing=(1.5, 1.0, 3.0))
    before = {path: path.read_bytes() for path in folders.rglob("*.nii.gz")}
    found = {}
    for words in ([], ["none"], ["largest"], ["label 1=2"], ["none", "label 1=largest"]):
        asked = ["--postprocess", *words] if words else []
        assert run(folders, "-p", folders / "right", "--json", folders / "x.json", *asked) == 0
        read = json.loads((folders / "x.json").read_text())
        found[" ".join(words)] = read["results"][0]["summary"]["label 1"]["means"]["dice"]
        assert read["postprocess"] == words and ("with post-processing" in capsys.readouterr().out) == bool(words)
    assert found["largest"] == found["none label 1=largest"] == 1.0 and found[""] == found["none"] == found["label 1=2"] < 1.0
    assert before == {path: path.read_bytes() for path in folders.rglob("*.nii.gz")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--postprocess", "largst"), "expected none, largest, or a number"),
        (("--postprocess", "liver=2"), "expected one of label 1, got 'liver'"),
        (("--tolerance", "liver=2"), "expected one of label 1, got 'liver'"),
        (("--tolerance", "=2"), "found =2"),
        (("--metrics", "dise"), "Did you mean 'dice'"),
    ],
)
def test_what_does_not_exist_is_answered(folders, arguments, message, capsys):
    assert run(folders, "-p", folders / "moved", *arguments) != 0
    assert message in capsys.readouterr().err


def test_one_file_is_compared_with_what_has_its_name_in_a_folder(folders, capsys):
    assert run(folders, "-p", folders / "moved" / "case_2.nii.gz") == 0
    assert "0.8333" in capsys.readouterr().out
    assert evaluate([str(one) for one in ("-r", folders / "labels" / "case_2.nii.gz", "-p", folders / "moved", folders / "right")]) == 0
    other = shutil.copy(folders / "moved" / "case_2.nii.gz", folders / "seg.nii.gz")
    assert run(folders, "-p", other) == 2
    said = capsys.readouterr().err
    assert "expected a reference of that name" in said and "none called seg" in said and "case_0" in said


def test_several_files_of_one_folder_are_one_prediction(folders, capsys):
    (folders / "moved" / "notes.txt").write_text("no label map")
    some = [folders / "moved" / f"case_{number}.nii.gz" for number in (1, 2, 5)]
    assert run(folders, "-p", *some, "--json", folders / "x.json") == 0
    (result,) = json.loads((folders / "x.json").read_text())["results"]
    assert [score["case"] for score in result["scores"]] == ["case_1", "case_2", "case_5"]
    assert "missing" not in capsys.readouterr().err
    other = shutil.copy(some[0], folders / "moved" / "other.nii.gz")
    assert run(folders, "-p", *some, other) == 2
    assert "none called other" in " ".join(capsys.readouterr().err.split())


def test_folders_in_python_are_what_a_user_has(folders):
    scores = evaluate_folders(str(folders / "labels"), str(folders / "moved"))
    assert scores == evaluate_folders(folders / "labels", folders / "moved") and len(scores) == 7


def test_patients_are_those_of_the_user(folders, capsys):
    table = folders / "patients.csv"
    table.write_text("case,patient\n" + "".join(f"case_{number},p{number // 4}\n" for number in range(7)))
    words = ("-p", folders / "moved", folders / "right", "--json", folders / "x.json", "--groups")
    assert run(folders, *words, table) == 0
    dice = next(one for one in json.loads((folders / "x.json").read_text())["comparisons"][0]["differences"] if one["metric"] == "dice")
    assert dice["p_value"] is None or dice["p_value"] > 0.4, "two patients tell nothing"
    table.write_text("case_0,p")
    assert run(folders, *words, table) == 2
    assert "expected a patient for every case" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["labels", "."])
def test_a_dataset_json_beside_the_files_or_above_names_the_organs(folders, capsys, place):
    description = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "numTraining": 7, "file_ending": ".nii.gz"}
    (folders / place / "dataset.json").write_text(json.dumps(description))
    assert run(folders, "-p", folders / "moved", "--tolerance", "liver=3") == 0
    printed = capsys.readouterr().out
    assert "liver" in printed and "label 1" not in printed
    assert "Organs are named by" in printed
    assert run(folders, "-p", folders / "moved" / "case_1.nii.gz") == 0
    assert "liver" in capsys.readouterr().out


def test_without_names_it_is_said_how_to_name_organs(folders, capsys, caplog):
    (folders / "dataset.json").write_text("{")
    assert run(folders, "-p", folders / "moved") == 0
    printed = capsys.readouterr().out
    assert "label 1" in printed and "-d DATASET says them, or a dataset.json" in printed
    assert "Organs are not named by" in caplog.text
