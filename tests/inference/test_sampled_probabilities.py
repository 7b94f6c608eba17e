"""Probabilities at single voxels are those of the whole volume."""

from __future__ import annotations

import numpy as np
import pytest
from factories import GRIDS, LIVER_SPLEEN_AORTA, NESTED_REGIONS, blobs

from autoseg.inference import grid
from autoseg.inference.export import probabilities
from autoseg.inference.lazy_logits import with_temperature
from autoseg.inference.logits import Logits
from autoseg.inference.quantised_logits import quantise
from autoseg.inference.sampled_probabilities import probabilities_at


def members_of(case, labels):
    """One that gives logits, one with probabilities in eight bits and a temperature."""
    arrays = [blobs(GRIDS[case].shape, labels.n_outputs, seed=seed, scale=2.0) for seed in (0, 1)]
    stored = Logits(quantise(arrays[1], labels), GRIDS[case], "probability8")
    return [Logits(arrays[0], GRIDS[case]), with_temperature(stored, 1.7, labels)]


@pytest.mark.parametrize("slabs", ["whole", "small slabs"])
@pytest.mark.parametrize("labels", [LIVER_SPLEEN_AORTA, NESTED_REGIONS], ids=["organs", "regions"])
@pytest.mark.parametrize("case", GRIDS)
def test_every_voxel(case, labels, slabs, monkeypatch):
    if slabs == "small slabs":
        monkeypatch.setattr(grid, "LABEL_SLAB", 700)
        monkeypatch.setattr(grid, "CHUNK", 300)
    members = members_of(case, labels)
    shape = GRIDS[case].geometry.shape
    everywhere = np.stack(np.unravel_index(np.random.default_rng(0).permutation(int(np.prod(shape))), shape))
    found = probabilities_at(members, everywhere, labels)
    whole = np.concatenate([slab for _, slab in probabilities(members, labels)], axis=1).reshape(labels.n_outputs, *shape)
    np.testing.assert_allclose(found, whole[(slice(None), *everywhere)].T, atol=1e-5)


def test_only_what_lies_around_the_points_is_read(monkeypatch):
    boxes, original = [], grid.Grid.read
    monkeypatch.setattr(grid.Grid, "read", lambda self, spans: boxes.append(spans) or original(self, spans))
    case = GRIDS["finer"]
    probabilities_at([Logits(blobs(case.shape, 4, seed=0), case)], np.array([[5, 6], [20, 20], [3, 4]]), LIVER_SPLEEN_AORTA)
    (spans,) = boxes
    assert all(stop - start <= 3 for start, stop in spans)


def test_outside_what_was_kept_background_is_certain():
    member = Logits(blobs(GRIDS["finer"].shape, 4, seed=0), GRIDS["finer"])
    found = probabilities_at([member], np.array([[0, 20, 5], [0, 20, 1], [0, 1, 1]]), LIVER_SPLEEN_AORTA)
    np.testing.assert_array_equal(found, [[1, 0, 0, 0]] * 3)
    assert probabilities_at([member], np.empty((3, 0), int), LIVER_SPLEEN_AORTA).shape == (0, 4)
