"""Stored predictions: how far off they may be, what they tell apart, and their files, also those of earlier versions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from factories import ORGANS, REGIONS, labels, regions, whole_trace

from autoseg.inference import quantised_logits as quantised
from autoseg.inference.log_odds import LOG_ODDS_STEPS, StoredLogOdds
from autoseg.inference.logits import Logits
from autoseg.inference.quantised_logits import has_logits, load_logits, quantise, quantise_8_bits, save_logits
from autoseg.preprocessing.storage import write_array
from autoseg.runtime.serialization import write_json

TRACE = whole_trace((5, 6, 7))


def some_logits(channels: int) -> torch.Tensor:
    return 4 * torch.randn(channels, 5, 6, 7, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("labels", [ORGANS, REGIONS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_no_probability_is_off_by_more_than_half_a_unit(labels, dtype):
    logits = some_logits(labels.n_outputs).to(dtype)
    exact = logits.double().sigmoid() if labels.regions else logits.double().softmax(0)
    found = quantise_8_bits(logits, labels)
    assert found.dtype == np.uint8
    assert np.abs(found / 255 - exact.numpy()).max() <= 1 / 510 + 1e-6
    read = StoredLogOdds(quantise(logits, labels))[:] / 255
    assert np.abs(read - exact.numpy()).max() <= 1 / 510 + 1e-6
    told = (exact > 1 / 510).numpy() & (exact < 1 - 1 / 510).numpy()
    assert np.abs(read - exact.numpy())[told].max() <= 1 / 2040


@pytest.mark.parametrize("labels", [ORGANS, REGIONS])
def test_the_winner_is_that_of_the_logits_and_a_log_odds_is_off_by_half_a_step(labels):
    logits = 8 * torch.randn(labels.n_outputs, 40, 50, 60, generator=torch.Generator().manual_seed(1))
    stored = StoredLogOdds(quantise(logits, labels))
    exact = logits.double() if labels.regions else (logits.double().softmax(0)).logit()
    odds = stored.log_odds(np.s_[:])
    sure = np.where(np.isfinite(odds) & (exact.numpy() < 15), np.abs(odds - exact.numpy()), 0)[0 if labels.regions else 1 :]
    assert sure.max() <= 0.5 / LOG_ODDS_STEPS + 1e-3
    if labels.regions:
        assert np.mean((stored[:] > 127.5) != (logits > 0).numpy()) < 1e-3
    else:
        best, second = logits.topk(2, 0).values
        differ = stored[:].argmax(0) != logits.argmax(0).numpy()
        assert differ.mean() < 1e-4
        assert not (differ & (best - second > 0.004).numpy()).any(), "only what is as good as tied"


def test_models_that_are_sure_are_told_apart():
    """Logits 7 and 12 were one probability in eight bits; of background neither matters, and takes no room."""
    sure = torch.tensor([[0.0, 0.0, 7.0, 12.0], [7.0, 12.0, 0.0, 0.0]]).reshape(2, 1, 1, 4)
    one = labels(ball=1)
    eight, stored = quantise_8_bits(sure, one), StoredLogOdds(quantise(sure, one))
    assert eight[1, 0, 0].tolist() == [255, 255, 0, 0]
    np.testing.assert_allclose(stored.log_odds(np.s_[1, 0, 0]), [7, 12, -np.inf, -np.inf], atol=0.01)
    assert stored.codes[0, 0, 0].tolist() == [0, 0, 65535, 65535]
    assert stored[:, :, :, 2:].tolist() == [[[[255, 255]]], [[[0, 0]]]]


def test_contested_voxels_go_to_the_surer_model():
    """Two binary models claim a voxel; of these 53 % tied in eight bits, and half of those went to the wrong one."""
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(np.abs(rng.normal(0, 18, (2, 1, 1, 100_000))).astype(np.float32))
    whole = regions(one=(1,))
    eight = np.concatenate([quantise_8_bits(one[None], whole) for one in logits])
    told = np.concatenate([StoredLogOdds(quantise(one[None], whole)).log_odds(np.s_[:]) for one in logits])
    right = logits.argmax(0).numpy()
    assert np.mean(eight[0] == eight[1]) == pytest.approx(0.53, abs=0.01)
    assert np.mean(eight.argmax(0) != right) == pytest.approx(0.27, abs=0.01)
    assert np.mean(told[0] == told[1]) < 0.001
    assert np.mean(told.argmax(0) != right) < 0.001


@pytest.mark.parametrize("slab", [1, 100, 10**9])
def test_the_size_of_a_slab_changes_nothing(monkeypatch, slab):
    expected = quantise(some_logits(3), ORGANS)
    monkeypatch.setattr(quantised, "SLAB", slab)
    np.testing.assert_array_equal(quantise(some_logits(3), ORGANS), expected)


def test_numpy_and_certain_logits():
    logits = np.zeros((3, 1, 1, 3), np.float16)
    logits[0, ..., 0], logits[2, ..., 1] = 60000, 60000
    assert quantise_8_bits(logits, ORGANS)[:, 0, 0].tolist() == [[255, 0, 85], [0, 0, 85], [0, 255, 85]]
    found = StoredLogOdds(quantise(logits, ORGANS))[:, 0, 0]
    np.testing.assert_allclose(found, [[255, 0, 85], [0, 0, 85], [0, 255, 85]], atol=0.13)


def test_saved_logits_are_loaded_again(tmp_path: Path):
    save_logits(tmp_path, "case.1", Logits(some_logits(3), TRACE), ORGANS)
    found = load_logits(tmp_path, "case.1")
    assert found.kind == "probability8"
    assert found.trace == TRACE
    np.testing.assert_array_equal(found.array[:], StoredLogOdds(quantise(some_logits(3), ORGANS))[:])
    np.testing.assert_array_equal(found.array[:, 1:3], found.array[:][:, 1:3])
    assert found.array.shape == (3, 5, 6, 7)


def test_files_of_earlier_versions_are_read(tmp_path: Path):
    write_array(tmp_path / "a.b2nd", quantise_8_bits(some_logits(3), ORGANS))
    write_json(tmp_path / "a.trace.json", TRACE)
    found = load_logits(tmp_path, "a")
    assert found.kind == "probability8"
    np.testing.assert_array_equal(found.array[:], quantise_8_bits(some_logits(3), ORGANS))


def test_what_is_missing_or_damaged_is_named(tmp_path: Path):
    def refused(message: str) -> None:
        with pytest.raises(ValueError, match=message):
            load_logits(tmp_path, "a")

    assert not has_logits(tmp_path, "a")
    refused(r"a\.trace\.json: missing")
    save_logits(tmp_path, "a", Logits(some_logits(3), TRACE), ORGANS)
    assert has_logits(tmp_path, "a")
    (tmp_path / "a.b2nd").unlink()
    assert not has_logits(tmp_path, "a")
    refused(r"a\.b2nd: missing")
    (tmp_path / "a.b2nd").write_bytes(b"half")
    refused(r"a\.b2nd")
