"""The evidence for a choice: cases that are still there, and averages whose members' probabilities are."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from conftest import make_case, make_plan

from autoseg.inference.export import Logits
from autoseg.inference.quantised import keep
from autoseg.model import Geometry, Score, Trace
from autoseg.naming import FINAL_CHECKPOINT
from autoseg.pipeline import find_best_configuration
from autoseg.records import write_json

MODELS = ("2d__Trainer", "3d_fullres__Trainer")
DATASET = "Dataset001_Tiny"


@pytest.fixture
def home(tmp_path: Path, tiny_dataset) -> Path:
    """Two models, validated on cases a and b in fold 0, with what they said; the second is better."""
    plan = make_plan()
    tiny_dataset(tmp_path / "raw" / DATASET)
    write_json(tmp_path / "preprocessed" / DATASET / "plan.json", plan)
    for quality, model in enumerate(MODELS):
        fold = tmp_path / "results" / DATASET / model / "fold_0"
        scores = []
        for seed, name in enumerate("ab"):
            _, labels = make_case(seed)
            box = tuple((0, n) for n in labels.shape)
            geometry = Geometry(labels.shape, (2.0, 1.0, 1.0), (0.0,) * 3, tuple(np.eye(3).ravel()))
            trace = Trace(name, geometry, (0, 1, 2), labels.shape, box, labels.shape, geometry.spacing)
            logits = np.stack([(labels == value) * (1 + quality) for value in range(3)]).astype(np.float32)
            keep(fold / "validation", name, Logits(logits, trace), plan.labels)
            scores += [Score(name, organ, 0.5 + 0.1 * quality, 0.4, 10, 10) for organ in plan.labels.names]
        write_json(fold / "validation" / "scores.json", scores)
        (fold / FINAL_CHECKPOINT).touch()
    return tmp_path


def test_averages_are_judged_where_all_probabilities_are_there(home):
    choice = find_best_configuration(1, home=home)
    assert set(choice.table) == {*MODELS, " + ".join(MODELS)}
    assert choice.organs["ball"] == MODELS
    assert choice.cases == 2


@pytest.mark.parametrize("removed", ["a.b2nd", "b.trace.json"])
def test_averages_whose_probabilities_were_removed_are_left_out(home, caplog, removed):
    (home / "results" / DATASET / MODELS[0] / "fold_0" / "validation" / removed).unlink()
    with caplog.at_level(logging.WARNING):
        choice = find_best_configuration(1, home=home)
    assert set(choice.table) == set(MODELS)
    assert choice.organs["ball"] == MODELS[1:]
    assert choice.cases == 2
    assert f"Averages with {MODELS[0]} are not judged" in caplog.text


def test_cases_that_left_the_dataset_are_left_out(home, caplog):
    raw = home / "raw" / DATASET
    (raw / "imagesTr" / "b_0000.nii.gz").unlink()
    (raw / "labelsTr" / "b.nii.gz").unlink()
    with caplog.at_level(logging.WARNING):
        choice = find_best_configuration(1, home=home)
    assert choice.cases == 1
    assert len(choice.table) == 3
    assert "no longer in the dataset and left out: b" in caplog.text
