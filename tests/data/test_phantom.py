"""The phantom: organs on the right side, plausible sizes and intensities, the same case for the same seed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from autoseg.data.images import read_image, read_label
from autoseg.data.phantom.anatomy import ORGANS
from autoseg.data.phantom.dataset import make_phantom, phantom_case
from autoseg.data.phantom.patient import draw_patient
from autoseg.data.phantom.shapes import Canvas, Space, column, ellipsoid, smooth_field, smooth_union, tube
from autoseg.schema import Geometry

CASES = 8


@pytest.fixture(scope="module")
def cases() -> list[tuple[np.ndarray, np.ndarray, Geometry]]:
    return [phantom_case(np.random.default_rng(seed), size=0.5) for seed in range(CASES)]


def centres(label: np.ndarray, geometry: Geometry) -> dict[str, np.ndarray]:
    """World position (x, y, z) of each organ that is there."""
    found = {}
    for value, organ in enumerate(ORGANS, start=1):
        voxels = np.argwhere(label == value)
        if len(voxels):
            found[organ] = np.asarray(geometry.origin) + (voxels.mean(0) * geometry.spacing)[::-1]
    return found


def test_sides_are_those_of_the_patient(cases: list) -> None:
    for _, label, geometry in cases:
        at = centres(label, geometry)
        assert at["liver"][0] < 0 < at["spleen"][0]
        assert at["stomach"][0] > 0
        assert at.get("kidney_right", [-1])[0] < at["aorta"][0] < at.get("kidney_left", [99])[0]
        assert at["stomach"][1] < at["aorta"][1] + 15  # in front
        assert at["liver"][2] > at.get("kidney_right", [0, 0, -99])[2]
        assert geometry.lateral_axis == 2


def test_organs_have_human_volumes_and_are_in_one_piece(cases: list) -> None:
    bounds = {"liver": (600, 2200), "spleen": (30, 500), "kidney": (25, 350), "aorta": (25, 160), "stomach": (60, 800)}
    for _, label, geometry in cases:
        for value, organ in enumerate(ORGANS, start=1):
            mask = label == value
            if not mask.any():
                assert organ.startswith("kidney")
                continue
            low, high = bounds[organ.split("_")[0]]
            assert low < mask.sum() * np.prod(geometry.spacing) / 1000 < high, organ
            parts = ndimage.label(mask, np.ones((3, 3, 3)))[0]
            assert np.bincount(parts.ravel())[1:].max() > 0.9 * mask.sum(), organ


def test_intensities_are_those_of_tissue(cases: list) -> None:
    for image, label, _ in cases:
        assert image.dtype == np.int16
        assert image.min() >= -1024 and 250 < image.max() <= 3071
        assert image[0, 0, 0] == pytest.approx(-1000, abs=100)
        for organ, (low, high) in {"liver": (5, 150), "spleen": (20, 160), "aorta": (15, 420)}.items():
            assert low < np.median(image[label == ORGANS.index(organ) + 1]) < high, organ
        assert ((image > -130) & (image < -70)).mean() > 0.05  # fat
        assert (image < -700).mean() > 0.15  # air around the patient


def test_no_two_cases_are_alike(cases: list) -> None:
    assert len({geometry.spacing for *_, geometry in cases}) == CASES
    assert len({geometry.origin for *_, geometry in cases}) == CASES
    assert all(geometry.spacing[0] > 1.2 * geometry.spacing[1] for *_, geometry in cases)
    livers = [np.median(image[label == 1]) for image, label, _ in cases]
    assert max(livers) - min(livers) > 15


def test_the_usual_size() -> None:
    image, label, geometry = phantom_case(np.random.default_rng(0))
    assert image.shape == label.shape == geometry.shape
    assert 26 <= image.shape[0] <= 40 and 96 <= image.shape[1] == image.shape[2] <= 128
    assert set(np.unique(label)) == set(range(7))


def test_the_generator_decides_everything() -> None:
    first, second, other = (phantom_case(np.random.default_rng(seed), size=0.25) for seed in (5, 5, 6))
    assert np.array_equal(first[0], second[0]) and np.array_equal(first[1], second[1]) and first[2] == second[2]
    assert first[2] != other[2]


def test_pathology_occurs_but_not_in_all() -> None:
    patients = [draw_patient(np.random.default_rng(seed)) for seed in range(300)]
    assert 0.03 < np.mean([not all(p.kidneys) for p in patients]) < 0.15
    assert 0.25 < np.mean([bool(p.liver_lesions) for p in patients]) < 0.45
    assert 0.15 < np.mean([bool(p.cysts) for p in patients]) < 0.35
    assert all(any(p.kidneys) for p in patients)


def test_a_lost_kidney_is_absent_from_the_labels() -> None:
    seed = next(seed for seed in range(200) if not all(draw_patient(np.random.default_rng(seed)).kidneys))
    label = phantom_case(np.random.default_rng(seed), size=0.25)[1]
    present = tuple(bool((label == ORGANS.index(name) + 1).any()) for name in ("kidney_right", "kidney_left"))
    assert present == draw_patient(np.random.default_rng(seed)).kidneys


def test_dataset_on_disk(tmp_path: Path) -> None:
    make_phantom(tmp_path / "a", n_train=2, n_test=1, seed=3, size=0.2)
    make_phantom(tmp_path / "b", n_train=1, n_test=0, seed=3, size=0.2)
    description = json.loads((tmp_path / "a/dataset.json").read_text())
    assert description["channel_names"] == {"0": "CT"} and description["numTraining"] == 2
    assert description["labels"] == {"background": 0} | {organ: i for i, organ in enumerate(ORGANS, 1)}
    files = sorted(str(path.relative_to(tmp_path / "a")) for path in (tmp_path / "a").rglob("*.nii.gz"))
    names = [f"imagesTr/phantom_00{i}_0000.nii.gz" for i in (0, 1)] + ["imagesTs/phantom_002_0000.nii.gz"]
    assert files == names + [f"labelsT{part}/phantom_00{i}.nii.gz" for part, i in (("r", 0), ("r", 1), ("s", 2))]
    image, label = read_image([tmp_path / "a" / files[0]]), read_label(tmp_path / "a" / files[3])
    assert image.geometry == label.geometry
    again = read_image([tmp_path / "b/imagesTr/phantom_000_0000.nii.gz"])
    assert np.array_equal(image.array, again.array)


@pytest.mark.parametrize("wrong", [{"n_train": 0}, {"n_test": -1}, {"size": 0}])
def test_impossible_requests_are_refused(wrong: dict, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="phantom: expected"):
        make_phantom(tmp_path, **({"n_train": 1, "n_test": 1, "seed": 0, "size": 1.0} | wrong))


def grid(n: int = 41, reach: float = 20.0) -> Space:
    axis = np.linspace(-reach, reach, n).astype(np.float32)
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    return Space(x, y, z)


def test_distances_of_simple_shapes_and_unions() -> None:
    space = grid()
    radius = np.sqrt(space.x**2 + space.y**2 + space.z**2)
    assert np.allclose(ellipsoid(space, (0, 0, 0), (10, 10, 10))[radius > 1], (radius - 10)[radius > 1], atol=1e-3)
    assert np.allclose(tube(space, [(0, 0, -50), (0, 0, 50)], [6, 6]), np.sqrt(space.x**2 + space.y**2) - 6, atol=1e-3)
    assert np.allclose(column(space, (0, 0), (8, 8)), np.sqrt(space.x**2 + space.y**2) - 8, atol=1e-2)
    box = ellipsoid(space, (2, 0, 0), (12, 6, 3)) < 0
    assert box.sum() == pytest.approx(4 / 3 * np.pi * 12 * 6 * 3, rel=0.06)
    with pytest.raises(ValueError, match="two points"):
        tube(space, [(0, 0, 0)], [1])
    assert np.allclose(smooth_union(np.array([-5.0, 0.0, 9.0]), np.array([5.0, 0.0, -9.0]), 4), [-5, -1, -9])  # rounded at the seam only


def test_near_keeps_every_voxel_in_reach() -> None:
    space = grid().moved([smooth_field(np.random.default_rng(0), (41, 41, 41), (10, 10, 10), 2.0) for _ in range(3)])
    window = space.near((3, -4, 5), (6, 5, 4))
    outside = np.ones((41, 41, 41), bool)
    outside[window] = False
    assert not (outside & (ellipsoid(space, (3, -4, 5), (6, 5, 4)) < 0)).any()
    assert outside.mean() > 0.9
    assert space.part(space.near((500, 0, 0), (1, 1, 1))).x.size == 0


def test_smooth_field_has_the_asked_strength_and_no_jumps() -> None:
    field = smooth_field(np.random.default_rng(0), (40, 60, 60), (6, 6, 6), 3.0)
    assert field.dtype == np.float32
    assert field.std() == pytest.approx(3, rel=0.3)
    assert max(np.abs(np.diff(field, axis=axis)).max() for axis in range(3)) < 6


def test_canvas_mixes_tissues_over_its_softness() -> None:
    canvas = Canvas((1, 1, 5), softness=2, background=-100)
    distance = np.array([[[-3, -0.5, 0, 0.5, 3]]], np.float32)
    canvas.paint(distance, 100, 7)
    assert np.allclose(canvas.hu, [[[100, 50, 0, -50, -100]]])
    assert canvas.labels.tolist() == [[[7, 7, 0, 0, 0]]]
    canvas.paint(np.full((1, 1, 1), -9, np.float32), 40, at=(slice(0, 1), slice(0, 1), slice(4, 5)), strength=0.5)
    assert canvas.hu[0, 0, 4] == -30


def test_all_scans_can_be_of_one_phase_and_are_otherwise_the_same():
    (drawn, labels, _), (arterial, same, _) = (phantom_case(np.random.default_rng(7), size=0.25, phase=one) for one in (None, "arterial"))
    assert (labels == same).all()
    assert (drawn != arterial).any()
    for seed in range(4):
        image, label, _ = phantom_case(np.random.default_rng(seed), size=0.25, phase="arterial")
        assert np.median(image[label == ORGANS.index("aorta") + 1]) > 200
        assert 0 < draw_patient(np.random.default_rng(seed), phase="arterial").stomach_content < 30


def test_a_phase_that_there_is_not_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="arterail.*arterial"):
        make_phantom(tmp_path, n_train=1, n_test=0, seed=0, phase="arterail")
