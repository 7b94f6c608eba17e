"""A whole study on small images: two configurations, two folds, trials, a learned ensemble, and the choice; then interrupted ones."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from factories import write_dataset

from autoseg import cli
from autoseg.pipeline import study_world
from autoseg.runtime.serialization import read_json
from autoseg.schema import Choice
from autoseg.study import timetable
from autoseg.study.record import StudyRecord

NAME = "Dataset003_Balls"
WORDS = ("-c", "2d", "3d_fullres", "--memory", "0.3GB", "--batch", "2", "--device", "cpu", "--workers", "1")
pytestmark = pytest.mark.slow


def home_of(folder: Path) -> Path:
    write_dataset(folder / "raw" / NAME, [f"case_{number}" for number in range(20)])  # four of them held out: enough to compare by
    return folder


def record_of(home: Path) -> StudyRecord:
    return read_json(home / "results" / NAME / "study.json", StudyRecord)


def test_trials_folds_a_learned_ensemble_and_the_choice_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = home_of(tmp_path)
    monkeypatch.setattr(study_world, "ENSEMBLE_SHARE", 1.0)  # of a longer night it is a small share
    monkeypatch.setattr(timetable, "LEAST_SECONDS", 30.0)
    monkeypatch.setattr(timetable, "LEAST_TRIAL_SHARE", 2.0)
    began = time.monotonic()
    assert cli.run(["3", "--total", "7m", "--folds", "0", "1", *WORDS, "--home", str(home)]) == 0
    seconds, record = time.monotonic() - began, record_of(home)
    assert record.is_finished and not record.failed and set(record.trials) == {"2d", "3d_fullres"}
    assert seconds < 1.1 * 420
    results = home / "results" / NAME
    (ensemble,) = results.glob("ensemble__*")
    assert {path.name for path in ensemble.glob("fold_?")} == {"fold_0", "fold_1"}
    assert any(ensemble.name in name for name in read_json(results / "choice.json", Choice).table)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_study_goes_on_with_the_time_that_is_left(how: int, tmp_path: Path) -> None:
    home = home_of(tmp_path)
    command = [sys.executable, "-m", "autoseg", "run", "3", "--total", "100s", "--folds", "0", *WORDS, "--home", str(home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=dict(os.environ)) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if re.search(rb"Training ends at", line):
                break
        time.sleep(4)
        child.send_signal(how)
        said = child.stdout.read().decode()
    assert child.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[how], said
    spent = record_of(home).spent
    assert 5 < spent < 100 and not record_of(home).is_finished
    began = time.monotonic()
    subprocess.run(command, check=True)
    assert record_of(home).is_finished and time.monotonic() - began < 1.1 * (100 - spent) + 10
    assert (home / "results" / NAME / "choice.json").is_file()
