"""What the second stage of a cascade is given: for every case the prediction of the fold that held it out, on the second stage's grid."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import ORGANS, labels, make_plan, write_store

from autoseg.data.images import read_label, write_label
from autoseg.preprocessing.storage import Store, read_array, write_array
from autoseg.runtime.provenance import Stamp
from autoseg.runtime.serialization import write_json
from autoseg.schema import Split
from autoseg.trainers.cascade.out_of_fold import cases_without_prediction, folds_that_validate, prepare_previous

SPLITS = [Split(("c", "d"), ("a", "b [1]*")), Split(("a", "b [1]*"), ("c", "d"))]
NAMES = ("a", "b [1]*", "c", "d")
FOLDS = folds_that_validate(SPLITS)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The second stage's preprocessed cases."""
    return write_store(tmp_path / "fullres", make_plan(), NAMES).folder


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


@pytest.fixture
def prepare(model: Path, data: Path) -> Callable[..., Path]:
    return lambda names=NAMES, plan=None: prepare_previous(model, FOLDS, names, data, plan or make_plan(), progress=False)


def values(folder: Path, name: str) -> set[int]:
    return set(np.unique(read_array(folder / f"{name}.b2nd")[:]).tolist())


def test_each_case_has_the_prediction_of_the_fold_that_did_not_train_on_it(model, data, prepare):
    predict(model, "1", "a", data, 0)  # a leftover of other folds
    out = prepare()
    assert {name: values(out, name) for name in NAMES} == {"a": {1}, "b [1]*": {1}, "c": {2}, "d": {2}}


def test_predictions_of_fold_all_do_not_count(model, data):
    (model / "fold_1" / "validation" / "c.scores.json").unlink()
    assert cases_without_prediction(model, FOLDS, NAMES) == ["c"]
    assert cases_without_prediction(model, {}, ["a"]) == ["a"]


def test_a_case_without_prediction_is_named_and_left_out(model, data, prepare, caplog):
    prepare()
    (model / "fold_1" / "validation" / "c.scores.json").unlink()
    with caplog.at_level(logging.WARNING):
        out = prepare()
    assert "left out of the second stage: c" in caplog.text
    assert sorted(path.name for path in out.glob("*.b2nd")) == ["a.b2nd", "b [1]*.b2nd", "d.b2nd"]
    with pytest.raises(ValueError, match="no cross-validation prediction of any of the 1 cases"):
        prepare(["c"])


def test_what_is_still_right_is_kept(model, data, prepare):
    out = prepare()
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    for path in (*data.iterdir(), *(model / "fold_0" / "validation").iterdir()):
        os.utime(path, ns=(4 * 10**18, 4 * 10**18))
    prepare()
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before, "times say nothing"


@pytest.mark.parametrize("what", ["prediction", "data", "grid", "damaged"])
def test_what_is_no_longer_right_is_made_again(model, data, prepare, what):
    target = prepare(["a"]) / "a.b2nd"
    assert [path.name for path in target.parent.glob("*.b2nd")] == ["a.b2nd"], "only what is wanted"
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
    prepare(["a"])
    assert values(target.parent, "a") == ({2} if what == "prediction" else {1})
    assert read_array(target).shape[1:] == Store(data).load("a").trace.shape


def test_more_than_255_organs_are_told_apart(model, data, prepare):
    many = make_plan(labels=labels(**{f"organ {value}": value for value in range(1, 301)}))
    validation = model / "fold_0" / "validation"
    geometry = Store(data).load("a").trace.geometry
    write_label(validation / "a.nii.gz", np.full(geometry.shape, 300, np.uint16), geometry)
    assert values(prepare(["a"], many), "a") == {300}
