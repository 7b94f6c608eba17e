"""The end-to-end contract: the label map that is written for an image follows from its intensities alone, whatever its format and position.

The trained network is an oracle (`oracle_home`): a voxel of intensity 100 k is of class k. So every voxel of every label map is known.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import oracle_home as oracle
import pytest
import SimpleITK as sitk
import torch

from autoseg.data.images import read_geometry, read_image, read_label, write_image
from autoseg.pipeline import PredictSettings, predict, predict_folder
from autoseg.runtime.workspace import Workspace
from autoseg.schema import Geometry

TURNED = (0.0, 0.8, 0.6, 1.0, 0.0, 0.0, 0.0, 0.6, -0.8)
"""A direction that permutes, flips and tilts the axes."""

TURNED_SPACING = (2.5, 0.7, 0.8)
"""With it a turned volume has the spacing of the training images once its axes run as theirs, so that nothing is resampled."""


def write_scan(path: Path, number: int, dim: int = 3, *, direction: tuple[float, ...] = (), shape: tuple[int, ...] = ()) -> np.ndarray:
    """Writes an image for the oracle; returns the label map that belongs to it."""
    image, label, geometry = oracle.oracle_case(number, dim, shape=shape or None)
    if direction:
        geometry = Geometry(geometry.shape, TURNED_SPACING, (-31.5, 12.25, 700.0), direction)
    write_image(path, image[None], geometry)
    return label


def check(out: Path, source: Path, label: np.ndarray) -> None:
    """The label map is right in every voxel, and lies where its image lies."""
    np.testing.assert_array_equal(read_label(out).array, label)
    assert read_geometry(out) == read_geometry(source)


@pytest.mark.parametrize("direction", [(), TURNED], ids=["straight", "turned"])
@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_volumes_of_every_format(shared_oracle_home, tmp_path, ending, direction):
    labels = {name: write_scan(tmp_path / "in" / f"{name}{ending}", i, direction=direction) for i, name in enumerate(("p", "q"), 7)}
    assert predict_folder(tmp_path / "in", tmp_path / "out", home=shared_oracle_home()) == {}
    for name, label in labels.items():
        (written,) = (tmp_path / "out").glob(f"{name}.*")
        check(written, tmp_path / "in" / f"{name}{ending}", label)


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_pictures_of_every_format(shared_oracle_home, tmp_path, ending):
    image, label, geometry = oracle.oracle_case(9, 2)
    write_image(tmp_path / f"in/p{ending}", image[None].astype(np.uint8), geometry)
    assert predict_folder(tmp_path / "in", tmp_path / "out", home=shared_oracle_home(2)) == {}
    assert {file.name for file in (tmp_path / "out").glob("p.*")} == {f"p{ending}", "p.json"}
    check(tmp_path / f"out/p{ending}", tmp_path / f"in/p{ending}", label)
    assert read_geometry(tmp_path / f"out/p{ending}").spacing == geometry.spacing


@pytest.mark.parametrize(
    "settings", [PredictSettings(low_memory=True), PredictSettings(mirror=False, step=0.9)], ids=["low memory", "quick"]
)
@pytest.mark.parametrize("regions", [False, True], ids=["organs", "regions"])
def test_the_way_of_predicting_changes_nothing(shared_oracle_home, tmp_path, regions, settings):
    label = write_scan(tmp_path / "in/p.nii.gz", 11, shape=(30, 17, 41))
    assert predict_folder(tmp_path / "in", tmp_path / "out", settings, home=shared_oracle_home(regions=regions)) == {}
    check(tmp_path / "out/p.nii.gz", tmp_path / "in/p.nii.gz", label)


def test_from_python_the_result_is_that_of_the_file(shared_oracle_home, tmp_path):
    label = write_scan(tmp_path / "p.nii.gz", 12, direction=TURNED)
    home = shared_oracle_home()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(predict(tmp_path / "p.nii.gz", home=home)), label)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(predict(sitk.ReadImage(str(tmp_path / "p.nii.gz")), home=home)), label)
    image, spacing = read_image([tmp_path / "p.nii.gz"]).array, (2.5, 0.8, 0.7)
    np.testing.assert_array_equal(predict((image, spacing), home=home)[0], label)


def test_copies_of_a_case_in_all_48_orientations_get_the_same_organs_in_the_same_place(shared_oracle_home, tmp_path, monkeypatch):
    """With a network that looks to one side, so that a copy which lies otherwise for it gets another label map."""
    forward = oracle.Oracle.forward
    monkeypatch.setattr(oracle.Oracle, "forward", lambda self, x: forward(self, torch.roll(x, (-2, -1), (-1, -3))))
    plan = Workspace(shared_oracle_home()).plan(oracle.DATASET)
    label = np.zeros(plan.configurations["3d_fullres"].patch_size, np.uint8)  # one patch: the network sees all of it
    label[4:8, 5:9, 3:8], label[9:12, 9:14, 10:16] = 1, 2
    geometry = Geometry(label.shape, (2.5, 0.8, 0.7), (5.0, -40.0, 9.0), tuple(np.eye(3).ravel()))
    image = label[None].astype(np.float32) * 100 + 10  # no voxel is 0, so that nothing is cropped
    write_image(tmp_path / "in/original.nii.gz", image, geometry)
    original = sitk.ReadImage(str(tmp_path / "in/original.nii.gz"))
    for order, flips in itertools.product(itertools.permutations(range(3)), itertools.product([False, True], repeat=3)):
        name = "".join(map(str, order)) + "".join("-" if flip else "+" for flip in flips)
        sitk.WriteImage(sitk.Flip(sitk.PermuteAxes(original, order), flips), str(tmp_path / f"in/{name}.nii.gz"))
    assert predict_folder(tmp_path / "in", tmp_path / "out", PredictSettings(mirror=False), home=shared_oracle_home()) == {}
    expected = read_label(tmp_path / "out/original.nii.gz").array
    np.testing.assert_array_equal(expected, np.roll(label, (-1, -2), (0, 2)))
    files = sorted((tmp_path / "out").glob("*.nii.gz"))
    assert len(files) == 49
    for file in files:
        placed = sitk.Resample(sitk.ReadImage(str(file)), original, sitk.Transform(), sitk.sitkNearestNeighbor, 255)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(placed), expected, err_msg=file.name)
