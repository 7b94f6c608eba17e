"""Pseudo-labels on disk, and weights of voxels on the grid of a configuration."""

from __future__ import annotations

import numpy as np
import pytest
from factories import GRIDS, make_case, make_plan, whole_trace, write_store

from autoseg.preprocessing.cropping import slices_of
from autoseg.preprocessing.orientation import reorient
from autoseg.preprocessing.preprocess import class_locations
from autoseg.preprocessing.pseudo_labelled_cases import FULL, WEIGHTS, PseudoLabelledCase, is_stored, to_grid, write_pseudo_labels
from autoseg.preprocessing.storage import StoredRecord


def store_pseudo_labels(folder, name="u", *, shape=(10, 14, 16), seed=9, weight=0.5):
    _, labels = make_case(seed, shape)
    weights = np.full(shape, weight, np.float32)
    locations = class_locations(labels, make_plan().labels, np.random.default_rng(0))
    write_pseudo_labels(folder, labels, weights, StoredRecord(whole_trace(shape, case=name)), locations)
    return labels


def test_what_is_written_is_read_with_the_image_of_the_other_folder(tmp_path):
    write_store(tmp_path / "images", make_plan(), ("u",))
    labels = store_pseudo_labels(tmp_path / "labels")
    case = PseudoLabelledCase(tmp_path / "labels", "u", images=tmp_path / "images")
    np.testing.assert_array_equal(case.segmentation[:], labels)
    np.testing.assert_array_equal(case.image[:], make_case(0)[0])
    assert set(case.weights[:].ravel().tolist()) == {round(0.5 * FULL)}
    assert len(case.locations["0"]) == (labels == 1).sum()


def test_an_image_on_another_grid_is_refused(tmp_path):
    write_store(tmp_path / "images", make_plan(), ("u",), shape=(12, 14, 16))
    store_pseudo_labels(tmp_path / "labels")
    with pytest.raises(ValueError, match=r"u: expected the grid \(10, 14, 16\) of its pseudo-labels, found \(12, 14, 16\)"):
        _ = PseudoLabelledCase(tmp_path / "labels", "u", images=tmp_path / "images").image


def test_a_case_without_weights_is_not_stored(tmp_path):
    store_pseudo_labels(tmp_path)
    assert is_stored(tmp_path, "u")
    (tmp_path / f"u{WEIGHTS}").unlink()
    assert not is_stored(tmp_path, "u")


@pytest.mark.parametrize("kind", GRIDS)
def test_weights_go_the_way_of_the_image(kind):
    trace = GRIDS[kind]
    shape = trace.geometry.shape
    ramp = np.random.default_rng(0).random(shape).astype(np.float32)
    found = to_grid(ramp, trace)
    cropped = reorient(ramp[None], trace.transpose, trace.flips)[0][slices_of(trace.crop)]
    assert found.shape == trace.shape
    assert cropped.min() - 1e-6 <= found.min() and found.max() <= cropped.max() + 1e-6
    if cropped.shape == trace.shape:
        np.testing.assert_array_equal(found, cropped)
