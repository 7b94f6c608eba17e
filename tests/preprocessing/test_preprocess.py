from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import factories
import numpy as np
import pytest
import SimpleITK as sitk
from factories import make_configuration, make_geometry, make_plan, write_volume
from scipy import ndimage

from autoseg.data.images import read_label, write_label
from autoseg.preprocessing.cropping import nonzero_box
from autoseg.preprocessing.preprocess import ANNOTATED, case_memory, class_locations, preprocess_case, preprocess_dataset
from autoseg.preprocessing.resampling import resample_image
from autoseg.preprocessing.storage import Store, StoredCase
from autoseg.schema import Case, Configuration, Dataset, Image, Intensity, Plan
from autoseg.schema.conventions import OUTSIDE

LABELS = factories.labels(liver=3, spleen=7)
INTENSITY = Intensity(mean=10.0, median=10.0, std=2.0, min=0.0, max=20.0, percentile_00_5=1.0, percentile_99_5=19.0)


def configuration(dim: int = 3, **changes: object) -> Configuration:
    return make_configuration(dim, **{"patch_size": (8, 16, 16)[-dim:], "normalization": ("ct",), **changes})


def plan(one: Configuration, **changes: object) -> Plan:
    return dataclasses.replace(make_plan(one, labels=LABELS, channels=("CT",)), intensities=(INTENSITY,), **changes)


def image_of(array: np.ndarray, spacing: tuple[float, ...]) -> Image:
    return Image(array, make_geometry(array.shape[1:], spacing), "here")


def example() -> tuple[np.ndarray, np.ndarray]:
    """A block of data in a zero frame, with a label that reaches out of it."""
    array = np.zeros((1, 12, 14, 16), np.float32)
    array[0, 2:10, 3:12, 4:15] = np.random.default_rng(0).uniform(5, 15, (8, 9, 11))
    array[0, 5, 6, 7] = 0  # enclosed: counts as data
    array[0, 2, 3, 4] = 0  # open to the outside: does not
    array[0, 2, 11, 14] = 0
    labels = np.zeros((12, 14, 16), np.int16)
    labels[4:8, 5:9, 6:10] = 1
    labels[2, 11, 14] = 2
    return array, labels


def test_nonzero_box_fills_holes_like_scipy() -> None:
    array, _ = example()
    box, mask = nonzero_box(array)
    assert box == ((2, 10), (3, 12), (4, 15))
    np.testing.assert_array_equal(mask, ndimage.binary_fill_holes(array[0] != 0))
    sponge = np.random.default_rng(1).random((2, 15, 16, 17)) > 0.6
    np.testing.assert_array_equal(nonzero_box(sponge)[1], ndimage.binary_fill_holes(sponge.any(axis=0)))
    flat = np.random.default_rng(1).random((1, 30, 30)) > 0.5
    np.testing.assert_array_equal(nonzero_box(flat)[1], ndimage.binary_fill_holes(flat[0]))
    box, mask = nonzero_box(np.zeros((1, 4, 5, 6), np.float32))  # an image of zeros is kept whole
    assert box == ((0, 4), (0, 5), (0, 6)) and mask.all()


def test_order_transpose_crop_normalise_resample() -> None:
    array, labels = example()
    one = configuration(spacing=(0.5, 1.0, 2.0))
    found, segmentation, trace = preprocess_case(image_of(array, (2.0, 1.0, 1.0)), labels, plan(one, transpose=(1, 0, 2)), one, case="x")
    cropped = array.transpose(0, 2, 1, 3)[:, 3:12, 2:10, 4:15]
    expected = resample_image((cropped.clip(1, 19) - 10) / 2, (18, 16, 6), spacing=(1, 2, 1), new_spacing=one.spacing)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert segmentation.dtype == np.int16 and segmentation.shape == found.shape[1:] == trace.shape == (18, 16, 6)
    assert (trace.case, trace.transpose, trace.shape_before_crop, trace.spacing) == ("x", (1, 0, 2), (14, 12, 16), (0.5, 1.0, 2.0))
    assert trace.crop == ((3, 12), (2, 10), (4, 15))


def test_outside_is_marked_only_where_no_organ_is() -> None:
    array, labels = example()
    one = configuration()
    _, found, _ = preprocess_case(image_of(array, (1.0, 1.0, 1.0)), labels, plan(one), one)
    assert found[0, 0, 0] == OUTSIDE and found[0, 8, 10] == 2 and found[3, 3, 3] == 1
    assert (found == OUTSIDE).sum() == 1


def test_mask_normalisation_keeps_the_outside() -> None:
    array, _ = example()
    one = configuration(normalization=("zscore",), mask_normalization=(True,))
    found, segmentation, _ = preprocess_case(image_of(array, (1.0, 1.0, 1.0)), None, plan(one), one)
    inside = nonzero_box(array)[1][2:10, 3:12, 4:15]
    assert segmentation is None and found[0, 0, 0, 0] == 0
    assert abs(found[0][inside].mean()) < 1e-5 and abs(found[0][inside].std() - 1) < 1e-5


def test_2d_configuration_keeps_the_slices_and_2d_images_become_one() -> None:
    array, labels = example()
    one = configuration(2, spacing=(0.5, 1.0))
    found, segmentation, trace = preprocess_case(image_of(array, (4.0, 1.0, 1.0)), labels, plan(one), one)
    assert found.shape == (1, 8, 18, 11) and segmentation.shape == (8, 18, 11) and trace.spacing == (4.0, 0.5, 1.0)
    array = np.random.default_rng(0).uniform(5, 15, (1, 8, 10)).astype(np.float32)
    found, segmentation, trace = preprocess_case(image_of(array, (1.0, 1.0)), np.ones((8, 10), np.int16), plan(one, transpose=(0, 1)), one)
    assert found.shape == (1, 1, 16, 10) and segmentation.shape == (1, 16, 10) and (segmentation == 1).all()
    assert (trace.shape_before_crop, trace.crop, trace.spacing) == ((1, 8, 10), ((0, 1), (0, 8), (0, 10)), (0.5, 1.0))


def test_what_does_not_fit_is_told() -> None:
    array, labels = example()
    one = configuration()
    broken = array.copy()
    broken[0, 0, 0, :2] = np.nan, np.inf
    cases = [
        (image_of(np.concatenate([array, array]), (1.0,) * 3), labels, "x: expected 1 channels"),
        (image_of(array[:, 0], (1.0, 1.0)), labels[0], "x: the plan was made for images of 3 axes, found 2"),
        (image_of(array, (1.0,) * 3), labels[1:], "x: image and label must have the same shape"),
        (image_of(broken, (1.0,) * 3), labels, "x: expected finite numbers, found 2 NaN"),
    ]
    for image, segmentation, message in cases:
        with pytest.raises(ValueError, match=message):
            preprocess_case(image, segmentation, plan(one), one, case="x")
    with pytest.raises(ValueError, match="needs volumes"):
        preprocess_case(image_of(array[:, 0], (1.0, 1.0)), None, plan(one, transpose=(0, 1)), one)


def test_class_locations() -> None:
    labels = factories.regions(all=(1, 2), core=(2,), none=(5,), ignore=9)
    segmentation = np.full((40, 40, 40), 4, np.int16)  # ignore
    segmentation[5:35, 5:35, 5:35] = 1
    segmentation[10:12, 10:12, 10:12] = 2
    segmentation[0, 0, 0] = OUTSIDE
    found = class_locations(segmentation, labels, np.random.default_rng(0))
    assert {key: points.shape for key, points in found.items()} == {"0": (10_000, 3), "1": (8, 3), "2": (0, 3), ANNOTATED: (10_000, 3)}
    assert np.isin(segmentation[tuple(found["0"].T)], (1, 2)).all() and len(np.unique(found["0"], axis=0)) == 10_000
    assert (segmentation[tuple(found["1"].T)] == 2).all() and (segmentation[tuple(found[ANNOTATED].T)] != 4).all()
    again = class_locations(segmentation, labels, np.random.default_rng(0))
    assert all(np.array_equal(found[key], again[key]) for key in found)


def dataset(folder: Path) -> Dataset:
    array, labels = example()
    values = np.array([0, 3, 7], np.uint8)[labels]
    cases = []
    for offset, name in enumerate("abc"):
        image = write_volume(folder / f"{name}_0000.nii.gz", array[0] + offset)
        cases.append(Case(name, (image,), write_volume(folder / f"{name}.nii.gz", values)))
    return Dataset("Dataset001_Test", folder, ("CT",), LABELS, tuple(cases))


def assert_stored_alike(first: StoredCase, second: StoredCase) -> None:
    np.testing.assert_array_equal(first.image[:], second.image[:])
    np.testing.assert_array_equal(first.segmentation[:], second.segmentation[:])
    assert all(np.array_equal(first.locations[key], second.locations[key]) for key in first.locations)


def marks(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.trace.json")}


def test_dataset_is_resumable_and_failures_are_named(tmp_path: Path) -> None:
    data, one, out = dataset(tmp_path), configuration(), tmp_path / "out"
    good = data.cases[1].images[0].read_bytes()
    data.cases[1].images[0].write_bytes(b"not an image")
    failures = preprocess_dataset(data, plan(one), one, out, workers=2)
    assert list(failures) == ["b"] and "b_0000.nii.gz" in failures["b"]
    assert Store(out).names() == ["a", "c"]
    before = marks(out)
    data.cases[1].images[0].write_bytes(good)
    (out / "c.trace.json").unlink()
    assert preprocess_dataset(data, plan(one), one, out, workers=0) == {}
    assert Store(out).names() == ["a", "b", "c"] and marks(out)["a.trace.json"] == before["a.trace.json"]
    stored = Store(out).load("a")
    assert stored.image.shape == (1, 16, 9, 11) and stored.segmentation.shape == stored.trace.shape and set(stored.locations) == {"0", "1"}
    assert set(np.unique(stored.segmentation[:])) == {OUTSIDE, 0, 1, 2}


def test_dataset_is_made_again_when_recipe_or_files_change(tmp_path: Path) -> None:
    data, one, out = dataset(tmp_path), configuration(), tmp_path / "out"
    preprocess_dataset(data, plan(one), one, out, workers=0)
    before = marks(out)
    bigger = dataclasses.replace(one, patch_size=(16, 16, 16))
    preprocess_dataset(data, plan(bigger), bigger, out, workers=0)
    assert marks(out) == before
    for path in tmp_path.glob("*.nii*"):
        os.utime(path, ns=(1, 1))
    preprocess_dataset(data, plan(one), one, out, workers=0)
    assert marks(out) == before, "times say nothing"
    turned = read_label(data.cases[0].label)
    write_label(data.cases[0].label, turned.array[::-1].copy(), turned.geometry)
    preprocess_dataset(data, plan(one), one, out, workers=0)
    changed = [name for name, time in marks(out).items() if time != before[name]]
    assert changed == ["a.trace.json"]
    coarse = dataclasses.replace(one, spacing=(2.0, 2.0, 2.0))
    preprocess_dataset(data, plan(coarse), coarse, out, workers=0)
    assert Store(out).load("b").trace.spacing == (2.0, 2.0, 2.0)


@pytest.mark.parametrize("ending", [".image.b2nd", ".labels.b2nd", ".locations.npz"])
def test_a_case_of_which_a_file_is_gone_or_cut_short_is_made_again(tmp_path: Path, ending: str) -> None:
    data, one, out = dataset(tmp_path), configuration(), tmp_path / "out"
    preprocess_dataset(data, plan(one), one, out, workers=0)
    path, before = out / f"a{ending}", marks(out)
    whole = path.read_bytes()
    for damage in (path.unlink, lambda: path.write_bytes(whole[:-200])):
        if ending == ".locations.npz" and damage != path.unlink:
            continue  # its digest is verified when it is read
        damage()
        assert preprocess_dataset(data, plan(one), one, out, workers=0) == {}
        assert path.read_bytes() == whole
    assert [name for name, time in marks(out).items() if time != before[name]] == ["a.trace.json"]


def test_cases_that_lie_otherwise_are_stored_as_the_others(tmp_path: Path) -> None:
    data, one = dataset(tmp_path), configuration(spacing=(1.5, 0.8, 0.9))
    turned = data.cases[1]
    for path, source in zip((turned.images[0], turned.label), (data.cases[0].images[0], data.cases[0].label), strict=True):
        sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(str(source)), "PIR"), str(path))
    mixed = plan(one, orientation="SPL")
    assert preprocess_dataset(data, mixed, one, tmp_path / "out", workers=0) == {}
    first, second = (Store(tmp_path / "out").load(name) for name in "ab")
    assert (first.trace.flips, second.trace.transpose, second.trace.flips) == ((), (1, 2, 0), (0, 2))
    assert_stored_alike(first, second)
    assert case_memory(data.cases[0], mixed, one) == case_memory(turned, mixed, one)
    preprocess_dataset(data, plan(one), one, tmp_path / "out", workers=0)
    assert Store(tmp_path / "out").load("b").trace.flips == ()


def test_workers_do_not_change_the_result(tmp_path: Path) -> None:
    data, one = dataset(tmp_path), configuration(spacing=(1.3, 0.8, 0.9))
    preprocess_dataset(data, plan(one), one, tmp_path / "here", workers=0)
    preprocess_dataset(data, plan(one), one, tmp_path / "there", workers=2)
    for name in "abc":
        assert_stored_alike(*(Store(tmp_path / folder).load(name) for folder in ("here", "there")))
