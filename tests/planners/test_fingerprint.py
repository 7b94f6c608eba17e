"""Measuring a dataset: shapes, organs, intensities with equal weight per case, and cases that cannot be read."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import factories
import numpy as np
import pytest
from factories import fingerprint_of, make_geometry

from autoseg.data.datasets import load_dataset
from autoseg.data.images import write_image
from autoseg.planners.fingerprint import SKETCH_SIZE, combine, count_organs, sketch, weighted_percentiles
from autoseg.planners.plan import make_plan
from autoseg.schema import Dataset

DATA = Path(os.environ.get("AUTOSEG_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def make_dataset(folder: Path, images: list[np.ndarray], labels: list[np.ndarray], spacing: tuple[float, ...] = (3.0, 1.0, 1.0)) -> Dataset:
    """A dataset of single-channel cases c0, c1 ..., with organs 2 and 5 in its files."""
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        write_image(folder / "imagesTr" / f"c{index}_0000.mha", image[None].astype(np.float32), make_geometry(image.shape, spacing))
        write_image(folder / "labelsTr" / f"c{index}.mha", label[None].astype(np.uint8), make_geometry(label.shape, spacing))
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 2, "spleen": 5}, "file_ending": ".mha"}
    (folder / "dataset.json").write_text(json.dumps(content | {"numTraining": len(images)}))
    return load_dataset(folder)


def box_case(value: float, size: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Zeros around a box (4, 6, 8) of `value`, in which some voxels are organs."""
    image, label = np.zeros((6, 10, 12)), np.zeros((6, 10, 12), int)
    image[1:5, 2:8, 3:11] = value
    label[2, 3 : 3 + size, 4], label[3, 3, 5:7] = 2, 5
    return image, label


def test_shapes_organs_and_intensities(tmp_path: Path) -> None:
    (image_a, label_a), (image_b, label_b) = box_case(10.0), box_case(30.0, size=2)
    fingerprint, failures = fingerprint_of(make_dataset(tmp_path, [image_a, image_b], [label_a, label_b]))
    assert failures == {}
    first = fingerprint.cases[0]
    assert (first.name, first.shape, first.lateral_axis, first.voxels, first.orientation) == ("c0", (4, 6, 8), 2, (4, 2), "SPL")
    assert first.spacing == pytest.approx((3.0, 1.0, 1.0))
    assert first.relative_size == pytest.approx(4 * 6 * 8 / 720)
    assert fingerprint.cases[1].voxels == (2, 2)
    intensity = fingerprint.intensities[0]
    # The cases count equally although the first has more foreground.
    assert (intensity.mean, intensity.std, intensity.min, intensity.max) == pytest.approx((20.0, 10.0, 10.0, 30.0))


def test_worker_processes_give_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pairs = [box_case(1.0) for _ in range(3)]
    dataset = make_dataset(tmp_path, [image * rng.normal(50, 9, image.shape) for image, _ in pairs], [label for _, label in pairs])
    assert fingerprint_of(dataset, workers=2) == fingerprint_of(dataset)


def test_bad_cases_are_named_and_the_others_go_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pairs = [box_case(10.0) for _ in range(5)]
    images, labels = [image for image, _ in pairs], [label for _, label in pairs]
    images[1][2, 3, 4] = np.nan
    labels[2][0, 0, :3] = 7
    labels[3] = labels[3][:, :, :-1]
    dataset = make_dataset(tmp_path, images, labels)
    (tmp_path / "imagesTr" / "c4_0000.mha").write_bytes(b"no image")
    fingerprint, failures = fingerprint_of(dataset)
    assert [case.name for case in fingerprint.cases] == ["c0", "c1"]  # NaN is read as 0, with a warning
    assert "c1_0000.mha: 1 of 720 voxels are NaN or infinite; they are read as 0" in caplog.text
    facts = {"c2": "7 (3 voxels)", "c3": "found (6, 10, 11)", "c4": "c4_0000.mha"}
    assert failures.keys() == facts.keys() and all(fact in failures[name] for name, fact in facts.items())


def test_label_in_another_place_is_pointed_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image, label = box_case(10.0)
    dataset = make_dataset(tmp_path, [image], [label])
    write_image(tmp_path / "labelsTr" / "c0.mha", label[None].astype(np.uint8), make_geometry(label.shape, (3.0, 1.5, 1.0)))
    with caplog.at_level(logging.WARNING):
        fingerprint, _ = fingerprint_of(dataset)
    assert "lies elsewhere than its image" in caplog.text
    assert fingerprint.cases[0].spacing == pytest.approx((3.0, 1.0, 1.0))


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    image, label = box_case(10.0)
    with pytest.raises(ValueError, match="only background in all 1"):
        fingerprint_of(make_dataset(tmp_path / "a", [image], [label * 0]))
    dataset = make_dataset(tmp_path / "b", [image], [label])
    (tmp_path / "b" / "imagesTr" / "c0_0000.mha").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"none; c0: .*c0_0000\.mha"):
        fingerprint_of(dataset)


def test_empty_label_map_still_counts_for_the_shapes(tmp_path: Path) -> None:
    (image, label), (other, _) = box_case(10.0), box_case(99.0)
    fingerprint, _ = fingerprint_of(make_dataset(tmp_path, [image, other], [label, label * 0]))
    assert [case.voxels for case in fingerprint.cases] == [(4, 2), (0, 0)]
    assert fingerprint.intensities[0].max == 10.0


def test_flat_images(tmp_path: Path) -> None:
    image, label = box_case(10.0)
    fingerprint, failures = fingerprint_of(make_dataset(tmp_path, [image[2]], [label[2]], (0.5, 0.5)))
    (case,) = fingerprint.cases
    assert failures == {} and (case.shape, case.lateral_axis, case.orientation) == ((6, 8), 1, "")


def test_unannotated_voxels_are_no_foreground() -> None:
    labels = factories.regions(all=(1, 2), core=(2,), ignore=3)
    assert count_organs(np.array([[0, 1, 2, 3, -1, 2]], np.int16), labels) == (3, 2)


def test_sketch_and_percentiles_match_numpy() -> None:
    rng = np.random.default_rng(1)
    small = rng.normal(100, 15, 999).astype(np.float32)
    for percent in (0.5, 50, 99.5):
        assert weighted_percentiles(small, np.full(999, 0.1), (percent,))[0] == pytest.approx(np.percentile(small, percent), rel=1e-6)
    large = rng.gamma(2, 50, 20 * SKETCH_SIZE).astype(np.float32)
    found = combine([sketch(large)])
    assert (found.min, found.max) == (large.min(), large.max())
    assert (found.mean, found.std) == pytest.approx((large.mean(), large.std()), rel=1e-5)
    expected = np.percentile(large, (0.5, 50, 99.5))
    assert (found.percentile_00_5, found.median, found.percentile_99_5) == pytest.approx(expected, rel=2e-3)


def test_mixture_of_cases_matches_drawing_equally_many_from_each() -> None:
    rng = np.random.default_rng(2)
    cases = [rng.normal(mean, 5, count) for mean, count in ((0, 30_000), (50, 300), (80, 5_000))]
    found = combine([sketch(values) for values in cases])
    drawn = np.concatenate([rng.choice(values, 200_000) for values in cases])
    assert (found.mean, found.std) == pytest.approx((drawn.mean(), drawn.std()), abs=0.1)
    expected = np.percentile(drawn, (0.5, 50, 99.5))
    assert (found.percentile_00_5, found.median, found.percentile_99_5) == pytest.approx(expected, abs=0.5)


@pytest.mark.skipif(not (DATA / "Dataset004_Hippocampus").is_dir(), reason="the Hippocampus data set is not there (AUTOSEG_TEST_DATA)")
def test_hippocampus_gets_the_plan_of_the_reference() -> None:
    dataset = load_dataset(DATA / "Dataset004_Hippocampus")
    fingerprint, failures = fingerprint_of(dataset)
    assert failures == {} and len(fingerprint.cases) == 208
    plan = make_plan(dataset, fingerprint)
    full, plane = plan.configurations["3d_fullres"], plan.configurations["2d"]
    assert list(plan.configurations) == ["2d", "3d_fullres", "2.5d"]
    assert (full.patch_size, full.batch_size, full.spacing) == ((40, 56, 40), 7, (1.0, 1.0, 1.0))
    assert full.network_options["features"] == [32, 64, 128, 256]
    assert (plane.patch_size, plane.batch_size) == ((56, 40), 292)
