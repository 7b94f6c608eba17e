"""Stored cases that ensembles are trained on: made from what was kept, made again when that has changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from factories import CASES, ORGANS, make_plan, write_store

from autoseg.data.label_subsets import subset_labels
from autoseg.ensembling.stacked_cases import Stacks, write_joined, write_stacks
from autoseg.ensembling.stacking import Layout
from autoseg.inference.logits import Logits
from autoseg.inference.quantised_logits import save_logits
from autoseg.networks.combiners import MAX_LOG_RATIO
from autoseg.preprocessing.storage import Store

LAYOUT = Layout(("one", "two"), (subset_labels(ORGANS, ("ball",)), ORGANS), ORGANS.names)
FOLDS = {"a": "0", "b": "1"}


def say(results: Path, data: Path, *, sure: float = 20.0) -> None:
    """Both models see the ball where it is; in fold 1 the second one sees it everywhere."""
    for case, fold in FOLDS.items():
        stored = Store(data).load(case)
        ball = np.asarray(stored.segmentation[:]) == 1
        for name, labels in zip(LAYOUT.members, LAYOUT.labels, strict=True):
            seen = np.ones_like(ball) if (name, fold) == ("two", "1") else ball
            others = [np.full(ball.shape, -sure)] * (len(labels.names) - 1)
            logits = np.stack([np.zeros(ball.shape), np.where(seen, sure, -sure), *others])
            save_logits(results / name / f"fold_{fold}" / "validation", case, Logits(torch.from_numpy(logits), stored.trace), labels)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_store(tmp_path / "data", make_plan())
    return tmp_path / "data"


def test_each_case_is_stacked_from_its_own_fold_with_labels_and_places_of_organs(tmp_path: Path, data: Path) -> None:
    say(tmp_path, data)
    write_stacks(FOLDS, tmp_path, Stacks(LAYOUT, data), tmp_path / "out")
    store, source = Store(tmp_path / "out"), Store(data)
    assert store.names() == ["a", "b"]
    for case in FOLDS:
        stored, original = store.load(case), source.load(case)
        labels = np.asarray(stored.segmentation[:])
        assert np.array_equal(labels, np.asarray(original.segmentation[:]))
        assert {key: value.tolist() for key, value in stored.locations.items()} == {k: v.tolist() for k, v in original.locations.items()}
        image = np.asarray(stored.image[:], np.float32)
        assert np.allclose(image[0], np.where(labels == 1, 2 * MAX_LOG_RATIO, 0), atol=0.01)
        assert np.allclose(image[1], np.where((labels == 1) | (case == "b"), 2 * MAX_LOG_RATIO, 0), atol=0.01)
        assert np.allclose(image[2], np.where((labels == 1) | (case == "b"), MAX_LOG_RATIO, 0), atol=0.01)


def test_what_is_there_stays_and_what_was_said_anew_is_stacked_anew(tmp_path: Path, data: Path) -> None:
    say(tmp_path, data)
    write_stacks(FOLDS, tmp_path, Stacks(LAYOUT, data), tmp_path / "out")
    files = {name: (tmp_path / "out" / f"{name}.image.b2nd").stat().st_mtime_ns for name in FOLDS}
    write_stacks(FOLDS, tmp_path, Stacks(LAYOUT, data), tmp_path / "out")
    assert {name: (tmp_path / "out" / f"{name}.image.b2nd").stat().st_mtime_ns for name in FOLDS} == files
    say(tmp_path, data, sure=1.0)
    write_stacks(FOLDS, tmp_path, Stacks(LAYOUT, data), tmp_path / "out")
    assert np.asarray(Store(tmp_path / "out").load("a").image[:]).max() == pytest.approx(MAX_LOG_RATIO + 1, abs=0.05)


def test_missing_predictions_and_other_grids_are_named(tmp_path: Path, data: Path) -> None:
    say(tmp_path, data)
    write_store(tmp_path / "other", make_plan(), shape=(10, 14, 18))
    with pytest.raises(ValueError, match="a: models of one ensemble disagree|a: the grid of its predictions"):
        write_stacks(FOLDS, tmp_path, Stacks(LAYOUT, tmp_path / "other"), tmp_path / "out")
    (tmp_path / "two" / "fold_0" / "validation" / "a.trace.json").unlink()
    with pytest.raises(ValueError, match=r"two/fold_0/validation/a.trace.json: missing"):
        write_stacks(FOLDS, tmp_path, Stacks(LAYOUT, data), tmp_path / "out")
    assert Store(tmp_path / "out").names() == []


def test_cases_seen_in_several_ways_are_joined(tmp_path: Path, data: Path) -> None:
    write_store(tmp_path / "other", make_plan(channels=("T1", "T2")))
    write_joined(CASES[:2], [data, tmp_path / "other"], tmp_path / "out")
    for case in CASES[:2]:
        joined, one, other = (np.asarray(Store(folder).load(case).image[:]) for folder in (tmp_path / "out", data, tmp_path / "other"))
        assert np.array_equal(joined, np.concatenate([one, other]))
    write_store(tmp_path / "coarse", make_plan(), shape=(5, 14, 16))
    with pytest.raises(ValueError, match="a: expected the same grid everywhere, found|a: expected the same grid in"):
        write_joined(CASES[:2], [data, tmp_path / "coarse"], tmp_path / "out")
