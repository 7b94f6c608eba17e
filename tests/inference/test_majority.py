"""Models that vote instead of being averaged, against counting their own label maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from factories import GRIDS, LIVER_SPLEEN_AORTA, REGIONS, blobs

from autoseg.inference.averages import average_all
from autoseg.inference.export import export_labels, to_file_order
from autoseg.inference.logits import Logits
from autoseg.schema import Labels

NAMES = ("a", "b", "c")


def predictions(case: str, labels: Labels) -> dict[str, Logits]:
    """Models that disagree in many places."""
    shape, count = GRIDS[case].shape, labels.n_outputs
    arrays = [blobs(shape, count, seed=0) + 0.9 * blobs(shape, count, seed=seed) for seed in (1, 2, 3)]
    return {name: Logits(torch.from_numpy(array.astype(np.float32)), GRIDS[case]) for name, array in zip(NAMES, arrays, strict=True)}


@pytest.mark.parametrize("case", ["finer", "slices", "turned", "flat"])
def test_the_majority_of_label_maps_and_the_mean_where_all_differ(case: str) -> None:
    models = predictions(case, LIVER_SPLEEN_AORTA)
    alone = np.stack([export_labels([one], LIVER_SPLEEN_AORTA) for one in models.values()])
    mean = export_labels(list(models.values()), LIVER_SPLEEN_AORTA)
    votes = np.stack([(alone == value).sum(0) for value in range(4)])
    clear = votes.max(0) > 1
    found = export_labels(list(models.values()), LIVER_SPLEEN_AORTA, vote=True)
    assert np.array_equal(found[clear], votes.argmax(0)[clear])
    had_votes = ~clear & (alone == mean).any(0)
    assert np.mean(found[had_votes] != mean[had_votes]) < 0.002, "but for rounding"
    assert (alone == found).any(0).all(), "nobody gets a voxel without a vote"
    assert np.any(found != mean) and not clear.all()


@pytest.mark.parametrize("labels", [LIVER_SPLEEN_AORTA, REGIONS])
def test_candidates_are_judged_by_the_votes_that_predict(labels: Labels) -> None:
    models, groups = predictions("finer", labels), [("a", "b"), ("a", "b", "c")]
    together = average_all(models, groups, labels, vote=True)
    for members in groups:
        found = to_file_order(together.label_map(members), models["a"].trace)
        assert np.array_equal(found, export_labels([models[name] for name in members], labels, vote=True))
