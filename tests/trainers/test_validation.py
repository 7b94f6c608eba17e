"""Validation on whole volumes: one bad case is named and does not hold up the others."""

from __future__ import annotations

import logging
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from factories import make_job, make_plan, write_dataset, write_previous

from autoseg.data.datasets import load_dataset
from autoseg.inference.volume_predictor import Volume
from autoseg.preprocessing.storage import Store
from autoseg.runtime.serialization import read_json
from autoseg.trainers.run_options import RunFolders
from autoseg.trainers.validation import validate_fold


@pytest.fixture
def dataset(tmp_path):
    return load_dataset(write_dataset(tmp_path / "raw" / "Dataset001_Tiny"))


validate = partial(validate_fold, job=make_job(make_plan()), progress=False)


def predictor(*failing: str) -> SimpleNamespace:
    """Predicts background everywhere; fails for some cases."""

    def logits(volume: Volume, **_: object) -> torch.Tensor:
        if volume.case in failing:
            raise MemoryError("too large")
        return torch.zeros(3, *volume.image.shape[1:])

    return SimpleNamespace(logits=logits)


def test_all_cases_are_scored_and_not_again(folders: RunFolders, dataset):
    scores = validate(predictor(), folders=folders, dataset=dataset)
    assert [(score.case, score.organ) for score in scores] == [(case, organ) for case in "cd" for organ in ("ball", "block")]
    assert str(validate(predictor(*"cd"), folders=folders, dataset=dataset)) == str(scores)
    assert {"hd95_surface", "assd_border", "chaos"} <= scores[0].other.keys()


def test_seconds_of_every_case_are_kept(folders: RunFolders, dataset):
    validate(predictor("d"), folders=folders, dataset=dataset)
    timings = folders.run / "validation" / "timings.json"
    (first,) = read_json(timings, dict).items()
    assert first[0] == "c" and first[1] >= 0
    validate(predictor(), folders=folders, dataset=dataset)
    assert read_json(timings, dict).keys() == {"c", "d"} and read_json(timings, dict)["c"] == first[1]


def test_a_case_that_was_not_preprocessed_is_left_out_by_name(folders: RunFolders, dataset, caplog):
    Store(folders.data).remove("c")
    with caplog.at_level(logging.WARNING):
        assert {score.case for score in validate(predictor(), folders=folders, dataset=dataset)} == {"d"}
    assert "could not be prepared: c" in caplog.text
    assert (folders.run / "validation" / "scores.json").is_file()


def test_a_case_without_previous_stage_is_left_out_by_name(cascade_folders: RunFolders, dataset, caplog):
    write_previous(cascade_folders.previous, cascade_folders.data)
    (cascade_folders.previous / "d.b2nd").unlink()
    with caplog.at_level(logging.WARNING):
        scores = validate(predictor(), folders=cascade_folders, dataset=dataset)
    assert {score.case for score in scores} == {"c"}
    assert "could not be prepared: d" in caplog.text


def test_a_case_that_fails_is_named_and_tried_again_next_time(folders: RunFolders, dataset, caplog):
    failures = folders.run / "validation" / "failures.json"
    with caplog.at_level(logging.ERROR):
        assert {score.case for score in validate(predictor("c"), folders=folders, dataset=dataset)} == {"d"}
    assert "c could not be validated: not enough memory for this case: too large" in caplog.text
    assert read_json(failures, dict) == {"c": "not enough memory for this case: too large"}
    assert {score.case for score in validate(predictor("d"), folders=folders, dataset=dataset)} == {"c", "d"}
    assert not failures.exists()


def test_where_every_case_fails_there_are_no_scores(folders: RunFolders, dataset):
    with pytest.raises(RuntimeError, match="not one of 2 cases could be validated; the first reason: not enough memory"):
        validate(predictor("c", "d"), folders=folders, dataset=dataset)
    assert not (folders.run / "validation" / "scores.json").exists()
