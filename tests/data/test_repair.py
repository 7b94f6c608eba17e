"""The repaired copy is clean, the original untouched, and nothing is dropped in silence."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import SimpleITK as sitk
from factories import CHECKED_SHAPE, write_case, write_faulty_dataset, write_info, write_merged_twins

from autoseg.data import repair
from autoseg.data.checks import EMPTY, NOT_FINITE, check_dataset, read_with_non_finite
from autoseg.data.datasets import load_dataset
from autoseg.data.images import read_geometry, read_image, read_label, write_label
from autoseg.data.nifti_header import copy_with_orientation
from autoseg.data.repair import fix_dataset


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def repaired(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repair")
    source = write_faulty_dataset(folder / "source")
    before = contents(source)
    messages = fix_dataset(source, check_dataset(source, workers=0), folder / "copy")
    return source, folder / "copy", messages, before


def test_the_copy_is_clean_and_complete_and_the_original_untouched(repaired):
    source, copy, _, before = repaired
    assert contents(source) == before
    assert {problem.kind for problem in check_dataset(copy, workers=0)} == {EMPTY}
    names = [c.name for c in load_dataset(copy).cases]
    assert names == ["empty", "good", "moved", "nan", "rounding", "shape", "skewed", "tilted"]
    assert json.loads((copy / "dataset.json").read_text())["numTraining"] == len(names)
    assert not list(copy.rglob(".partial*"))


def test_everything_that_was_left_out_or_changed_is_named(repaired):
    messages = {sentence.split(":")[0].removeprefix("case "): sentence for sentence in repaired[2]}
    repairs = {"moved": "header", "nan": "3 NaN or infinite voxels", "rounding": "rounded", "shape": "resampled"}
    repairs |= {"skewed": "orthonormal", "tilted": "orthonormal"}
    repairs |= dict.fromkeys(("far", "fractional", "imageless", "twin", "undeclared", "unlabelled", "unreadable"), "left out")
    assert set(messages) == set(repairs)
    assert all(word in messages[name] and ("left out" in messages[name]) == (word == "left out") for name, word in repairs.items())


def test_what_was_right_is_copied_byte_for_byte(repaired):
    source, copy, _, _ = repaired
    for file in ("imagesTr/good_0000.nii.gz", "labelsTr/good.nii.gz", "imagesTr/moved_0000.nii.gz"):
        assert (source / file).read_bytes() == (copy / file).read_bytes()


def test_the_repairs_are_right(repaired):
    source, copy, _, _ = repaired
    assert read_geometry(copy / "labelsTr/moved.nii.gz") == read_geometry(copy / "imagesTr/moved_0000.nii.gz")
    broken = read_with_non_finite(source / "imagesTr/nan_0000.nii.gz").array
    mended = read_image([copy / "imagesTr/nan_0000.nii.gz"]).array
    finite = np.isfinite(broken)
    np.testing.assert_array_equal(mended[finite], broken[finite])
    assert mended[0, 0, 0, :3].tolist() == [0, 0, 0]
    assert read_label(copy / "labelsTr/rounding.nii.gz").array.sum() == 24
    shape = read_label(copy / "labelsTr/shape.nii.gz")
    assert shape.array.shape == (6, 7, 8)
    assert shape.array[:, :, :7].all()


def write_ball_beside_its_label(folder: Path, **label_at: Any) -> np.ndarray:
    """One case of a bright ball whose label map has a header of its own; returns the label map as the image's voxels need it."""
    grid = np.indices((24, 24, 24))
    ball = ((grid - 11.5) ** 2).sum(axis=0) < 36
    write_case(folder, "a", seed=0, image=(ball * 100).astype(np.float32), label=ball.astype(np.uint8), label_at=label_at)
    write_info(folder)
    return ball


@pytest.mark.parametrize("origin", [(1.0, 0.0, 0.0), (0.0, 5.0, 0.0), (3.0, 0.0, -4.0)])
def test_a_label_map_elsewhere_is_not_repaired_by_a_guess(tmp_path, origin):
    ball = write_ball_beside_its_label(tmp_path / "d", origin=origin)
    (problem,) = check_dataset(tmp_path / "d", workers=0)
    assert (problem.fixable, problem.readings) == (False, ("image", "label"))
    by_reading = {name: float(value) for value, name in re.findall(r"([\d.e+-]+) with the (\w+)'s header", problem.found)}
    assert by_reading["image"] > 1.2 * by_reading["label"], "the ball ends where its label map ends"
    with pytest.raises(ValueError, match="no case is left"):
        fix_dataset(tmp_path / "d", [problem], tmp_path / "copy")
    (sentence,) = fix_dataset(tmp_path / "d", [problem], tmp_path / "image", geometry="image")
    assert "given its image's header" in sentence
    np.testing.assert_array_equal(read_label(tmp_path / "image/labelsTr/a.nii.gz").array, ball)
    (sentence,) = fix_dataset(tmp_path / "d", [problem], tmp_path / "label", geometry="label")
    assert "resampled" in sentence
    spacing = read_geometry(tmp_path / "d/imagesTr/a_0000.nii.gz").spacing
    shift = tuple(round(step / size) for step, size in zip(origin[::-1], spacing, strict=True))
    np.testing.assert_array_equal(read_label(tmp_path / "label/labelsTr/a.nii.gz").array, np.roll(ball, shift, axis=(0, 1, 2)))


def test_a_mirrored_header_is_not_repaired_by_a_guess(tmp_path):
    write_ball_beside_its_label(tmp_path / "d", direction=[[-1, 0, 0], [0, 1, 0], [0, 0, 1]], origin=(23.0, 0.0, 0.0))
    (problem,) = check_dataset(tmp_path / "d", workers=0)
    assert (problem.fixable, problem.readings) == (False, ("image", "label"))


def test_a_crop_that_may_have_lost_its_origin_is_left_out_unless_its_header_is_said_to_be_true(tmp_path):
    write_case(tmp_path / "d", "a", seed=0)
    write_case(tmp_path / "d", "crop", seed=1, label=np.ones((4, 5, 6), np.uint8))
    problems = check_dataset(write_info(tmp_path / "d"), workers=0)
    assert [(problem.case, problem.fixable, problem.readings) for problem in problems] == [("crop", False, ("label",))]
    assert "left out" in fix_dataset(tmp_path / "d", problems, tmp_path / "copy")[0]
    assert "left out" in fix_dataset(tmp_path / "d", problems, tmp_path / "image", geometry="image")[0]
    assert "resampled" in fix_dataset(tmp_path / "d", problems, tmp_path / "label", geometry="label")[0]
    padded = np.zeros(CHECKED_SHAPE, np.uint8)
    padded[:4, :5, :6] = 1
    np.testing.assert_array_equal(read_label(tmp_path / "label/labelsTr/crop.nii.gz").array, padded)


def test_an_existing_folder_is_refused(tmp_path):
    write_case(tmp_path / "d", "a", seed=0)
    write_case(tmp_path / "other", "a", seed=0)
    with pytest.raises(ValueError, match="new or empty"):
        fix_dataset(tmp_path / "d", [], tmp_path / "other")


def test_explicit_lists_become_the_plain_layout(tmp_path):
    write_case(tmp_path / "d", "a", seed=0)
    entry = {"scan": {"images": ["imagesTr/a_0000.nii.gz"], "label": "labelsTr/a.nii.gz"}}
    assert fix_dataset(write_info(tmp_path / "d", dataset=entry), [], tmp_path / "copy") == []
    assert (tmp_path / "copy/imagesTr/scan_0000.nii.gz").is_file()
    assert [c.name for c in load_dataset(tmp_path / "copy").cases] == ["scan"]


def test_a_merged_dataset_keeps_both_cases_of_an_image_with_different_organs(tmp_path):
    folder = write_merged_twins(tmp_path / "d", {"a": ["liver"], "b": ["liver", "spleen"]})
    assert fix_dataset(folder, check_dataset(folder, workers=0), tmp_path / "copy") == []
    assert [c.annotated for c in load_dataset(tmp_path / "copy").cases] == [("liver",), ("liver", "spleen")]
    assert check_dataset(tmp_path / "copy", workers=0) == []


def test_nan_in_a_label_map_becomes_background(tmp_path):
    label = np.zeros((6, 7, 8), np.float32)
    label[2, 2, 2:4] = [1, np.nan]
    write_case(tmp_path / "d", "a", seed=0, label=label)
    (problem,) = check_dataset(write_info(tmp_path / "d"), workers=0)
    assert (problem.kind, problem.found, problem.fixable) == (NOT_FINITE, "1 of 336 voxels", True)
    fix_dataset(tmp_path / "d", [problem], tmp_path / "copy")
    assert check_dataset(tmp_path / "copy", workers=0) == []
    assert read_label(tmp_path / "copy/labelsTr/a.nii.gz").array.sum() == 1


@pytest.mark.parametrize("pixdim", [(1.0, 1.0, 1.0), (-2.0, 2.0, 2.0)])
def test_straightened_axes_keep_the_spacing_and_the_side_that_are_read(tmp_path, pixdim):
    for path in write_case(tmp_path / "d", "a", seed=0):
        source = path.rename(path.with_name("source.nii.gz"))
        fields = [2.0, 1.0, *pixdim, 0.0, 1.0, *[0.0] * 6, *(2, 0.02, 0, 5, 0, 2, 0, 6, 0, 0, 2, 7)]
        copy_with_orientation(source, path, tuple(fields))
        source.unlink()
    fix_dataset(write_info(tmp_path / "d"), check_dataset(tmp_path / "d", workers=0), tmp_path / "copy")
    for file in ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"):
        found = read_geometry(tmp_path / "copy" / file)
        np.testing.assert_allclose(found.spacing, (2, 2, 2), rtol=1e-4)
        np.testing.assert_allclose(found.direction, np.diag([-1, -1, 1]).ravel(), atol=0.01)
        np.testing.assert_allclose(found.origin, (-5, -6, 7))


def test_label_values_above_those_of_float32_are_kept(tmp_path):
    label = np.zeros(CHECKED_SHAPE, np.uint32)
    label[2:4, 2, 2], label[0, 0, 0] = 2**24 + 1, 2**24
    write_case(tmp_path / "d", "a", seed=0, label=label, label_at={"origin": (0.5, 0.0, 0.0)})
    write_info(tmp_path / "d", labels={"background": 0, "x": 2**24 + 1, "y": 2**24})
    fix_dataset(tmp_path / "d", check_dataset(tmp_path / "d", workers=0), tmp_path / "copy")
    np.testing.assert_array_equal(read_label(tmp_path / "copy/labelsTr/a.nii.gz").array, label)


def write_pictures(folder: Path) -> Path:
    """Three pictures with their spacing in a file beside them; the third is the first once more."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for number, name in enumerate("abc"):
        grey = np.random.default_rng(number % 2).integers(1, 200, (24, 28)).astype(np.uint8)
        PIL.Image.fromarray(grey).save(folder / f"imagesTr/{name}_0000.png")
        PIL.Image.fromarray((grey > 150).astype(np.uint8)).save(folder / f"labelsTr/{name}.png")
        (folder / f"imagesTr/{name}.json").write_text('{"spacing": [0.2, 0.1]}')
    return write_info(folder, channel_names={"0": "photo"})


def test_pictures_keep_the_spacing_beside_them(tmp_path):
    folder = write_pictures(tmp_path / "d")
    fix_dataset(folder, check_dataset(folder, workers=0), tmp_path / "copy")
    for name in "ab":
        geometry = read_geometry(tmp_path / f"copy/imagesTr/{name}_0000.png")
        assert (geometry.spacing, geometry.has_spacing) == ((0.2, 0.1), True)
    label = write_label(tmp_path / "label.png", read_label(folder / "labelsTr/a.png").array, geometry)
    assert read_geometry(label).spacing == (0.2, 0.1)
    assert not list((tmp_path / "copy").rglob("c*"))


def test_a_header_in_capitals_with_its_voxels_beside_it_is_copied(tmp_path):
    image, _ = write_case(tmp_path / "d", "a", seed=0)
    array = read_image([image]).array
    sitk.WriteImage(sitk.ReadImage(str(image)), str(tmp_path / "d/imagesTr/a_0000.mhd"))
    image.unlink()
    (tmp_path / "d/imagesTr/a_0000.mhd").rename(tmp_path / "d/imagesTr/a_0000.MHD")
    folder = write_info(tmp_path / "d")
    assert fix_dataset(folder, check_dataset(folder, workers=0), tmp_path / "copy") == []
    np.testing.assert_array_equal(read_image([tmp_path / "copy/imagesTr/a_0000.mha"]).array, array)


def test_whatever_a_case_raises_only_that_case_is_left_out(tmp_path, monkeypatch):
    for seed, name in enumerate(("a[1]", "b")):
        write_case(tmp_path / "d", name, seed=seed)
    original = repair.read_geometry

    def failing(path, **options):
        if "a[1]" in path.name:
            raise RuntimeError("from ITK")
        return original(path, **options)

    monkeypatch.setattr(repair, "read_geometry", failing)
    folder = write_info(tmp_path / "d")
    assert fix_dataset(folder, [], tmp_path / "copy") == ["case a[1]: left out: from ITK"]
    assert [file.name for file in sorted((tmp_path / "copy").rglob("*.nii.gz"))] == ["b_0000.nii.gz", "b.nii.gz"]
