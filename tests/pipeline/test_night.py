"""A whole study on the phantom with real processes: killed in the middle, it goes on, and leaves what `autoseg_predict` follows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autoseg import cli
from autoseg.data.phantom.dataset import make_phantom
from autoseg.runtime.runs import model_folders
from autoseg.runtime.serialization import read_json
from autoseg.schema import Choice
from autoseg.study.record import STUDY, StudyRecord

pytestmark = pytest.mark.slow

NAME = "Dataset900_Phantom"
TOTAL = 150.0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a study was killed in its first training, started again, and ended."""
    home = tmp_path_factory.mktemp("night")
    make_phantom(home / "raw" / NAME, n_train=12, n_test=1, seed=0, size=0.25)
    words = [
        sys.executable,
        "-m",
        "autoseg",
        "run",
        "900",
        "--total",
        f"{TOTAL:.0f}s",
        "--folds",
        "0",
        "--device",
        "cpu",
        "--home",
        str(home),
    ]
    with (home / "said.txt").open("wb") as said:
        first = subprocess.Popen(words, stdout=said, stderr=said)
        history = home / "results" / NAME / "2d__Trainer" / "fold_0" / "run.json"
        began = time.monotonic()
        while not history.exists() and first.poll() is None and time.monotonic() - began < 300:
            time.sleep(0.2)
        time.sleep(3)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        assert subprocess.run(words, stdout=said, stderr=said, check=False).returncode == 0, (home / "said.txt").read_text()[-2000:]
    return home


def test_it_ends_in_time_with_a_choice(home):
    record = read_json(home / "results" / NAME / STUDY, StudyRecord)
    assert record.is_finished and not record.failed
    assert record.spent > 0.85 * TOTAL
    if os.getloadavg()[0] < (os.cpu_count() or 1):  # else others take the time of the processes that start
        assert record.spent < 1.15 * TOTAL
    choice = read_json(home / "results" / NAME / "choice.json", Choice)
    assert choice.folds == ("0",) and choice.organs


def test_what_was_trained_on_is_one_run_that_was_annealed_more_than_once(home):
    finals = [model.run("0") for model in model_folders(home / "results" / NAME) if model.run("0").is_finished]
    assert finals
    for run in finals:
        record = run.record()
        assert record.budget.kind == "time" and not run.latest_checkpoint.exists()
        assert list(record.earlier_budgets) == sorted(record.earlier_budgets)


def test_its_models_predict(home, capsys):
    assert cli.predict(["-i", str(home / "raw" / NAME / "imagesTs"), "-o", str(home / "out"), "--home", str(home), "--device", "cpu"]) == 0
    assert len(list((home / "out").glob("*.nii.gz"))) == 1


def test_the_same_command_has_nothing_to_do(home, caplog):
    words = ["900", "--total", f"{TOTAL:.0f}s", "--folds", "0", "--device", "cpu", "--home", str(home)]
    assert cli.run(words) == 0
    assert "This study is finished" in caplog.text
