"""A dataset with one fault a case: every fault is found with its measure."""

from __future__ import annotations

import shutil
import tracemalloc

import numpy as np
import pytest
import SimpleITK as sitk
from factories import CHECKED_SHAPE, write_case, write_faulty_dataset, write_info, write_merged_twins, write_volume

from autoseg import cli
from autoseg.data import checks, images
from autoseg.data.datasets import load_dataset
from autoseg.data.hounsfield import not_in_hounsfield_units
from autoseg.data.summary import describe_dataset
from autoseg.planners.fingerprint import measure_dataset

EXPECTED = {
    "empty": (checks.EMPTY, False, "background only"),
    "far": (checks.GEOMETRY, False, "origin by 500 mm"),
    "fractional": (checks.FRACTIONAL, False, "24 voxels with other values, for example 0.5"),
    "imageless": (checks.MISSING_CHANNEL, False, "nothing"),
    "moved": (checks.GEOMETRY, True, "origin by 0.5 mm"),
    "nan": (checks.NOT_FINITE, True, "3 of 336 voxels"),
    "rounding": (checks.FRACTIONAL, True, "24 voxels"),
    "shape": (checks.GEOMETRY, True, "shape (6, 7, 4) instead of (6, 7, 8)"),
    "skewed": (checks.NOT_ORTHONORMAL, True, "deviation 0.01"),
    "tilted": (checks.NOT_ORTHONORMAL, True, "deviation 0.02"),
    "twin": (checks.DUPLICATE_IMAGE, True, "case good"),
    "undeclared": (checks.UNDECLARED, False, "value 7 (5 voxels)"),
    "unlabelled": (checks.MISSING_LABEL, False, "nothing"),
    "unreadable": (checks.UNREADABLE, False, "cannot be read"),
}


def test_every_fault_is_found_with_its_measure(tmp_path):
    problems = checks.check_dataset(write_faulty_dataset(tmp_path / "d"), workers=0)
    first = {problem.case: problem for problem in reversed(problems)}
    assert set(first) == set(EXPECTED)
    for name, (kind, fixable, measure) in EXPECTED.items():
        found = next(problem for problem in problems if problem.case == name and problem.kind == kind)
        assert found.fixable == fixable, name
        assert measure in found.found, name
        assert name in found.file
    assert [problem.case for problem in problems] == sorted(problem.case for problem in problems)
    surplus = {problem.kind for problem in problems if problem.kind != EXPECTED[problem.case][0]}
    assert surplus <= {checks.GEOMETRY}, "the sheared image also differs from its label"


def test_a_clean_dataset_has_no_problems_with_worker_processes_too(tmp_path):
    for seed, name in enumerate(("a", "b", "c")):
        write_case(tmp_path, name, seed=seed)
    assert checks.check_dataset(write_info(tmp_path), workers=2) == []


@pytest.mark.parametrize("ending", [".nii.gz", ".mha"])
def test_a_label_map_that_is_the_image_is_named(tmp_path, ending):
    image = np.random.default_rng(0).integers(0, 2, CHECKED_SHAPE).astype(np.uint8)
    write_case(tmp_path, "a", seed=0, image=image)
    write_case(tmp_path, "b", seed=1)
    (tmp_path / "labelsTr/a.nii.gz").unlink()
    write_volume(tmp_path / f"labelsTr/a{ending}", image)
    write_case(tmp_path, "c", seed=2, label=np.random.default_rng(2).normal(size=CHECKED_SHAPE).astype(np.float32))
    shutil.copyfile(tmp_path / "imagesTr/c_0000.nii.gz", tmp_path / "labelsTr/c.nii.gz")
    found = checks.check_dataset(write_info(tmp_path), workers=0)
    assert [(one.case, one.kind) for one in found] == [("a", checks.COPY), ("c", checks.COPY)]
    assert found[0].file.endswith(f"labelsTr/a{ending}")
    assert "imagesTr/a_0000.nii.gz" in found[0].found


def test_hidden_files_are_no_cases_and_said_once(tmp_path, capsys, caplog):
    write_case(tmp_path / "raw/Dataset001_A", "a", seed=0)
    for name in ("imagesTr/._a_0000.nii.gz", "imagesTr/.b_0000.nii.gz", "labelsTr/._a.nii.gz", "imagesTr/.DS_Store"):
        (tmp_path / "raw/Dataset001_A" / name).write_bytes(b"Mac OS X")
    write_info(tmp_path / "raw/Dataset001_A", numTraining=1)
    assert cli.check(["-d", "1", "--home", str(tmp_path), "--workers", "0"]) == 0
    assert "no problem found in 1 case" in capsys.readouterr().out
    assert caplog.text.count("3 hidden files (such as ._a_0000.nii.gz) are no images and were left out") == 1


def test_a_file_with_too_few_channels(tmp_path):
    write_case(tmp_path, "a", seed=0)
    entry = {"a": {"images": ["imagesTr/a_0000.nii.gz"], "label": "labelsTr/a.nii.gz"}}
    write_info(tmp_path, channel_names={"0": "T1", "1": "T2"}, dataset=entry)
    (problem,) = checks.check_dataset(tmp_path, workers=0)
    assert (problem.kind, problem.found, problem.expected) == (checks.MISSING_CHANNEL, "1 channels", "2 channels: T1, T2")


def test_channels_in_different_places(tmp_path):
    write_case(tmp_path, "a", seed=0)
    write_volume(tmp_path / "imagesTr/a_0001.nii.gz", np.ones(CHECKED_SHAPE, np.float32), origin=(30.0, 0.0, 0.0))
    (problem,) = checks.check_dataset(write_info(tmp_path, channel_names={"0": "T1", "1": "T2"}), workers=0)
    assert (problem.kind, problem.fixable) == (checks.GEOMETRY, False)
    assert problem.file.endswith("a_0001.nii.gz")


def test_one_image_of_one_patient_may_be_there_once_for_each_choice_of_annotated_organs(tmp_path):
    organs = {"a": ["liver"], "b": ["liver", "spleen"]}
    assert checks.check_dataset(write_merged_twins(tmp_path / "right", organs), workers=0) == []
    (other_patient,) = checks.check_dataset(write_merged_twins(tmp_path / "groups", organs, b="q"), workers=0)
    assert (other_patient.case, other_patient.kind) == ("b", checks.DUPLICATE_IMAGE)
    (same_organs,) = checks.check_dataset(write_merged_twins(tmp_path / "organs", organs | {"c": ["liver", "spleen"]}), workers=0)
    assert (same_organs.case, same_organs.kind, same_organs.found) == ("c", checks.DUPLICATE_IMAGE, "the voxels of case b")


@pytest.mark.parametrize(("name", "offset", "said"), [("CT", 1024, True), ("CT", -500, False), ("MR", 1024, False)])
def test_an_image_called_ct_that_cannot_be_one_is_said_when_checking_and_planning(tmp_path, caplog, name, offset, said):
    image = np.random.default_rng(0).uniform(0, 900, CHECKED_SHAPE).astype(np.float32) + offset
    write_case(tmp_path, "a", seed=0, image=image)
    write_info(tmp_path, channel_names={"0": name})
    assert checks.check_dataset(tmp_path, workers=0) == []
    assert ("1 of 1 cases have a channel called CT without a value below 0 (a: values from 10" in caplog.text) == said
    caplog.clear()
    measure_dataset(load_dataset(tmp_path), workers=0)
    assert ("call it MR in dataset.json" in caplog.text) == said


def test_a_dataset_is_described_in_one_line(tmp_path):
    for seed, case in enumerate(("p1_a", "p1_b", "p2_a")):
        write_case(tmp_path, case, seed=seed, image_at={"spacing": (1.0, 1.0, 2.0 + seed)}, label_at={"spacing": (1.0, 1.0, 2.0 + seed)})
    write_info(tmp_path, channel_names={"0": "MR"}, labels={"background": 0, "liver": 1, "spleen": 2})
    line = describe_dataset(tmp_path, groups=r"p\d")
    assert line.startswith("3 cases, 2 patients, 2 organs (liver, spleen), 1 channel (MR), spacing 3 (2 to 4) x 1 x 1 mm, shape 6 x 7 x 8")


@pytest.mark.parametrize("leave", [[], ["--allow-external"]])
def test_what_is_said_of_a_dataset_is_said_once(tmp_path, caplog, capsys, leave):
    folder = tmp_path / "raw/Dataset001_A"
    for seed, name in enumerate(("p01_ED", "p01_ES", "p02_ED", "p02_ES")):
        write_case(folder, name, seed=seed)
    write_info(folder, channel_names={"0": "MR"}, file_endings=".nii.gz", numTraining=9)
    assert cli.check(["-d", "1", "--home", str(tmp_path), *leave]) == 0
    assert "no problem found in 4 cases" in capsys.readouterr().out
    for text in ("unknown key 'file_endings'", "the names look like 2 patients", "dataset.json says 9 training cases"):
        assert sum(text in record.getMessage() for record in caplog.records) == 1, text


def test_a_label_map_that_cannot_be_read_is_not_called_fractional(tmp_path):
    for seed, name in enumerate("ab"):
        write_case(tmp_path, name, seed=seed)
    label = sitk.ReadImage(str(tmp_path / "labelsTr/a.nii.gz"))
    sitk.WriteImage(sitk.Compose(label, label + 1, label), str(tmp_path / "labelsTr/a.nii.gz"))
    (problem,) = checks.check_dataset(write_info(tmp_path), workers=0)
    assert (problem.case, problem.kind) == ("a", checks.UNREADABLE)
    assert "one number a voxel, found 3 channels" in problem.found


def test_an_unreadable_picture_is_listed_once(tmp_path):
    for part in ("imagesTr", "labelsTr"):
        (tmp_path / part).mkdir()
    (tmp_path / "imagesTr/a_0000.png").write_bytes(b"no picture")
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((8, 8), np.uint8)), str(tmp_path / "labelsTr/a.png"))
    problems = checks.check_dataset(write_info(tmp_path, file_ending=".png"), workers=0)
    assert [(problem.kind, problem.file.endswith("a_0000.png")) for problem in problems] == [(checks.UNREADABLE, True)]


def test_a_label_map_is_unpacked_once(tmp_path, monkeypatch):
    write_case(tmp_path, "a", seed=0)
    read, once = [], images._read
    monkeypatch.setattr(images, "_read", lambda path, *rest, **options: read.append(path.name) or once(path, *rest, **options))
    assert checks.check_dataset(write_info(tmp_path), workers=0) == []
    assert read.count("a.nii.gz") == 1


def test_a_ct_with_air_is_not_copied_to_see_that():
    array = np.full((100, 100, 100), -1000, np.float32)
    array[0] = 40
    tracemalloc.start()
    assert not_in_hounsfield_units(array) == ""
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()
    array[5, 5, 5], array[5, 5, 6] = np.nan, -np.inf
    assert not_in_hounsfield_units(array) == ""
    assert not_in_hounsfield_units(np.abs(array)) == "values from 40 to 1000"
