"""Predictions with a temperature, averaged, on another grid and at single points, against the same on whole arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from factories import ORGANS, REGIONS, labels, make_geometry, whole_trace

from autoseg.inference.export import export_labels, probabilities
from autoseg.inference.lazy_logits import in_order_of, lazy_mean, on_first_grid, with_temperature
from autoseg.inference.log_odds import StoredLogOdds
from autoseg.inference.logits import Logits
from autoseg.inference.quantised_logits import quantise, quantise_8_bits
from autoseg.schema import Labels, Trace


def make_trace(grid: tuple[int, ...] = (4, 5, 6)) -> Trace:
    """A file of 8 x 12 x 10 voxels, cropped by preprocessing, turned and resampled."""
    return Trace("case", make_geometry((8, 12, 10)), (2, 0, 1), (10, 8, 12), ((1, 9), (0, 8), (2, 12)), grid, (2.0, 1.6, 1.7), flips=(0, 2))


def make_logits(seed: int = 0, trace: Trace | None = None, *, outputs: int = 3) -> Logits:
    trace = trace or make_trace()
    values = np.random.default_rng(seed).normal(0, 3, (outputs, *trace.shape)).astype(np.float16)
    return Logits(torch.from_numpy(values), trace)


def whole(members: list[Logits], labels: Labels = ORGANS) -> np.ndarray:
    return np.concatenate([slab for _, slab in probabilities(members, labels)], axis=1)


def test_logits_are_divided_and_not_changed() -> None:
    logits = make_logits()
    before = logits.array.clone()
    cool = with_temperature(logits, 2.5, ORGANS)
    np.testing.assert_allclose(cool.array[:, 1:3], before[:, 1:3].float().numpy() / 2.5, rtol=1e-6)
    assert torch.equal(logits.array, before)
    assert with_temperature(logits, 1.0, ORGANS) is logits


@pytest.mark.parametrize("labels", [ORGANS, REGIONS])
def test_stored_probabilities_get_what_the_logits_would_get(labels: Labels) -> None:
    logits = make_logits(outputs=labels.n_outputs)
    stored = Logits(quantise_8_bits(logits.array, labels), logits.trace, kind="probability8")
    expected = quantise_8_bits(logits.array.float() / 2, labels)
    precise = stored.array.min(axis=0) > 3  # so small probabilities are known too roughly
    found = with_temperature(stored, 2.0, labels).array[:, :]
    assert precise.any()
    np.testing.assert_allclose(found[:, precise], expected[:, precise], atol=12)
    assert not found[stored.array == 0].any(), "0 stays 0"


@pytest.mark.parametrize("temperature", [0.5, 2.0, 5.0])
@pytest.mark.parametrize("outputs", [2, 3])
def test_of_stored_log_odds_a_temperature_makes_what_it_makes_of_the_logits(outputs: int, temperature: float) -> None:
    """Also where a model is sure: 7 and 12 are 1 in eight bits, and stay apart at every temperature."""
    of = ORGANS if outputs == 3 else labels(liver=1)
    logits = make_logits(outputs=outputs)
    logits.array[-1, 0, :3] = torch.tensor([7.0, 12.0, 20.0])[:, None]
    logits.array[:-1, 0, :3] = torch.tensor([0.0, -30.0])[: outputs - 1, None, None]
    stored = Logits(StoredLogOdds(quantise(logits.array, of)), logits.trace, "probability8")
    expected = with_temperature(logits, temperature, of).array[:]
    expected = torch.softmax(torch.from_numpy(expected), 0).numpy()
    found = with_temperature(stored, temperature, of).array[:] / 255
    np.testing.assert_allclose(1 - found[-1, 0, :3], 1 - expected[-1, 0, :3], rtol=0.02, atol=2e-7)
    organ = (expected[1:].max(axis=0) > 0.5) & (outputs == 2)  # of three classes the one that is left may be too small to be stored
    np.testing.assert_allclose(found[:, organ].max(axis=0), expected[:, organ].max(axis=0), atol=0.01)


def test_the_label_map_of_one_model_does_not_change_but_its_confidence_does() -> None:
    logits = make_logits()
    colder = with_temperature(logits, 3.0, ORGANS)
    assert np.array_equal(export_labels([logits], ORGANS), export_labels([colder], ORGANS))
    assert whole([colder]).max(axis=0).mean() < whole([logits]).max(axis=0).mean() - 0.08


def test_mean_of_folds_is_the_mean_of_their_logits() -> None:
    folds = [make_logits(seed) for seed in range(3)]
    expected = sum(one.array.float() for one in folds) / 3
    np.testing.assert_allclose(lazy_mean(folds).array[:, :, 2:4], expected[:, :, 2:4].numpy(), rtol=1e-5, atol=1e-6)
    assert lazy_mean(folds[:1]) is folds[0]
    with pytest.raises(ValueError, match=r"case: .*\(3, 4, 5, 6\)"):
        lazy_mean([folds[0], make_logits(1, make_trace((4, 4, 4)))])


def test_the_first_grid_shows_its_own_probabilities_and_the_others_interpolated() -> None:
    one, other = make_logits(), make_logits(1, make_trace((8, 9, 7)))
    alone = whole(on_first_grid([one]))
    np.testing.assert_allclose(alone, torch.softmax(one.array.float(), 0).numpy(), atol=1e-6)
    assert whole(on_first_grid([one, other])).shape == alone.shape
    flat = Trace("photo", make_geometry((5, 6)), (0, 1), (1, 5, 6), ((0, 1), (0, 5), (0, 6)), (1, 4, 4), (1.25, 1.5))
    assert whole(on_first_grid([make_logits(2, flat)])).shape == (3, 1, 4, 4)


def test_channels_in_the_order_of_other_labels() -> None:
    array = np.arange(4 * 24, dtype=np.uint8).reshape(4, 2, 3, 4)
    logits = Logits(torch.as_tensor(array), whole_trace((2, 3, 4)), kind="probability8")
    found = in_order_of(logits, labels(a=1, b=2, c=3), labels(c=1, a=2))
    np.testing.assert_array_equal(found.array[:, 1:, :2], array[[0, 3, 1, 2], 1:, :2])
    assert found.array.shape == array.shape
    assert in_order_of(logits, labels(a=1, b=2, c=3), labels(a=7, c=5)).array is not array, "c before b, which is unknown"
    assert in_order_of(logits, labels(a=1, b=2, c=3), labels(a=7, b=8, c=9)) is logits
