"""A dataset with one fault a case: every fault is found with its measure."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from autoseg.data import checks
from autoseg.data.nifti_header import copy_with_orientation, read_orientation

SHAPE = (6, 7, 8)


def write(path: Path, array: np.ndarray, *, origin=(0.0, 0.0, 0.0), spacing=(1.0, 1.0, 2.0), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(np.asarray(direction, float).ravel().tolist())
    sitk.WriteImage(image, str(path))
    return path


def case(folder: Path, name: str, *, seed: int, image=None, label=None, ending: str = ".nii.gz", label_at=None, image_at=None) -> None:
    volume = np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32) if image is None else image
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:4, 2:5, 2:6] = 1
    write(folder / f"imagesTr/{name}_0000{ending}", volume, **(image_at or {}))
    write(folder / f"labelsTr/{name}{ending}", mask if label is None else label, **(label_at or {}))


def skew_sform(path: Path) -> None:
    source = path.rename(path.with_name(f"straight-{path.name}"))
    fields = list(read_orientation(source))
    fields[5], fields[14] = 0.0, fields[14] + 0.01
    copy_with_orientation(source, path, tuple(fields))
    source.unlink()


def faulty_dataset(folder: Path) -> Path:
    volume = np.random.default_rng(99).normal(size=SHAPE).astype(np.float32)
    mask = np.zeros(SHAPE, np.float32)
    mask[2:4, 2:5, 2:6] = 1
    holes = volume.copy()
    holes[0, 0, :3] = [np.nan, np.inf, -np.inf]
    undeclared = mask.astype(np.uint8)
    undeclared[0, 0, :5] = 7
    case(folder, "empty", seed=1, label=np.zeros(SHAPE, np.uint8))
    case(folder, "far", seed=2, label_at={"origin": (500.0, 0.0, 0.0)})
    case(folder, "fractional", seed=3, label=mask * 0.5)
    case(folder, "good", seed=4)
    case(folder, "moved", seed=5, label_at={"origin": (0.5, 0.0, 0.0)})
    case(folder, "nan", seed=6, image=holes)
    case(folder, "rounding", seed=7, label=mask * np.float32(1.0005))
    case(folder, "shape", seed=8, label=np.ones((6, 7, 4), np.uint8), label_at={"spacing": (2.0, 1.0, 2.0)})
    case(folder, "skewed", seed=9)
    skew_sform(folder / "imagesTr/skewed_0000.nii.gz")
    case(folder, "tilted", seed=10, ending=".mha", image_at={"direction": [[1, 0.02, 0], [0, 1, 0], [0, 0, 1]]})
    case(folder, "twin", seed=4)
    case(folder, "undeclared", seed=11, label=undeclared)
    case(folder, "unlabelled", seed=12)
    (folder / "labelsTr/unlabelled.nii.gz").unlink()
    case(folder, "unreadable", seed=13)
    (folder / "imagesTr/unreadable_0000.nii.gz").write_bytes(b"nothing")
    case(folder, "imageless", seed=14)
    (folder / "imagesTr/imageless_0000.nii.gz").unlink()
    info = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1}, "numTraining": 15, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(info))
    return folder


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
    problems = checks.check_dataset(faulty_dataset(tmp_path / "d"), workers=0)
    first = {problem.case: problem for problem in reversed(problems)}
    assert set(first) == set(EXPECTED)
    for name, (kind, fixable, said) in EXPECTED.items():
        found = next(problem for problem in problems if problem.case == name and problem.kind == kind)
        assert found.fixable == fixable, name
        assert said in found.found, name
        assert name in found.file
    assert [problem.case for problem in problems] == sorted(problem.case for problem in problems)
    surplus = {problem.kind for problem in problems if problem.kind != EXPECTED[problem.case][0]}
    assert surplus <= {checks.GEOMETRY}, "the sheared image also differs from its label"


def test_a_clean_dataset_has_no_problems_with_worker_processes_too(tmp_path):
    for seed, name in enumerate(("a", "b", "c")):
        case(tmp_path, name, seed=seed)
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1}}))
    assert checks.check_dataset(tmp_path, workers=2) == []


def test_a_file_with_too_few_channels(tmp_path):
    case(tmp_path, "a", seed=0)
    entry = {"a": {"images": ["imagesTr/a_0000.nii.gz"], "label": "labelsTr/a.nii.gz"}}
    info = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "organ": 1}, "dataset": entry}
    (tmp_path / "dataset.json").write_text(json.dumps(info))
    (problem,) = checks.check_dataset(tmp_path, workers=0)
    assert (problem.kind, problem.found, problem.expected) == (checks.MISSING_CHANNEL, "1 channels", "2 channels: T1, T2")


def test_channels_in_different_places(tmp_path):
    case(tmp_path, "a", seed=0)
    write(tmp_path / "imagesTr/a_0001.nii.gz", np.ones(SHAPE, np.float32), origin=(30.0, 0.0, 0.0))
    info = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "organ": 1}}
    (tmp_path / "dataset.json").write_text(json.dumps(info))
    (problem,) = checks.check_dataset(tmp_path, workers=0)
    assert (problem.kind, problem.fixable) == (checks.GEOMETRY, False)
    assert problem.file.endswith("a_0001.nii.gz")


def test_nan_in_a_label_map(tmp_path):
    label = np.zeros(SHAPE, np.float32)
    label[2, 2, 2:4] = [1, np.nan]
    case(tmp_path, "a", seed=0, label=label)
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1}}))
    (problem,) = checks.check_dataset(tmp_path, workers=0)
    assert (problem.kind, problem.found, problem.fixable) == (checks.NOT_FINITE, "1 of 336 voxels", True)


def merged_twins(folder: Path, organs: dict[str, list[str]], **patients: str) -> Path:
    """Cases of one image, of patient p unless said otherwise, each with some annotated organs."""
    for name in organs:
        case(folder, name, seed=4)
    files = {name: {"images": ["imagesTr/a_0000.nii.gz"], "label": f"labelsTr/{name}.nii.gz"} for name in organs}
    info = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "spleen": 2, "both": 3}, "dataset": files}
    info |= {"annotated": organs, "groups": {name: patients.get(name, "p") for name in organs}}
    (folder / "dataset.json").write_text(json.dumps(info))
    return folder


def test_one_image_of_one_patient_may_be_there_once_for_each_choice_of_annotated_organs(tmp_path):
    organs = {"a": ["liver"], "b": ["liver", "spleen"]}
    assert checks.check_dataset(merged_twins(tmp_path / "right", organs), workers=0) == []
    (other_patient,) = checks.check_dataset(merged_twins(tmp_path / "groups", organs, b="q"), workers=0)
    assert (other_patient.case, other_patient.kind) == ("b", checks.DUPLICATE_IMAGE)
    (same_organs,) = checks.check_dataset(merged_twins(tmp_path / "organs", organs | {"c": ["liver", "spleen"]}), workers=0)
    assert (same_organs.case, same_organs.kind, same_organs.found) == ("c", checks.DUPLICATE_IMAGE, "the voxels of case b")


def test_the_description_itself_must_be_right(tmp_path):
    with pytest.raises(ValueError, match="dataset.json"):
        checks.check_dataset(tmp_path, workers=0)
