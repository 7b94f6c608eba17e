"""A disk that takes nothing more fails every case alike: it ends the command, and no case is counted as a bad one for it."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from unittest.mock import Mock

import pytest
from oracle_home import CONFIGURATION, DATASET, MODEL, HomeFactory, oracle_case

from autoseg import cli
from autoseg.data.images import write_image
from autoseg.runtime.disk import WriteError

STAGES = {
    "predict": ("autoseg.inference.prediction._predict_case", ["-i", "{data}/imagesTr", "-o", "{out}"]),
    "train": ("autoseg.trainers.validation._validate_case", ["1", CONFIGURATION[3], "0", "--network", "oracle_home:Oracle"]),
    "overlay": ("autoseg.report.overlays._draw", ["-i", "{data}/imagesTr", "-r", "{data}/labelsTr", "-o", "{out}"]),
    "report": ("autoseg.report.collect.draw_case", ["1", "-o", "{out}/report.html"]),
}
"""Command to the function that works on a case, and the command's arguments."""


@pytest.mark.parametrize("stage", STAGES)
def test_a_full_disk_is_no_bad_case(
    oracle_home: HomeFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    home = oracle_home()
    if stage == "train":
        shutil.rmtree(home / "results" / DATASET / MODEL[3] / "fold_0" / "validation")
    if stage == "predict":
        image, _, geometry = oracle_case(9)
        write_image(home / "raw" / DATASET / "imagesTr" / "new_0000.nii.gz", image[None], geometry)
    function, arguments = STAGES[stage]
    full = Mock(side_effect=WriteError(errno.ENOSPC, "x.png: cannot be written: the disk / is full"))
    monkeypatch.setattr(function, full)
    places = {"data": home / "raw" / DATASET, "out": tmp_path / "out"}
    more = ["--home", str(home), *([] if stage == "overlay" else ["--allow-code", "oracle_home"])]
    assert cli.main([stage, *(argument.format(**places) for argument in arguments), *more]) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("error: x.png: cannot be written: the disk / is full")
    assert full.call_count == 1
