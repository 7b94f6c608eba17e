"""``--dry-run``: says what would be done, finds what is wrong as the command itself would, and leaves every file as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from oracle_home import DATASET, MODEL, HomeFactory, oracle_case

from autoseg import cli
from autoseg.data.images import write_image
from autoseg.pipeline import total_time
from autoseg.runtime.hardware import StepCost

Printed = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def measured_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(total_time, "predicted_step", lambda settings, spec, limit: StepCost(10.0, 1, tile_seconds=0.5))


def everything_below(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder, also hidden ones, with size and time of change."""
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.rglob("*"))}


def dry(command, *words: object, folder: Path, capsys: Printed) -> tuple[int, str]:
    """Exit status and output of a command with ``--dry-run``, after which everything is as before."""
    before = everything_below(folder)
    capsys.readouterr()
    status = command([*map(str, words), "--dry-run"])
    assert everything_below(folder) == before
    return status, " ".join(" ".join(capsys.readouterr()).split())


def put(folder: Path, *numbers: int) -> None:
    for number in numbers:
        image, _, geometry = oracle_case(number)
        write_image(folder / f"new_{number}_0000.nii.gz", image[None], geometry)


def test_prediction(oracle_home: HomeFactory, tmp_path: Path, capsys: Printed) -> None:
    home, images, out = oracle_home(), tmp_path / "in", tmp_path / "out"
    put(images, 5, 6)
    words = ("-i", images, "-o", out, "--home", home, "--device", "cpu")
    status, said = dry(cli.predict, *words, folder=tmp_path, capsys=capsys)
    assert status == 0
    assert f"2 cases with models of {DATASET}: organ1 by 3d_fullres" in said
    assert said.count("(new)") == 2 and f"{out / 'new_5.nii.gz'} (new)" in said and "New: " in said
    assert said.endswith("Nothing was written (--dry-run) ") or "Nothing was written (--dry-run)" in said
    assert cli.predict([*map(str, words)]) == 0
    put(images, 7)
    (images / "bad.nii.gz").write_bytes(b"no image")
    status, said = dry(cli.predict, *words, folder=tmp_path, capsys=capsys)
    assert status == 1
    assert said.count("(kept, as it is made from this image by these models)") == 2 and said.count("(new)") == 2
    assert "1 of 4 cases would fail: bad" in said
    status, said = dry(cli.predict, *words, "--step", "0.9", folder=tmp_path, capsys=capsys)
    assert said.count("(replaced)") == 2
    (out / "new_7.nii.gz").write_text("mine")
    status, said = dry(cli.predict, *words, folder=tmp_path, capsys=capsys)
    assert status == 2 and "autoseg_predict did not write it" in said
    assert dry(cli.predict, "--watch", images, "-o", out, folder=tmp_path, capsys=capsys)[0] == 2


def test_prediction_before_a_choice(oracle_home: HomeFactory, tmp_path: Path, capsys: Printed) -> None:
    home = oracle_home()
    (home / "results" / DATASET / "choice.json").unlink()
    put(tmp_path / "in", 5)
    words = ("-i", tmp_path / "in", "-o", tmp_path / "out", "--home", home, "--device", "cpu")
    status, said = dry(cli.predict, *words, folder=tmp_path, capsys=capsys)
    assert status == 0 and "would be chosen first" in said and f"{tmp_path / 'out' / 'new_5.nii.gz'} (new)" in said


ORACLE = ("--network", "oracle_home:Oracle", "--iterations", "3", "--batch", "1", "--device", "cpu")


def test_planning(oracle_home: HomeFactory, tmp_path: Path, capsys: Printed) -> None:
    home = oracle_home()
    words = ("-d", 1, "-c", "3d_fullres", "--workers", 0, "--home", home)
    status, said = dry(cli.plan_and_preprocess, *words, folder=home, capsys=capsys)
    assert status == 0
    assert "4 cases of 4 patients, 4 folds" in said and f"Replaced: {home / 'preprocessed' / DATASET / 'plan.json'}" in said
    assert "3d_fullres: all 4 cases are preprocessed already" in said
    status, said = dry(cli.plan_and_preprocess, *words, "--spacing", "x2", folder=home, capsys=capsys)
    assert status == 0 and "3d_fullres: 4 of 4 cases would be preprocessed" in said
    (home / "raw" / DATASET / "labelsTr" / "c3.nii.gz").unlink()
    status, said = dry(cli.plan_and_preprocess, *words, folder=home, capsys=capsys)
    assert status == 2 and "have changed since a training" in said, "as the command itself says"
    shutil.rmtree(home / "results")
    status, said = dry(cli.plan_and_preprocess, *words, folder=home, capsys=capsys)
    assert status == 1 and "1 of 4 cases would fail: c3" in said
    shutil.rmtree(home / "preprocessed")
    status, said = dry(cli.plan_and_preprocess, *words, folder=home, capsys=capsys)
    assert status == 1 and f"New: {home / 'preprocessed' / DATASET / 'plan.json'}" in said


def test_training(oracle_home: HomeFactory, capsys: Printed) -> None:
    home = oracle_home()
    words = (*ORACLE, "--home", home)
    status, said = dry(cli.train, 1, "3d_fullres", 0, *words, folder=home, capsys=capsys)
    assert status == 0 and "fold_0 is finished already; nothing would be done" in said
    status, said = dry(cli.train, 1, "3d_fullres", 0, *words, "--restart", folder=home, capsys=capsys)
    assert status == 0 and "Renamed: " in said
    status, said = dry(cli.train, 1, "3d_fullres", 1, *words, folder=home, capsys=capsys)
    assert "learns from 3 cases, is validated on 1 held-out ones" in said and "all 4 cases are preprocessed already" in said
    assert "Training: 3 iterations" in said and "on cpu" in said and "In all 1 training: 30 s of training, " in said
    assert f"New: {home / 'results' / DATASET / MODEL[3] / 'fold_1'}" in said
    for asked, message in (((1, "3d_fullres", 9), "fold: expected 0 to 3"), ((1, "4d", 0), "configuration"), ((2, "2d", 0), "dataset")):
        status, said = dry(cli.train, *asked, *words, folder=home, capsys=capsys)
        assert status == 2 and message in said


def test_everything(oracle_home: HomeFactory, capsys: Printed) -> None:
    home = oracle_home()
    words = (1, "-c", "3d_fullres", "--workers", 0, *ORACLE, "--home", home)
    status, said = dry(cli.run, *words, folder=home, capsys=capsys)
    assert status == 0
    assert f"{MODEL[3]}, fold 0: is finished already" in said and said.count("Training: 3 iterations") == 3
    assert "In all 4 trainings, of which 1 is finished: 90 s of training, about " in said and " of validation: done by about " in said
    assert f"Replaced: {home / 'results' / DATASET / 'choice.json'}" in said
    coarser, plan = (*words, "--spacing", 4, 4, 4), (home / "preprocessed" / DATASET / "plan.json").read_bytes()
    status, said = dry(cli.run, *coarser, folder=home, capsys=capsys)
    assert status == 2 and "was started with spacing" in said, "other folds of another spacing do not join fold 0"
    assert cli.run([*map(str, coarser)]) == 2 and (home / "preprocessed" / DATASET / "plan.json").read_bytes() == plan
    shutil.rmtree(home / "preprocessed")
    shutil.rmtree(home / "results")
    status, said = dry(cli.run, *words, "--folds", 0, 1, folder=home, capsys=capsys)
    assert status == 0 and "In all 2 trainings: 60 s of training" in said
    status, said = dry(cli.run, *words, "--time", "10m", "--iterations", 0, folder=home, capsys=capsys)
    assert status == 2
    status, said = dry(cli.run, *words, "--organs", "none", folder=home, capsys=capsys)
    assert status == 2 and "none" in said


def test_ensembles(oracle_home: HomeFactory, capsys: Printed) -> None:
    home = oracle_home()
    results = home / "results" / DATASET
    shutil.copytree(results / MODEL[3], results / f"{MODEL[3]}__other")
    words = (1, "--kind", "argmax", "--device", "cpu", "--home", home)
    status, said = dry(cli.train_ensemble, *words, folder=home, capsys=capsys)
    assert status == 0
    assert f"argmax of {MODEL[3]}" in said and "Fold 0 (validated on 1 cases): New: " in said
    status, said = dry(cli.train_ensemble, *words, "--members", "none", folder=home, capsys=capsys)
    assert status == 2 and "none" in said
