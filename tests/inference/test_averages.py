"""Many averages at once are the averages one by one."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from factories import GRIDS, LIVER_SPLEEN_AORTA, NESTED_REGIONS, blobs

from autoseg.inference.averages import average_all
from autoseg.inference.export import export_labels, to_file_order
from autoseg.inference.log_odds import StoredLogOdds
from autoseg.inference.logits import Logits
from autoseg.inference.quantised_logits import quantise

NAMES = ("a", "b", "c", "d")
ALL = [members for size in (1, 2, 3) for members in combinations(NAMES, size)]


def models(trace, labels, *, grids=None):
    """Models that agree on most things: one field, and noise."""
    found = {}
    for seed, name in enumerate(NAMES):
        grid = (grids or {}).get(name, trace)
        array = blobs(grid.shape, labels.n_outputs, seed=0).astype(np.float32) + 0.4 * blobs(grid.shape, labels.n_outputs, seed=seed + 1)
        found[name] = Logits(StoredLogOdds(quantise(array, labels)), grid, kind="probability8")
    return found


@pytest.mark.parametrize("labels", [LIVER_SPLEEN_AORTA, NESTED_REGIONS], ids=["organs", "regions"])
@pytest.mark.parametrize("case", GRIDS)
def test_each_average_is_that_of_the_export(case, labels):
    trace = GRIDS[case]
    predictions = models(trace, labels)
    together = average_all(predictions, ALL, labels)
    differing = 0
    for members in ALL:
        expected = export_labels([predictions[name] for name in members], labels)
        found = to_file_order(together.label_map(members), trace)
        assert found.dtype == expected.dtype and found.shape == expected.shape
        differing += np.count_nonzero(found != expected)
    # Probabilities in eight bits can be equal: then rounding decides, which depends on the order of the sums.
    assert differing <= 0.001 * len(ALL) * together.agreed.size
    assert 0 < len(together.disputed) < together.agreed.size
    assert not together.agreed.reshape(-1)[together.disputed].any()


def test_models_on_different_grids_and_slab_by_slab(monkeypatch):
    finer, same = GRIDS["finer"], replace(GRIDS["finer"], shape=(18, 23, 22), spacing=(1.0, 1.0, 1.0))
    predictions = models(finer, LIVER_SPLEEN_AORTA, grids={"b": same, "d": same})
    whole = average_all(predictions, ALL, LIVER_SPLEEN_AORTA)
    for members in ALL:
        expected = export_labels([predictions[name] for name in members], LIVER_SPLEEN_AORTA)
        assert np.count_nonzero(whole.label_map(members) != expected) <= 3
    monkeypatch.setattr("autoseg.inference.logits_grid.LABEL_SLAB", 2000)
    monkeypatch.setattr("autoseg.inference.logits_grid.CHUNK", 500)
    parts = average_all(predictions, ALL, LIVER_SPLEEN_AORTA)
    assert all(np.array_equal(parts.label_map(members), whole.label_map(members)) for members in ALL)


def test_models_that_agree_leave_no_dispute():
    only = models(GRIDS["finer"], LIVER_SPLEEN_AORTA)["a"]
    together = average_all(dict.fromkeys(NAMES, only), ALL, LIVER_SPLEEN_AORTA)
    assert len(together.disputed) == 0
    np.testing.assert_array_equal(together.agreed, export_labels([only], LIVER_SPLEEN_AORTA))
