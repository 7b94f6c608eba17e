"""The label map of a choice: averages, temperatures and organs of different models, against the same written down plainly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from factories import GRIDS, LIVER_SPLEEN_AORTA, blobs, make_geometry, regions

from autoseg.data.label_subsets import subset_labels
from autoseg.inference.apply_selection import apply_selection
from autoseg.inference.export import probabilities
from autoseg.inference.lazy_logits import with_temperature
from autoseg.inference.log_odds import StoredLogOdds
from autoseg.inference.logits import Logits
from autoseg.inference.quantised_logits import quantise
from autoseg.schema import Calibration, Choice, Trace

TEMPERATURES = {"a": 1.0, "b": 1.6, "c": 2.5, "only": 0.7}
MEMBER_LABELS = {
    "a": LIVER_SPLEEN_AORTA,
    "b": LIVER_SPLEEN_AORTA,
    "c": LIVER_SPLEEN_AORTA,
    "only": subset_labels(LIVER_SPLEEN_AORTA, ("spleen",)),
}


def predictions_of(case: str) -> dict[str, Logits]:
    """Models that agree roughly; `only` knows the spleen alone."""
    found = {}
    for seed, (name, labels) in enumerate(MEMBER_LABELS.items()):
        array = blobs(GRIDS[case].shape, 4, seed=0).astype(np.float32) + 0.5 * blobs(GRIDS[case].shape, 4, seed=seed + 1)
        array = array if labels is LIVER_SPLEEN_AORTA else array[[0, 2]]
        found[name] = Logits(StoredLogOdds(quantise(array, labels)), GRIDS[case], "probability8")
    return found


def choice_of(**organs: tuple[str, ...]) -> Choice:
    calibration = {name: Calibration(temperature) for name, temperature in TEMPERATURES.items()}
    return Choice(organs, ("0",), {}, 0, calibration=calibration)


def plainly(predictions: dict[str, Logits], choice: Choice) -> tuple[np.ndarray, int]:
    """All probabilities everywhere: each candidate's winner, and of organs that claim a voxel the most probable."""
    claims, shares = [], []
    for organ, members in choice.organs.items():
        labels = MEMBER_LABELS[members[0]]
        seen = [with_temperature(predictions[name], TEMPERATURES[name], labels) for name in members]
        mean = np.concatenate([slab for _, slab in probabilities(seen, labels)], axis=1)
        channel = 1 + labels.names.index(organ)
        claims.append(mean.argmax(0) == channel)
        shares.append(np.where(claims[-1], mean[channel], -1))
    values = np.array([LIVER_SPLEEN_AORTA.internal_members[LIVER_SPLEEN_AORTA.names.index(organ)][0] for organ in choice.organs])
    winner = values[np.argmax(shares, axis=0)]
    return np.where(np.any(claims, axis=0), winner, 0), int((np.sum(claims, axis=0) > 1).sum())


def test_of_two_sure_organs_the_surer_wins_in_validation_as_in_prediction():
    """Logits of 7 and 12 are both 1 in eight bits: with a temperature too, the surer organ wins, not the one that stands first."""
    labels = {name: subset_labels(LIVER_SPLEEN_AORTA, (name,)) for name in ("liver", "spleen")}
    choice = Choice({name: (name,) for name in labels}, ("0",), {}, 0, calibration={name: Calibration(2.0) for name in labels})
    live = {}
    for name, confidence in (("liver", 7.0), ("spleen", 12.0)):
        array = np.zeros((2, *GRIDS["finer"].shape), np.float32)
        array[1] = confidence
        live[name] = Logits(torch.from_numpy(array), GRIDS["finer"])
    stored = {name: Logits(StoredLogOdds(quantise(one.array, labels[name])), one.trace, "probability8") for name, one in live.items()}
    for predictions in (live, stored):
        found, conflicts = apply_selection(predictions, choice, labels, LIVER_SPLEEN_AORTA)
        assert conflicts and set(np.unique(found)) == {0, *LIVER_SPLEEN_AORTA.internal_members[1]}


@pytest.mark.parametrize("case", ["finer", "slices", "turned", "flat"])
@pytest.mark.parametrize(
    "organs",
    [
        {"liver": ("a", "b"), "spleen": ("a", "b", "c"), "aorta": ("b", "c")},
        {"liver": ("a", "b"), "spleen": ("only",), "aorta": ("c",)},
        {"liver": ("b",), "spleen": ("b",), "aorta": ("a",)},
        {"liver": ("a", "b", "c"), "spleen": ("a", "b", "c"), "aorta": ("a", "b", "c")},
    ],
    ids=["averages", "a model of one organ", "single models", "one average"],
)
def test_it_is_what_all_probabilities_give(case, organs):
    predictions, choice = predictions_of(case), choice_of(**organs)
    found, conflicts = apply_selection(predictions, choice, MEMBER_LABELS, LIVER_SPLEEN_AORTA)
    expected, contested = plainly(predictions, choice)
    expected = expected[0] if GRIDS[case].geometry.dim == 2 and expected.ndim == 3 else expected
    assert found.shape == GRIDS[case].geometry.shape
    # Equal probabilities in eight bits are decided by rounding.
    assert np.count_nonzero(found != expected) <= 0.002 * found.size
    assert abs(conflicts - contested) <= 0.002 * found.size
    assert conflicts > 0 or len(set(choice.organs.values())) == 1 or case == "flat"
    assert set(np.unique(found)) == {0, 1, 2, 3}


def test_a_choice_without_the_region_that_is_painted_last_keeps_those_inside_of_others():
    labels = regions(core=(1,), whole=(1, 2), mark=(1,), order=(1, 2, 1))
    shape = (1, 1, 3)
    trace = Trace("c", make_geometry(shape, (1, 1, 1)), (0, 1, 2), shape, ((0, 1), (0, 1), (0, 3)), shape, (1.0, 1.0, 1.0))
    inside = {"core": [0, 0, 1], "whole": [0, 1, 1]}
    array = {name: np.array(voxels, np.float32).reshape(1, *shape) * 18 - 9 for name, voxels in inside.items()}
    predictions = {name: Logits(torch.from_numpy(one), trace) for name, one in array.items()}
    members = {name: subset_labels(labels, (name,)) for name in inside}
    found, _ = apply_selection(predictions, Choice({name: (name,) for name in inside}, ("0",), {}, 0), members, labels)
    assert found.ravel().tolist() == [0, 2, 1]
