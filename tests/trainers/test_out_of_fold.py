"""What the second stage of a cascade is given: for every case the prediction of the fold that held it out, on the second stage's grid."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import ORGANS

from autoseg.data.images import read_label, write_label
from autoseg.preprocessing.storage import Store, read_array, write_array
from autoseg.runtime.provenance import Stamp
from autoseg.runtime.serialization import write_json
from autoseg.schema import Labels, Split
from autoseg.trainers.cascade.out_of_fold import cases_without_prediction, folds_that_validate, prepare_previous

SPLITS = [Split(("c", "d"), ("a", "b [1]*")), Split(("a", "b [1]*"), ("c", "d"))]
NAMES = ("a", "b [1]*", "c", "d")
FOLDS = folds_that_validate(SPLITS)


@pytest.fixture
def plan(tiny_plan):
    return tiny_plan()


@pytest.fixture
def data(tmp_path: Path, plan) -> Path:
    """The second stage's preprocessed cases."""
    from factories import write_store

    return write_store(tmp_path / "fullres", plan, NAMES).folder


def predict(model: Path, fold: str, name: str, data: Path, value: int) -> None:
    """Leaves a fold's validation of a case: one organ everywhere."""
    geometry = Store(data).load(name).trace.geometry
    write_label(model / f"fold_{fold}" / "validation" / f"{name}.nii.gz", np.full(geometry.shape, value, np.uint8), geometry)
    write_json(model / f"fold_{fold}" / "validation" / f"{name}.scores.json", [])


@pytest.fixture
def model(tmp_path: Path, data: Path) -> Path:
    """Fold 0 found a ball everywhere, fold 1 a block; fold all, which was trained on every case, found nothing."""
    folder = tmp_path / "3d_lowres__Trainer"
    for name in NAMES:
        predict(folder, "all", name, data, 0)
        predict(folder, FOLDS[name], name, data, 2 if FOLDS[name] == "0" else 5)
    return folder


def values(folder: Path, name: str) -> set[int]:
    return set(np.unique(read_array(folder / f"{name}.b2nd")[:]).tolist())


def test_each_case_has_the_prediction_of_the_fold_that_did_not_train_on_it(model, data, plan):
    predict(model, "1", "a", data, 0)  # a leftover of other folds
    out = prepare_previous(model, FOLDS, NAMES, data, plan, progress=False)
    assert {name: values(out, name) for name in NAMES} == {"a": {1}, "b [1]*": {1}, "c": {2}, "d": {2}}


def test_predictions_of_fold_all_do_not_count(model, data):
    (model / "fold_1" / "validation" / "c.scores.json").unlink()
    assert cases_without_prediction(model, FOLDS, NAMES) == ["c"]
    assert cases_without_prediction(model, {}, ["a"]) == ["a"]


def test_a_case_without_prediction_is_named_and_left_out(model, data, plan, caplog):
    prepare_previous(model, FOLDS, NAMES, data, plan, progress=False)
    (model / "fold_1" / "validation" / "c.scores.json").unlink()
    with caplog.at_level(logging.WARNING):
        out = prepare_previous(model, FOLDS, NAMES, data, plan, progress=False)
    assert "left out of the second stage: c" in caplog.text
    assert sorted(path.name for path in out.glob("*.b2nd")) == ["a.b2nd", "b [1]*.b2nd", "d.b2nd"]
    with pytest.raises(ValueError, match="no cross-validation prediction of any of the 1 cases"):
        prepare_previous(model, FOLDS, ["c"], data, plan, progress=False)


def test_only_the_wanted_cases_are_prepared(model, data, plan):
    out = prepare_previous(model, FOLDS, ["a"], data, plan, progress=False)
    assert [path.name for path in out.glob("*.b2nd")] == ["a.b2nd"]


def test_what_is_still_right_is_kept(model, data, plan):
    out = prepare_previous(model, FOLDS, NAMES, data, plan, progress=False)
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    for path in (*data.iterdir(), *(model / "fold_0" / "validation").iterdir()):
        os.utime(path, ns=(4 * 10**18, 4 * 10**18))
    prepare_previous(model, FOLDS, NAMES, data, plan, progress=False)
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before, "times say nothing"


@pytest.mark.parametrize("what", ["prediction", "data", "grid", "damaged"])
def test_what_is_no_longer_right_is_made_again(model, data, plan, what):
    target = prepare_previous(model, FOLDS, ["a"], data, plan, progress=False) / "a.b2nd"
    write_array(target, np.full(Store(data).load("a").segmentation.shape, 7, np.uint8)[None])
    if what == "prediction":
        path = model / "fold_0" / "validation" / "a.nii.gz"
        found = read_label(path)
        write_label(path, np.full_like(found.array, ORGANS.members[1][0]), found.geometry)
    elif what == "data":
        record = Store(data).load("a").record
        Store(data).write_record("a", replace(record, made_from=Stamp({"label": "of today"})))
    elif what == "grid":
        write_array(target, np.full((1, 3, 4, 5), 7, np.uint8))
    else:
        target.write_bytes(b"half")
    prepare_previous(model, FOLDS, ["a"], data, plan, progress=False)
    assert values(target.parent, "a") == ({2} if what == "prediction" else {1})
    assert read_array(target).shape[1:] == Store(data).load("a").trace.shape


def test_more_than_255_organs_are_told_apart(model, data, tiny_plan):
    many = tiny_plan(labels=Labels(tuple(f"organ {value}" for value in range(1, 301)), tuple((value,) for value in range(1, 301))))
    validation = model / "fold_0" / "validation"
    geometry = Store(data).load("a").trace.geometry
    write_label(validation / "a.nii.gz", np.full(geometry.shape, 300, np.uint16), geometry)
    out = prepare_previous(model, FOLDS, ["a"], data, many, progress=False)
    assert values(out, "a") == {300}
