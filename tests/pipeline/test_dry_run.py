"""``--dry-run``: says what would be done, finds what is wrong as the command itself would, and leaves every file as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from oracle_home import DATASET, HomeFactory, oracle_case

from autoseg import cli
from autoseg.data.images import write_image

Printed = pytest.CaptureFixture[str]


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
