"""Turning volumes: every orientation there is, exactly there and back, and whole cases that lie otherwise give the same results."""

from __future__ import annotations

import dataclasses
import itertools
import os
from pathlib import Path

import factories
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from factories import make_configuration, make_plan
from scipy.spatial.transform import Rotation

from autoseg.data.geometry import to_index, to_world
from autoseg.data.images import read_image
from autoseg.data.sitk_images import from_sitk, to_sitk
from autoseg.inference import logits_grid as grid
from autoseg.inference.cascade import on_grid
from autoseg.inference.export import export_labels, probabilities
from autoseg.inference.logits import Logits
from autoseg.planners.spacing import common_orientation, in_orientation
from autoseg.preprocessing.orientation import SIDES, orientation_of, orientation_transform, plan_transform, reorient, undo_reorient
from autoseg.preprocessing.preprocess import class_locations, preprocess_case
from autoseg.schema import CaseFingerprint, Geometry, Image

DATA = Path(os.environ.get("AUTOSEG_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
WORDS = sorted("".join(letters) for order in itertools.permutations(SIDES) for letters in itertools.product(*order))
SOME = ("SPL", "SAR", "ILP", "RSA")
"""As ITK's identity, as most NIfTI files, and two whose axes are exchanged in a circle."""
SIDED = factories.labels(left=3, right=8)


def reoriented(image: Image, word: str) -> Image:
    """The same volume in space with other axes, by ITK."""
    parts = [from_sitk(sitk.DICOMOrient(to_sitk(channel, image.geometry), word[::-1])) for channel in image.array]
    return Image(np.concatenate([part.array for part in parts]), parts[0].geometry, image.source)


def volume(seed: int = 0) -> tuple[Image, np.ndarray]:
    """A slightly tilted volume of unequal axes with an empty border, and organs that differ between the sides."""
    rng = np.random.default_rng(seed)
    array = rng.normal(100, 20, (2, 7, 13, 16)).astype(np.float32)
    array[:, :, :2], array[:, :, :, -3:] = 0, 0
    labels = np.zeros((7, 13, 16), np.int16)
    labels[1:5, 4:9, 1:5], labels[3:6, 3:11, 8:12] = 1, 2
    tilt = Rotation.from_euler("xyz", (9, 4, 7), degrees=True).as_matrix()
    return Image(array, Geometry(labels.shape, (4.0, 1.0, 1.25), (5.0, -3.0, 8.0), tuple(tilt.ravel().tolist())), "here"), labels


@pytest.mark.parametrize("word", WORDS)
def test_every_orientation_there_and_back(word: str) -> None:
    image, _ = volume()
    copy = reoriented(image, word)
    assert (orientation_of(image.geometry), orientation_of(copy.geometry)) == ("SPL", word)
    order, flips = plan_transform(copy.geometry, (0, 1, 2), "SPL")
    turned = reorient(copy.array, order, flips)
    np.testing.assert_array_equal(turned, image.array)
    assert [copy.geometry.spacing[axis] for axis in order] == pytest.approx(image.geometry.spacing)
    np.testing.assert_array_equal(undo_reorient(turned, order, flips), copy.array)
    assert np.shares_memory(turned, copy.array)


@pytest.mark.parametrize(("found", "wanted"), [("SPL", "SAR"), ("RSA", "ILP"), ("LPS", "PSL"), ("IAR", "SPL")])
@pytest.mark.parametrize("transpose", list(itertools.permutations(range(3))))
def test_turning_comes_before_the_plans_order_of_axes(found: str, wanted: str, transpose: tuple[int, ...]) -> None:
    image, _ = volume()
    copy, target = reoriented(image, found), reoriented(image, wanted)
    order, flips = plan_transform(copy.geometry, transpose, wanted)
    np.testing.assert_array_equal(reorient(copy.array, order, flips), reorient(target.array, transpose))
    np.testing.assert_array_equal(undo_reorient(reorient(copy.array, order, flips), order, flips), copy.array)


def test_nothing_is_turned_without_two_known_orientations() -> None:
    for pair in (("", "SPL"), ("SAR", ""), ("SAR", "SAR")):
        assert orientation_transform(*pair) == ((0, 1, 2), ())
    flat = Geometry((4, 5), (1.0, 1.0), (0.0, 0.0), (-1.0, 0.0, 0.0, -1.0))
    assert orientation_of(flat) == "" and plan_transform(flat, (0, 1), "") == ((0, 1), ())
    flat_array = np.arange(20.0).reshape(1, 4, 5)
    np.testing.assert_array_equal(undo_reorient(reorient(flat_array, (1, 0)), (1, 0))[:, 0], flat_array)
    made_up = dataclasses.replace(volume()[0].geometry, oriented=False)
    assert plan_transform(made_up, (2, 0, 1), "SAR") == ((2, 0, 1), ())


@pytest.mark.parametrize(("degrees", "word"), [(0, "SPL"), (25, "SPL"), (-38, "SPL"), (45, ""), (52, "LPI"), (90, "LPI"), (180, "IPR")])
def test_oblique_volumes_have_the_nearest_orientation_if_it_is_clear(degrees: float, word: str) -> None:
    matrix = Rotation.from_euler("y", degrees, degrees=True).as_matrix()
    geometry = Geometry((4, 5, 6), (1.0,) * 3, (0.0,) * 3, tuple(matrix.ravel().tolist()))
    assert orientation_of(geometry) == word
    if word:
        assert geometry.lateral_axis == next(axis for axis, letter in enumerate(word) if letter in "LR")


def test_letters_say_where_the_index_grows() -> None:
    geometry = reoriented(volume()[0], "ALI").geometry
    steps = to_world(geometry, np.eye(3)[::-1]) - to_world(geometry, np.zeros((1, 3)))  # of one index along Z, Y and X
    assert steps[0, 1] < 0 and steps[1, 0] > 0 and steps[2, 2] < 0  # ITK's world grows to left, posterior and superior


def plan_for(*, transpose=(0, 1, 2), spacing=(3.0, 1.3, 0.9), dim=3):
    one = make_configuration(dim, spacing=spacing, normalization=("zscore", "zscore"), mask_normalization=(False, True))
    plan = make_plan(one, labels=SIDED, channels=("T1", "T2"))
    return dataclasses.replace(plan, transpose=transpose, orientation="SPL"), one


KINDS = {
    "separate slices": {},
    "isotropic": {"spacing": (1.5, 1.5, 1.5)},
    "transposed": {"transpose": (2, 0, 1), "spacing": (1.1, 3.0, 1.2)},
    "2D configuration": {"dim": 2, "spacing": (1.3, 0.9)},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("word", SOME)
def test_a_volume_that_lies_otherwise_is_preprocessed_and_exported_the_same(word, kind, monkeypatch) -> None:
    monkeypatch.setattr(grid, "SLAB", 900)  # several slabs
    plan, one = plan_for(**KINDS[kind])
    image, labels = volume()
    copy, copied = reoriented(image, word), reoriented(Image(labels[None], image.geometry), word).array[0]
    expected, segmentation, trace = preprocess_case(image, labels, plan, one, case="a")
    found, found_segmentation, found_trace = preprocess_case(copy, copied, plan, one, case="a")
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found_segmentation, segmentation)
    here, there = (class_locations(array, SIDED, np.random.default_rng(0)) for array in (segmentation, found_segmentation))
    assert all(np.array_equal(here[key], there[key]) for key in here)
    np.testing.assert_array_equal(on_grid(copied, found_trace), on_grid(labels, trace))

    scores = torch.from_numpy(np.random.default_rng(1).normal(0, 3, (3, *trace.shape)).astype(np.float32))
    logits = [[Logits(scores, one)] for one in (trace, found_trace)]
    maps, copied_maps = (export_labels(one, SIDED) for one in logits)
    shares, copied_shares = (np.concatenate([slab for _, slab in probabilities(one, SIDED)], axis=1) for one in logits)
    assert copied_maps.shape == copy.geometry.shape
    assert len(np.unique(maps)) == 3
    np.testing.assert_array_equal(reoriented(Image(copied_maps[None], copy.geometry), "SPL").array[0], maps)
    # slabs are cut along the file's own first axis: exponentials of other blocks may round otherwise
    np.testing.assert_allclose(reoriented(Image(copied_shares, copy.geometry), "SPL").array, shares, rtol=0, atol=3e-7)


def test_a_plan_without_orientation_takes_volumes_as_they_lie() -> None:
    plan, one = plan_for()
    copy = reoriented(volume()[0], "SAR")
    circle = reoriented(volume()[0], "RSA")
    for image, orientation, transform in (
        (copy, "", ((0, 1, 2), ())),
        (copy, "SPL", ((0, 1, 2), (1, 2))),
        (circle, "SPL", ((1, 2, 0), (1, 2))),
    ):
        _, _, trace = preprocess_case(image, None, dataclasses.replace(plan, orientation=orientation), one)
        assert (trace.transpose, trace.flips) == transform


def measured(name: str, orientation: str) -> CaseFingerprint:
    return CaseFingerprint(name, (10, 20, 30), (5.0, 1.0, 2.0), 1.0, 2, (1,), orientation)


def test_measures_follow_the_orientation() -> None:
    case = CaseFingerprint("a", (10, 20, 30), (5.0, 1.0, 2.0), 0.9, 0, (1,), "LSA")
    found = in_orientation(case, "SPL")
    assert (found.shape, found.spacing, found.lateral_axis, found.orientation) == ((20, 30, 10), (1.0, 2.0, 5.0), 2, "SPL")
    for unchanged in (measured("a", ""), measured("a", "SPL")):
        assert in_orientation(unchanged, "SPL") is unchanged
    assert in_orientation(case, "") is case


def test_most_cases_decide() -> None:
    assert common_orientation([measured("a", "SAR"), measured("b", "SPL"), measured("c", "SPL"), measured("d", "")]) == "SPL"
    assert common_orientation([measured("a", "SAR"), measured("b", "SPL")]) == "SAR"
    assert common_orientation([measured("a", "SAR"), measured("b", ""), measured("c", "")]) == ""


@pytest.mark.skipif(not (DATA / "ct_one_case" / "torso_ct.nii.gz").is_file(), reason="the torso CT is not there (AUTOSEG_TEST_DATA)")
@pytest.mark.parametrize("word", ["SPL", "LIA"])
def test_a_real_scan_and_its_copy_in_another_orientation(word: str, tmp_path: Path) -> None:
    scan = read_image([DATA / "ct_one_case" / "torso_ct.nii.gz"])
    assert orientation_of(scan.geometry) == "SAR"
    path = tmp_path / "copy.nii.gz"
    sitk.WriteImage(sitk.DICOMOrient(to_sitk(scan.array[0], scan.geometry), word[::-1]), str(path))
    copy = read_image([path])
    assert orientation_of(copy.geometry) == word
    one = make_configuration(3, spacing=(6.0, 5.0, 5.0))
    plan = dataclasses.replace(make_plan(one, labels=SIDED), orientation="SPL")
    expected, _, trace = preprocess_case(scan, None, plan, one, case="a")
    found, _, copied_trace = preprocess_case(copy, None, plan, one, case="a")
    np.testing.assert_array_equal(found, expected)
    # the patient's left half and right half by the network's own last axis: they must end where they lie in space
    scores = np.zeros((3, *trace.shape), np.float16)
    half = trace.shape[2] // 2
    scores[1, ..., half:], scores[2, ..., :half] = 9, 9
    maps = export_labels([Logits(scores, trace)], SIDED)
    copied = export_labels([Logits(scores, copied_trace)], SIDED)
    np.testing.assert_array_equal(reoriented(Image(copied[None], copy.geometry), "SAR").array[0], maps)
    for result, geometry in ((maps, scan.geometry), (copied, copy.geometry)):
        left, right = (to_world(geometry, np.argwhere(result == value)[:, ::-1].mean(0))[0] for value in (1, 2))
        assert left > right  # ITK's x grows to the patient's left
    corner = to_world(scan.geometry, np.array([[3.0, 4.0, 5.0]]))
    x, y, z = np.rint(to_index(copy.geometry, corner)[0]).astype(int)
    assert copy.array[0, z, y, x] == scan.array[0, 5, 4, 3]
