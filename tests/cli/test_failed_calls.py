"""Calls that fail leave no folder behind: neither in the home nor where their output would have been."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
from ensemble_models import NAME, add_model, planned_once, right
from factories import write_volume

from autoseg import cli

planned = pytest.fixture(scope="module")(planned_once)

CALLS = {
    "check": ["99", "nowhere", "3 --repair"],
    "merge": ["-d 3 99 -o 9", "-d 3 4 -o 3", "-d 3 4 -o 9 --name bad/name", "-d 3 4 -o 9 --map x:y=z"],
    "plan_and_preprocess": [
        *("-d 99", "-d nowhere", "-d 3 -c 7d", "-d 4 -c 7d", "-d 4 --preset nope", "-d 4 --memory 0", "-d 4 --plan-from 99", "-d 5"),
        *("-d 4 --preset conze2021 --normalization nope", "-d 4 --normalization nope", "-d 6", "-d 4 --spacing 1 1 1 1"),
    ],
    "train": [
        *("99 2d 0", "4 2d 0 --iterations 1", "3 7d 0", "3 2d 9", "3 2d 0 --network nope", "3 2d 0 --trainer nope", "3 2d 0 --organs nope"),
        *(
            "3 2d 0 --loss nope",
            "3 2d 0 --training-option nope=1",
            "3 2d 0 --pretrained nowhere",
            "3 2d 0 --time 0",
            "3 2d 0 --device cuda",
        ),
        *(
            "3 2d 0 --trainer-option nope=1",
            "3 2d 0 --network-option nope=1",
            "3 2d 0 --pseudo-labels",
            "3 3d_cascade 0",
            "3 2d 0 --tag a/b",
        ),
        *("3 2d 0 --preset nope", "3 2d 0 --training-option batch_size=-1", "3 2d 0 --seed x"),
        *(
            "3 2d 0 --training-option optimizer=nope",
            "3 2d 0 --training-option schedule=nope",
            "3 2d 0 --tag new --training-option patch_size=1",
        ),
    ],
    "train_ensemble": [
        *("99 --kind argmax", "3 --kind nope", "3 --kind argmax --members nope", "3 --kind argmax --folds 9", "3 --kind logits --folds 3"),
        *("3 --kind vote", "3 --kind argmax --organs nope", "3 --kind argmax --share 2", "3 --kind multi --choose-by nope"),
        *("3 --kind argmax --device cuda", "3 --kind logits --iterations 0", "3 --kind fusion --members 2d__Trainer__ball --folds 7"),
    ],
    "find_best_configuration": [
        "99",
        "4",
        "3 --rule nope",
        "3 --metric nope",
        "3 --max-members 0",
        "3 --max-seconds 0",
        "3 --postprocess x=y",
    ],
    "predict": [
        *("-i nowhere -o new/out", "-i {image} -o new/out -d 99", "-i {image} -o new/out -c nope", "-i {image} -o new/out --folds 9"),
        *("-i {image} -o new/out --postprocess x=y", "-i {image} -o new/out --device cuda", "-i {image} -o new/out --ending .doc"),
        *("-i {bad} -o new/out --no-tta", "-i {bad} -o new/out.nii.gz", "-i {home}/raw -o new/out", "-i {image} -o new/out -m nowhere"),
        *(
            "-i {image} -o new/out --step 7",
            "--watch nowhere -o new/out",
        ),
        *("-i {bad} -o new/out --uncertainty --save-probabilities", "-i nowhere/*.gz -o new/out", "-i {image} -o new/out -d 4"),
    ],
    "evaluate": [
        *("-r nowhere -p {labels}", "-r {labels} -p nowhere --json new/x.json", "-r {labels} -p {images} --csv new/x.csv"),
        *("-r {labels} -p {labels} --metrics nope --json new/x.json", "-r {labels} -p {labels} --tolerance nope=1 --csv new/x.csv"),
        *(
            "-r {labels} -p {labels} -d 99 --json new/x.json",
            "-r {labels} -p {labels} --json new/x.nii.gz",
            "-r {bad} -p {bad} --csv new/x.csv",
        ),
    ],
    "overlay": [
        *("-i nowhere -p {labels} -o new/out", "-i {images} -p nowhere -o new/out", "-i {images} -p {labels} -o new/out -d 99"),
        *(
            "-i {images} -p {labels} -o new/out --channel 7",
            "-i {bad} -p {label} -o new/out.png",
            "-i {images} -p {images} -r {labels} -o new/o",
        ),
        *("-i {image} -p {label} -o new/out.doc", "-i {bad} -p {label} -o new/out"),
    ],
    "report": [
        "99",
        "4",
        "99 -o new/report.html",
        "4 -o new/report.html",
        "3 --cases -1 -o new/report.html",
    ],
    "run": [
        "99",
        "4 -c 7d",
        "4 --preset nope",
        "3 --folds 9",
        "4 --organs nope",
        "4 --network nope",
        "5",
        "4 --device cuda",
        "4 --pretrained nowhere",
    ],
    "networks": ["nope"],
    "demo": ["-o new/demo --time 0", "-o new/demo --seed x"],
}
"""Command to arguments with which it fails; dataset 3 is trained, 4 is only there, 5 has damaged images, 6 has no label."""


@pytest.fixture(scope="module")
def home(planned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    add_model(planned, {"ball": right()}, folds="01")
    for number in (4, 5, 6):
        shutil.copytree(planned / "raw" / NAME, planned / "raw" / f"Dataset00{number}_Other")
    for path in (planned / "raw" / "Dataset005_Other" / "imagesTr").iterdir():
        path.write_bytes(gzip.compress(b"no image"))
    for path in (planned / "raw" / "Dataset006_Other" / "labelsTr").iterdir():
        path.unlink()
    write_volume(planned / "bad.nii.gz", np.zeros((4, 4, 4)))
    (planned / "bad.nii.gz").write_bytes(gzip.compress(b"no image"))
    return planned


def folders(*roots: Path) -> set[Path]:
    return {path for root in roots for path in root.rglob("*") if path.is_dir()}


SLOW = {"-d 4 -c 7d", "-d 4 --spacing 1 1 1 1", "-d 5", "3 2d 0 --network-option nope=1", "5"}
"""They start processes."""


@pytest.mark.parametrize(
    ("command", "arguments"),
    [pytest.param(name, one, marks=[pytest.mark.slow] * (one in SLOW)) for name, some in CALLS.items() for one in some],
)
def test_a_failed_call_leaves_no_folder(
    command: str, arguments: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    raw = home / "raw" / NAME
    places = {"images": raw / "imagesTr", "labels": raw / "labelsTr", "image": raw / "imagesTs" / "case_10_0000.nii.gz"}
    places |= {"label": raw / "labelsTr" / "case_0.nii.gz", "bad": home / "bad.nii.gz", "home": home}
    before = folders(home, tmp_path)
    words = [word.format(**places) for word in arguments.split()]
    try:
        status = getattr(cli, command)([*words, *(["--home", str(home)] if command not in ("networks", "demo") else [])])
    except SystemExit as end:
        status = end.code
    assert status, capsys.readouterr()
    new = folders(home, tmp_path) - before
    left = [path for path in new if not any(one.is_file() for one in path.rglob("*"))]
    assert not left, capsys.readouterr().err
