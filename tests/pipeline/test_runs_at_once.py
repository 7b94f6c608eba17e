"""Folds, plans and trainings that do not fit each other, or run at the same time."""

from __future__ import annotations

import json
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle_home import DATASET, MODEL, HomeFactory, write_oracle_dataset

from autoseg import cli
from autoseg.data.images import read_label, write_label
from autoseg.pipeline import EnsembleSettings, PlanSettings, TrainSettings, plan_and_preprocess, train, train_ensemble, training
from autoseg.preprocessing.preprocess import RECIPE, Recipe, recipe_of
from autoseg.preprocessing.storage import Store
from autoseg.runtime.hardware import StepCost
from autoseg.runtime.locks import exclusive_lock
from autoseg.runtime.provenance import value_id
from autoseg.runtime.runs import Run
from autoseg.runtime.serialization import read_json, write_json
from autoseg.runtime.workspace import Workspace
from autoseg.schema import Plan

ORACLE = {"network": "oracle_home:Oracle", "iterations": 2, "batch": 1, "device": "cpu"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoseg.trainers.run_setup.measure_step", lambda job, device: StepCost(0.01, 1))
    monkeypatch.setattr("autoseg.trainers.history.plot_history", lambda rows, path: path.touch())


def plan_again(home: Path, **settings: Any) -> Plan:
    return plan_and_preprocess(1, PlanSettings(configurations=("3d_fullres",), workers=0, **settings), home=home)


def train_fold(home: Path, fold: int, **settings: Any) -> None:
    train(1, "3d_fullres", fold, TrainSettings(**ORACLE, **settings), home=home)


def correct(home: Path, case: str) -> None:
    file = home / "raw" / DATASET / "labelsTr" / f"{case}.nii.gz"
    label = read_label(file)
    array = label.array.copy()
    array[tuple(np.argwhere(array == 1)[0])] = 0
    write_label(file, array, label.geometry)


def test_folds_that_were_exchanged_after_a_training_are_refused(oracle_home: HomeFactory) -> None:
    home = oracle_home()
    path = home / "preprocessed" / DATASET / "splits.json"
    splits = read_json(path, list)
    splits[0], splits[1] = splits[1], splits[0]
    path.write_text(json.dumps(splits))
    message = r"splits\.json: fold 0: expected the cases that .*fold_0 was started with.*Put the former folds back"
    with pytest.raises(ValueError, match=message):
        plan_again(home)
    with pytest.raises(ValueError, match=message):
        train_fold(home, 1)
    train_fold(home, 0, restart=True)


def test_folds_of_a_cascade_wait_for_the_first_stage_that_one_of_them_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_oracle_dataset(tmp_path / "raw" / DATASET)
    plan_and_preprocess(1, PlanSettings(configurations=("3d_lowres", "3d_cascade"), force_lowres=True, workers=0), home=tmp_path)
    first, started = Run(tmp_path / "results" / DATASET / "3d_lowres__Trainer__oracle_home.Oracle" / "fold_0"), threading.Event()

    def hold() -> None:
        with exclusive_lock(first.folder, "training"):
            started.set()
            time.sleep(0.5)

    asked: list[str] = []
    monkeypatch.setattr(training, "prepare_previous", lambda *_: None)
    own = training.train

    def noted(which: str, configuration: str, fold: str, settings: TrainSettings, **options: Any) -> Any:
        asked.append(f"{configuration} {fold}")
        assert not holder.is_alive()

    monkeypatch.setattr(training, "train", noted)
    holder = threading.Thread(target=hold)
    holder.start()
    started.wait()
    with pytest.raises(ValueError):  # without what the first stage predicted
        own(1, "3d_cascade", 0, TrainSettings(**ORACLE), home=tmp_path)
    assert asked[0] == "3d_lowres 0"


def test_a_corrected_label_map_changes_no_data_whose_normalisation_reads_no_statistics(oracle_home: HomeFactory) -> None:
    home = oracle_home()
    store = Store(home / "preprocessed" / DATASET / "3d_fullres")
    before = {path: path.stat().st_mtime_ns for path in store.folder.glob("c[13]*")}
    held_out = Run(home / "results" / DATASET / MODEL[3] / "fold_0").record().split
    correct(home, "c2")
    plan_again(home)
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    assert held_out
    train_fold(home, 1)


def test_statistics_count_where_they_are_read_and_the_message_names_the_label_maps(oracle_home: HomeFactory) -> None:
    home = oracle_home()
    plan = Workspace(home).plan(DATASET)
    one = plan.configurations["3d_fullres"]
    other = replace(plan, intensities=(replace(plan.intensities[0], mean=-7.0),))
    for scheme, same in {"nonorm": True, "zscore": True, "window:400:40": True, "ct": False, "my:scheme": False}.items():
        configuration = replace(one, normalization=(scheme,))
        assert (recipe_of(plan, configuration) == recipe_of(other, configuration)) == same, scheme


def test_data_of_an_earlier_version_is_not_made_again(oracle_home: HomeFactory) -> None:
    """Its recipe held all statistics."""
    home = oracle_home()
    plan = Workspace(home).plan(DATASET)
    store = Store(home / "preprocessed" / DATASET / "3d_fullres")
    now = read_json(store.folder / RECIPE, Recipe)
    former = replace(now, intensities=plan.intensities)
    write_json(store.folder / RECIPE, former)
    for name in store.names():
        record = store.load(name).record
        settings = {**record.made_from.settings, "recipe": value_id(former)}
        store.write_record(name, replace(record, made_from=replace(record.made_from, settings=settings)))
    before = {path: path.stat().st_mtime_ns for path in store.folder.glob("c*")}
    plan_again(home)
    assert {path: path.stat().st_mtime_ns for path in store.folder.glob("c*")} == before


@pytest.mark.parametrize("change", ["spacing", "label"])
def test_planning_replaces_no_data_under_a_training(oracle_home: HomeFactory, change: str) -> None:
    home = oracle_home()
    run = Run(home / "results" / DATASET / MODEL[3] / "fold_0")
    before = Workspace(home).plan(DATASET)
    if change == "label":
        correct(home, run.record().split.train[0])
    options = {"spacing": (2.5, 1.6, 1.4)} if change == "spacing" else {}
    with (
        exclusive_lock(run.folder, "training"),
        pytest.raises(ValueError, match="fold_0: another process is training .*Planning with other .* under that training"),
    ):
        plan_again(home, **options)
    assert Workspace(home).plan(DATASET) == before
    plan_again(home, **options)


def test_an_ensemble_whose_case_failed_is_no_success(oracle_home: HomeFactory, capsys: pytest.CaptureFixture[str]) -> None:
    home = oracle_home()
    train_ensemble(1, EnsembleSettings(kind="argmax", device="cpu", allow_code=("oracle_home",)), home=home)
    (folder,) = (home / "results" / DATASET).glob("ensemble__*/fold_0")
    shutil.copyfile(folder / "validation" / "scores.json", folder / "validation" / "kept.json")
    write_json(Run(folder).failures_file, {"c9": "not there"})
    command = ["1", "--kind", "argmax", "--device", "cpu", "--allow-code", "oracle_home", "--home", str(home)]
    assert cli.train_ensemble(command) == 0  # it was tried again
    held_out = Run(folder).record().split.val[0]
    (home / "raw" / DATASET / "labelsTr" / f"{held_out}.nii.gz").write_bytes(b"broken")
    Run(folder).case_scores(held_out).unlink()
    Run(folder).scores_file.unlink()
    capsys.readouterr()
    assert cli.train_ensemble(command) != 0
