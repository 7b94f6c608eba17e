"""Images without label maps in ``imagesUn``: found, checked, described and repaired, and in no fingerprint, plan or fold."""

from __future__ import annotations

import logging
import shutil

import numpy as np
import pytest
from factories import write_case, write_dataset, write_info, write_volume

from autoseg.data.checks import DUPLICATE_IMAGE, NOT_FINITE, checked_dataset
from autoseg.data.datasets import inspect_dataset, load_dataset
from autoseg.data.descriptions import read_description, write_description
from autoseg.data.repair import fix_dataset
from autoseg.data.summary import describe_dataset
from autoseg.pipeline import PlanSettings, plan_and_preprocess
from autoseg.runtime.workspace import Workspace


def write_unlabelled(folder, *names, seed=40):
    for number, name in enumerate(names):
        write_volume(folder / "imagesUn" / f"{name}_0000.nii.gz", np.random.default_rng(seed + number).normal(size=(6, 7, 8)))
    return folder


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate("ab"):
        write_case(tmp_path / "Dataset001_Some", name, seed=seed)
    write_info(tmp_path / "Dataset001_Some", channel_names={"0": "MR"}, labels={"background": 0, "organ": 1})
    return tmp_path / "Dataset001_Some"


def test_they_are_found_beside_the_cases(folder):
    assert load_dataset(folder).unlabelled == ()
    dataset = load_dataset(write_unlabelled(folder, "u2", "u1"))
    assert [case.name for case in dataset.cases] == ["a", "b"]
    assert [(case.name, case.images[0].name, case.label, case.group) for case in dataset.unlabelled] == [
        ("u1", "u1_0000.nii.gz", None, "u1"),
        ("u2", "u2_0000.nii.gz", None, "u2"),
    ]
    assert describe_dataset(folder).endswith("2 unlabelled images")


def test_patients_are_those_of_the_expression_as_far_as_it_tells(folder):
    for name in "ab":
        (folder / f"imagesTr/{name}_0000.nii.gz").rename(folder / f"imagesTr/p1_{name}_0000.nii.gz")
        (folder / f"labelsTr/{name}.nii.gz").rename(folder / f"labelsTr/p1_{name}.nii.gz")
    dataset = load_dataset(write_unlabelled(folder, "p1_c", "other"), groups=r"^(p\d)_")
    assert {case.name: case.group for case in dataset.unlabelled} == {"other": "other", "p1_c": "p1"}


def test_an_image_of_a_labelled_case_is_left_out_and_said(folder, caplog):
    with caplog.at_level(logging.WARNING):
        dataset = load_dataset(write_unlabelled(folder, "a", "u"))
    assert [case.name for case in dataset.unlabelled] == ["u"]
    assert "1 images of labelled cases (such as a) are left out" in caplog.text


def test_incomplete_ones_are_listed_like_any_case(folder):
    write_info(folder, channel_names={"0": "T1", "1": "T2"}, labels={"background": 0, "organ": 1})
    for name in "ab":
        shutil.copy(folder / f"imagesTr/{name}_0000.nii.gz", folder / f"imagesTr/{name}_0001.nii.gz")
    dataset, missing = inspect_dataset(write_unlabelled(folder, "u"))
    assert (len(dataset.cases), dataset.unlabelled) == (2, ())
    assert [(gap.case, gap.kind) for gap in missing] == [("u", "missing channel 1 (T2)")]


def test_they_are_checked_and_repaired_as_images(folder):
    holes = np.random.default_rng(1).normal(size=(6, 7, 8)).astype(np.float32)
    holes[0, 0, 0] = np.nan
    write_volume(folder / "imagesUn/holes_0000.nii.gz", holes)
    shutil.copy(folder / "imagesTr/a_0000.nii.gz", folder / "imagesUn/twin_0000.nii.gz")
    dataset, problems, _ = checked_dataset(write_unlabelled(folder, "good"), workers=0)
    assert len(dataset.unlabelled) == 3
    assert {(one.case, one.kind) for one in problems} == {("holes", NOT_FINITE), ("twin", DUPLICATE_IMAGE)}
    copy = folder.with_name("Dataset002_Fixed")
    messages = fix_dataset(folder, problems, copy)
    assert any("case holes: " in message for message in messages) and any("case twin: left out" in message for message in messages)
    assert sorted(path.name for path in (copy / "imagesUn").iterdir()) == ["good_0000.nii.gz", "holes_0000.nii.gz"]
    assert sorted(path.name for path in (copy / "imagesTr").iterdir()) == ["a_0000.nii.gz", "b_0000.nii.gz"]
    assert checked_dataset(copy, workers=0)[1] == []


def test_the_description_keeps_them_relative_to_the_home(folder, tmp_path):
    dataset = load_dataset(write_unlabelled(folder, "u"))
    write_description(tmp_path / "dataset.json", dataset, tmp_path)
    assert '"Dataset001_Some/imagesUn/u_0000.nii.gz"' in (tmp_path / "dataset.json").read_text()
    assert read_description(tmp_path / "dataset.json", home=tmp_path, raw=tmp_path) == dataset


def test_planning_notes_them_and_is_else_as_without(tmp_path):
    homes = tmp_path / "with", tmp_path / "without"
    for home in homes:
        write_dataset(home / "raw/Dataset001_Tiny")
    write_unlabelled(homes[0] / "raw/Dataset001_Tiny", "u1", "u2")
    plans = [plan_and_preprocess(1, PlanSettings(configurations=("3d_fullres",), workers=0), home=home) for home in homes]
    assert plans[0] == plans[1]
    with_them, without = (Workspace(home).preprocessed("Dataset001_Tiny") for home in homes)
    for file in ("fingerprint.json", "splits.json", "fingerprint.stamp.json"):
        assert (with_them / file).read_bytes() == (without / file).read_bytes()
    planned = read_description(with_them / "dataset.json", home=homes[0], raw=homes[0] / "raw")
    assert [(case.name, len(case.digests)) for case in planned.unlabelled] == [("u1", 1), ("u2", 1)]
    assert [case.name for case in planned.cases] == ["a", "b", "c", "d"]
    assert not list(with_them.rglob("u1*"))
