"""Killed in the middle, and the same command again: the job is finished, with the result of an undisturbed run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import story_data as data
import torch

from autoseg import cli
from autoseg.data.images import read_label, write_image
from autoseg.preprocessing.storage import Store
from autoseg.runtime.checkpoints import load_checkpoint
from autoseg.runtime.locks import exclusive_lock
from autoseg.runtime.runs import FINAL_CHECKPOINT, LATEST_CHECKPOINT

DATASET = "Dataset003_Tiny"
PLAN = ("plan_and_preprocess", "-d", "3", "-c", "2d", "--memory", "0.2GB", "--workers", "1")
TRAIN = ("train", "3", "2d", "0", "--iterations", "75", "--seed", "5", "--batch", "2", "--device", "cpu")
PATIENCE = 90.0
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def in_own_process(home: Path, command: tuple[str, ...]) -> subprocess.Popen:
    code = f"import sys; from autoseg.cli import {command[0]}; sys.exit({command[0]}())"
    arguments = [sys.executable, "-c", code, *command[1:], "--home", str(home)]
    return subprocess.Popen(arguments, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8")


def kill_when(home: Path, command: tuple[str, ...], reached: Callable[[], bool]) -> None:
    """Starts a command and sends it SIGKILL as soon as `reached` says so."""
    process = in_own_process(home, command)
    end = time.monotonic() + PATIENCE
    try:
        while not reached():
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < end, "the moment to kill never came"
            time.sleep(0.002)
    finally:
        process.kill()
        process.communicate()


def finish(home: Path, command: tuple[str, ...]) -> str:
    """Runs a command to its end in a process of its own; returns its messages."""
    process = in_own_process(home, command)
    messages = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 0, messages
    return messages


def undisturbed(home: Path, command: tuple[str, ...]) -> None:
    assert getattr(cli, command[0])([*command[1:], "--home", str(home)]) == 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder whose 2d model was trained without disturbance."""
    home = tmp_path_factory.mktemp("undisturbed")
    data.make_volumes(home / "raw" / DATASET)
    torch.set_num_threads(1)
    undisturbed(home, PLAN)
    undisturbed(home, TRAIN)
    return home


def copy_of(home: Path, target: Path, *parts: str) -> Path:
    for part in parts:
        shutil.copytree(home / part, target / part)
    return target


# Preprocessing


def larger_cases(home: Path) -> Path:
    """Ten cases that take a while, each with a spacing of its own, so that they must be resampled."""
    folder = home / "raw" / DATASET
    for number in range(10):
        image, labels, geometry = data.draw_case(number, (24, 96, 96))
        spacing = (2.5, 0.8 + 0.05 * number, 0.8 + 0.03 * number)
        geometry = type(geometry)(geometry.shape, spacing, geometry.origin, geometry.direction)
        write_image(folder / "imagesTr" / f"case_{number}_0000.nii.gz", image[None], geometry)
        data.write_label(folder / "labelsTr" / f"case_{number}.nii.gz", labels, geometry)
    data.write_description(folder)
    return folder


@pytest.mark.slow
def test_killed_preprocessing_goes_on(tmp_path: Path) -> None:
    disturbed, reference = tmp_path / "disturbed", tmp_path / "reference"
    larger_cases(disturbed)
    shutil.copytree(disturbed / "raw", reference / "raw")
    stored = disturbed / "preprocessed" / DATASET / "2d"
    kill_when(disturbed, PLAN, lambda: len(Store(stored).names()) >= 2)
    finished = Store(stored).names()
    assert 2 <= len(finished) < 10
    before = data.snapshot(stored)
    messages = finish(disturbed, PLAN)
    after = data.snapshot(stored)
    complete = [name for name in before if any(name.startswith(f"{case}.") for case in finished)]
    assert all(after[name] == before[name] for name in complete), f"finished cases are not made again: {messages}"
    undisturbed(reference, PLAN)
    assert data.leftovers(disturbed) == []
    assert set(after) == set(data.snapshot(reference / "preprocessed" / DATASET / "2d"))
    for number in range(10):
        one, other = (Store(home / "preprocessed" / DATASET / "2d").load(f"case_{number}") for home in (disturbed, reference))
        assert np.array_equal(one.image[:], other.image[:])
        assert np.array_equal(one.segmentation[:], other.segmentation[:])
        assert all(np.array_equal(one.locations[key], other.locations[key]) for key in other.locations)
    plans = [(home / "preprocessed" / DATASET / "plan.json").read_bytes() for home in (disturbed, reference)]
    assert plans[0] == plans[1]


# Training


def same_training(one: Path, other: Path) -> None:
    """Weights, learning curve and validation of two runs are equal to the last bit."""
    weights = [load_checkpoint(run / FINAL_CHECKPOINT)[0]["network"] for run in (one, other)]
    assert weights[0].keys() == weights[1].keys()
    different = [name for name in weights[0] if not torch.equal(weights[0][name], weights[1][name])]
    assert different == []
    tables = [[line.rpartition(",")[0] for line in (run / "history.csv").read_text().splitlines()] for run in (one, other)]
    assert tables[0] == tables[1], "all columns but the last, seconds"
    assert len(tables[0]) == 1 + 3
    assert (one / "validation" / "scores.json").read_text() == (other / "validation" / "scores.json").read_text()
    assert set(data.snapshot(one)) == set(data.snapshot(other))


MOMENTS = {
    "before the first checkpoint": lambda run: (run / "run.json").is_file(),
    "after the first checkpoint": lambda run: (run / LATEST_CHECKPOINT).is_file(),
    "while validating": lambda run: any((run / "validation").glob("case_*.json")),
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_training_goes_on_with_equal_weights(trained: Path, tmp_path: Path, moment: str) -> None:
    home = copy_of(trained, tmp_path, "raw", "preprocessed")
    run = home / "results" / DATASET / "2d__Trainer" / "fold_0"
    kill_when(home, TRAIN, lambda: MOMENTS[moment](run))
    assert not (run / "validation" / "scores.json").exists()
    assert (run / FINAL_CHECKPOINT).exists() == (moment == "while validating")
    messages = finish(home, TRAIN)
    assert ("Going on at " in messages) == (moment == "after the first checkpoint"), messages
    assert data.leftovers(home) == []
    same_training(run, trained / "results" / DATASET / "2d__Trainer" / "fold_0")


def test_a_run_that_is_being_trained_is_refused(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = copy_of(trained, tmp_path, "raw", "preprocessed")
    with exclusive_lock(home / "results" / DATASET / "2d__Trainer" / "fold_0", "training"):
        assert cli.train([*TRAIN[1:], "--home", str(home)]) == 2
    assert "another process is training here" in capsys.readouterr().err


# Prediction


@pytest.mark.slow
def test_killed_prediction_goes_on(trained: Path, tmp_path: Path) -> None:
    home = copy_of(trained, tmp_path, "results")
    new = home / "new"
    for number in range(8):
        image, _, geometry = data.draw_case(20 + number, (16, 40, 40))
        write_image(new / f"new_{number}_0000.nii.gz", image[None], geometry)
    command = ("predict", "-i", str(new), "-o", str(home / "out"), "--save-probabilities", "--no-tta", "--device", "cpu")
    kill_when(home, command, lambda: len(list((home / "out").glob("new_*.nii.gz"))) >= 3)
    done = sorted(path.name for path in (home / "out").glob("new_*.nii.gz"))
    assert len(done) < 8
    before = data.snapshot(home / "out")
    finish(home, command)
    after = data.snapshot(home / "out")
    # The last one may have been written but not yet noted: it is made again, the others are not.
    assert all(after[name] == before[name] for name in done[:-1])
    assert data.leftovers(home) == []
    undisturbed(home, (*command[:4], str(home / "reference"), *command[5:]))
    assert set(after) == set(data.snapshot(home / "reference"))
    for number in range(8):
        one, other = (read_label(home / out / f"new_{number}.nii.gz") for out in ("out", "reference"))
        assert np.array_equal(one.array, other.array)
        assert one.geometry == other.geometry
        shares = [np.load(home / out / f"new_{number}_probabilities.npy") for out in ("out", "reference")]
        assert np.array_equal(*shares)
