"""Segmentations of 3D Slicer as label maps: their own values, layers and crops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from factories import write_info, write_volume
from skimage.io import imread

from autoseg.data.checks import UNREADABLE, check_dataset
from autoseg.data.datasets import find_new_cases, load_dataset
from autoseg.data.label_placement import read_case_label
from autoseg.data.repair import fix_dataset
from autoseg.data.slicer_segmentation import SegmentationError, read_segments
from autoseg.evaluation.folders import evaluate_folders
from autoseg.planners.fingerprint import measure_case
from autoseg.report.overlays import draw_overlays

SHAPE = (8, 9, 10)
ORIGIN = (-20.0, 5.0, 7.5)
SPACING = (0.7, 0.8, 2.5)
DIRECTION = (0, 1, 0, -1, 0, 0, 0, 0, 1)
ORGANS = {"liver": 1, "spleen": 2}
LABELS = {"background": 0, **ORGANS}
WHOLE = np.zeros(SHAPE, np.uint8)
WHOLE[2:4, 3:6, 4:8] = 1
WHOLE[4:6, 5:8, 6:9] = 2
CROP = (slice(2, 6), slice(3, 8), slice(4, 9))


def segmentation(path: Path, array: np.ndarray, segments: dict[str, int], *, layers: tuple[int, ...] = (), at: tuple = (0, 0, 0)) -> Path:
    """As Slicer writes it: the header names each segment; `at` is the place of a crop's first voxel (z, y, x) in the image."""
    image = sitk.GetImageFromArray(array, isVector=array.ndim == 4)
    image.SetSpacing(SPACING)
    image.SetDirection(DIRECTION)
    step = np.array(DIRECTION, float).reshape(3, 3) * np.array(SPACING)
    image.SetOrigin((np.array(ORIGIN) + step @ np.array(at[::-1], float)).tolist())
    for number, (name, value) in enumerate(segments.items()):
        image.SetMetaData(f"Segment{number}_Name", name)
        image.SetMetaData(f"Segment{number}_LabelValue", str(value))
        image.SetMetaData(f"Segment{number}_Layer", str(layers[number] if layers else 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path), useCompression=True)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    write_volume(tmp_path / "imagesTr/case_001_0000.nii.gz", noise, origin=ORIGIN, spacing=SPACING, direction=DIRECTION)
    return write_info(tmp_path, labels=LABELS)


def read(folder: Path) -> np.ndarray:
    dataset = load_dataset(folder)
    (case,) = dataset.cases
    assert case.name == "case_001"
    label = read_case_label(case, dataset.labels)
    assert measure_case(case, dataset.labels, dataset.channels).fingerprint.voxels == (24, 18)
    assert label.geometry.shape == SHAPE
    return label.array


@pytest.mark.parametrize("names", [ORGANS, {"Liver": 1, "SPLEEN ": 2}], ids=["as declared", "other case"])
@pytest.mark.parametrize("file", ["case_001.seg.nrrd", "case_001.SEG.NRRD", "case_001.nrrd"])
def test_one_layer_is_read(folder: Path, file: str, names: dict[str, int]) -> None:
    path = segmentation(folder / "labelsTr/x.seg.nrrd", WHOLE, names)
    path.rename(path.with_name(file))
    np.testing.assert_array_equal(read(folder), WHOLE)
    assert check_dataset(folder, workers=0) == []


def test_a_crop_lies_where_its_header_says(folder: Path) -> None:
    path = segmentation(folder / "labelsTr/case_001.seg.nrrd", WHOLE[CROP], ORGANS, at=(2, 3, 4))
    np.testing.assert_array_equal(read(folder), WHOLE)
    assert check_dataset(folder, workers=0) == []
    assert len(fix_dataset(folder, [], folder.with_name("fixed"))) == 1
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(folder.with_name("fixed") / "labelsTr/case_001.nrrd"))), WHOLE)
    write_volume(folder / "guess/case_001.nii.gz", WHOLE, origin=ORIGIN, spacing=SPACING, direction=DIRECTION)
    scores = evaluate_folders(path.parent, folder / "guess", load_dataset(folder).labels)
    assert [score.dice for score in scores] == [1.0, 1.0]


def test_a_crop_is_drawn_where_its_header_says(folder: Path, tmp_path: Path) -> None:
    image = folder / "imagesTr/case_001_0000.nii.gz"
    crop = segmentation(folder / "labelsTr/case_001.seg.nrrd", WHOLE[CROP], ORGANS, at=[one.start for one in CROP])
    whole = segmentation(tmp_path / "whole.nrrd", WHOLE, ORGANS)
    drawn = [draw_overlays(image, tmp_path / f"{path.name}.png", reference=path)[0] for path in (crop, whole)]
    np.testing.assert_array_equal(*(imread(picture) for (picture,) in drawn))


def test_what_exceeds_the_image_without_foreground_there_is_cut(folder: Path) -> None:
    segmentation(folder / "labelsTr/case_001.seg.nrrd", np.pad(WHOLE, 2)[:-3], ORGANS, at=(-2, -2, -2))
    np.testing.assert_array_equal(read(folder), WHOLE)


@pytest.mark.parametrize(
    ("array", "segments", "options", "said"),
    [
        (WHOLE, {"liver": 2, "spleen": 1}, {}, "'liver' has the value 2, dataset.json says 1; segment 'spleen' has the value 1"),
        (WHOLE, {"Liver": 2, "x": 1}, {}, "'Liver' has the value 2, dataset.json says 1"),
        (WHOLE, {"liver": 1, "other": 1}, {}, "expected a value of its own for each segment, found 1 for 'liver', 'other'"),
        (WHOLE, ORGANS, {"layers": (0, 1)}, "expected a segmentation of one layer, found several.*export the segmentation in Slicer"),
        (np.stack([WHOLE, WHOLE], -1), ORGANS, {"layers": (0, 1)}, "expected a segmentation of one layer, found several"),
        (np.stack([WHOLE, WHOLE], -1), ORGANS, {}, "expected a segmentation of one layer, found several"),
        (WHOLE[CROP], ORGANS, {"at": (2, 3.4, 4)}, "a part of it moved by whole voxels"),
        (WHOLE, ORGANS, {"at": (0, 0.4, 0)}, "a part of it moved by whole voxels"),
        (WHOLE[CROP], ORGANS, {"at": (6, 3, 4)}, "found voxels outside of it"),
        (WHOLE[CROP], ORGANS, {"at": (60, 3, 4)}, "found voxels outside of it"),
        (WHOLE[CROP], ORGANS, {"at": (-60, 3, 4)}, "found voxels outside of it"),
    ],
)
def test_what_means_something_else_is_refused_by_name(folder: Path, array, segments, options, said: str) -> None:
    path = segmentation(folder / "labelsTr/case_001.seg.nrrd", array, segments, **options)
    dataset = load_dataset(folder)
    for function in (
        lambda: read_case_label(dataset.cases[0], dataset.labels),
        lambda: measure_case(dataset.cases[0], dataset.labels, "x"),
    ):
        with pytest.raises(SegmentationError, match=f"case_001.seg.nrrd: .*{said}"):
            function()
    (problem,) = check_dataset(folder, workers=0)
    assert (problem.kind, problem.file, problem.fixable) == (UNREADABLE, str(path), False)


def test_a_segment_of_another_name_is_taken_by_its_value_and_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    segmentation(folder / "labelsTr/case_001.seg.nrrd", WHOLE, {"Segment_1": 1, "spleen": 2})
    np.testing.assert_array_equal(read(folder), WHOLE)
    assert "by their values they are 'Segment_1' (1) as liver" in caplog.text


def test_a_segmentation_is_no_image(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = segmentation(folder / "imagesTr/case_001.seg.nrrd", WHOLE, ORGANS)
    assert [case.name for case in find_new_cases(folder / "imagesTr", ("CT",)).cases] == ["case_001"]
    assert "is a segmentation of Slicer and no image" in caplog.text
    with pytest.raises(ValueError, match="expected an image, found a segmentation of Slicer"):
        find_new_cases(path, ("CT",))


@pytest.mark.parametrize("ending", [".MHA", ".NII.GZ", ".NRRD", ".Nii.gz"])
def test_endings_in_capitals_are_found_and_read(folder: Path, ending: str) -> None:
    for part, name, array in (("imagesTr", "case_001_0000", WHOLE * 7.0), ("labelsTr", "case_001", WHOLE)):
        path = write_volume(folder / part / f"{name}{ending.lower()}", array, origin=ORIGIN, spacing=SPACING, direction=DIRECTION)
        for file in (folder / part).iterdir():
            if file != path:
                file.unlink()
        path.rename(path.with_name(f"{name}{ending}"))
    np.testing.assert_array_equal(read(folder), WHOLE)
    (case,) = find_new_cases(folder / "imagesTr", ("CT",)).cases
    assert case.images[0].name == f"case_001_0000{ending}"
    assert check_dataset(folder, workers=0) == []


def test_a_value_that_is_no_integer_is_refused_with_what_to_do(tmp_path):
    path = segmentation(tmp_path / "case_001.seg.nrrd", WHOLE, {"liver": 1})
    path.write_bytes(path.read_bytes().replace(b"Segment0_LabelValue:=1", b"Segment0_LabelValue:=x"))
    with pytest.raises(SegmentationError, match=r"case_001.seg.nrrd: expected a LabelValue that is an integer .*; export the segmentation"):
        read_segments(path)
