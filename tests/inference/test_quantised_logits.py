"""Eight-bit probabilities: how far off they may be, and their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from factories import ORGANS, REGIONS, whole_trace

from autoseg.inference import quantised_logits as quantised
from autoseg.inference.logits import Logits
from autoseg.inference.quantised_logits import has_logits, load_logits, quantise, save_logits

TRACE = whole_trace((5, 6, 7))


def some_logits(channels: int) -> torch.Tensor:
    return 4 * torch.randn(channels, 5, 6, 7, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("labels", [ORGANS, REGIONS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_no_probability_is_off_by_more_than_half_a_unit(labels, dtype):
    logits = some_logits(labels.n_outputs).to(dtype)
    exact = logits.double().sigmoid() if labels.regions else logits.double().softmax(0)
    found = quantise(logits, labels)
    assert found.dtype == np.uint8
    assert np.abs(found / 255 - exact.numpy()).max() <= 1 / 510 + 1e-6


@pytest.mark.parametrize("slab", [1, 100, 10**9])
def test_the_size_of_a_slab_changes_nothing(monkeypatch, slab):
    expected = quantise(some_logits(3), ORGANS)
    monkeypatch.setattr(quantised, "SLAB", slab)
    np.testing.assert_array_equal(quantise(some_logits(3), ORGANS), expected)


def test_numpy_and_certain_logits():
    logits = np.zeros((3, 1, 1, 3), np.float16)
    logits[0, ..., 0], logits[2, ..., 1] = 60000, 60000
    assert quantise(logits, ORGANS)[:, 0, 0].tolist() == [[255, 0, 85], [0, 0, 85], [0, 255, 85]]


def test_saved_logits_are_loaded_again(tmp_path: Path):
    save_logits(tmp_path, "case.1", Logits(some_logits(3), TRACE), ORGANS)
    found = load_logits(tmp_path, "case.1")
    assert found.kind == "probability8"
    assert found.trace == TRACE
    np.testing.assert_array_equal(found.array[:], quantise(some_logits(3), ORGANS))


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
