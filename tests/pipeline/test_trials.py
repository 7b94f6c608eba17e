"""A trial of a short training, its validation later, and the same training on until it had more time: all with `autoseg_train`."""

from __future__ import annotations

import json
import shutil

import oracle_home as oracle
import pytest

from autoseg import cli
from autoseg.pipeline import TrainSettings, train
from autoseg.runtime.hardware import StepCost
from autoseg.runtime.runs import ModelFolder
from autoseg.trainers.trial import read_trial

SETTINGS = {"network": "oracle_home:Oracle", "device": "cpu", "batch": 1}


@pytest.fixture
def run(oracle_home, monkeypatch, no_pictures):
    """Fold 1 of the oracle, not started."""
    monkeypatch.setattr("autoseg.trainers.run_setup.measure_step", lambda job, device: StepCost(0.01, 1))
    home = oracle_home()
    shutil.rmtree(home / "results" / oracle.DATASET / oracle.MODEL[3])
    return ModelFolder(home / "results" / oracle.DATASET / oracle.MODEL[3]).run("1")


def home_of(run):
    return run.folder.parents[3]


def test_a_trial_scores_patients_and_leaves_the_fold_to_be_validated(run):
    first = train(1, "3d_fullres", 1, TrainSettings(seconds=0.2, fitted_seconds=60, trial=1, **SETTINGS), home=home_of(run))
    trial = read_trial(run)
    assert trial is not None and trial.patients == 1 and len(trial.patient_of) == 1 and trial.scores == first
    assert trial.trained_seconds >= 0.2 and all(score.dice > 0.99 for score in first) and set(trial.case_seconds) == set(trial.patient_of)
    assert run.is_trained and not run.is_validated and run.record().settings.trial is None
    train(1, "3d_fullres", 1, TrainSettings(seconds=0.2, **SETTINGS), home=home_of(run))
    assert run.is_finished


def test_training_on_replaces_networks_validation_and_record(run, capsys, caplog):
    train(1, "3d_fullres", 1, TrainSettings(seconds=0.2, **SETTINGS), home=home_of(run))
    before = run.checkpoint.read_bytes()
    words = ["1", "3d_fullres", "1", "--network", "oracle_home:Oracle", "--device", "cpu", "--home", str(home_of(run))]
    assert cli.train([*words, "--time", "2s", "--longer"]) == 0
    assert run.checkpoint.read_bytes() != before and run.is_finished
    record = run.record()
    assert record.budget.amount == 2 and record.earlier_budgets == (0.2,) and record.settings.seconds == 2
    stamp = json.loads(next(run.validation.glob("*.scores.stamp.json")).read_text())
    assert "network" in json.dumps(stamp)
    assert cli.train([*words, "--time", "2s", "--longer"]) == 0
    assert "is finished already" in caplog.text
    assert cli.train([*words, "--longer"]) == 2
    assert "add --time 2h" in capsys.readouterr().err
