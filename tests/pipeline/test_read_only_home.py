"""A home that this user may not write, as a group shares one: prediction needs nothing from it but reading."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle_home import DATASET, MODEL, HomeFactory, oracle_case

from autoseg.data.images import read_label, write_image, write_label
from autoseg.pipeline import (
    PlanSettings,
    PredictSettings,
    TrainSettings,
    find_best_configuration,
    plan_and_preprocess,
    predict_folder,
    train,
)
from autoseg.pipeline.choosing import choose_again
from autoseg.runtime.disk import WriteError
from autoseg.runtime.runs import Run


def make_read_only(home: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Refuses every file of `home` as the system does; root, who may write everywhere, would not be refused by rights alone."""
    replace, unlink, open_file = os.replace, Path.unlink, os.open

    def refuse(path: Path) -> None:
        if home in Path(path).parents:
            raise OSError(number, os.strerror(number), str(path))

    def opened(path: Any, flags: int, *further: Any, **options: Any) -> int:
        if flags & os.O_CREAT:
            refuse(Path(os.fsdecode(path)))
        return open_file(path, flags, *further, **options)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "replace", lambda source, target: (refuse(source), replace(source, target)))
    monkeypatch.setattr(Path, "unlink", lambda path, **options: (refuse(path), unlink(path, **options)))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
@pytest.mark.parametrize("model", [None, MODEL[3]])
def test_prediction_keeps_its_choice_in_memory(
    oracle_home: HomeFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
    model: str | None,
) -> None:
    home = oracle_home()
    kept = {home / "results" / DATASET / "choice.json", home / "preprocessed" / DATASET / "organ_shapes.json"}
    for path in kept:
        path.unlink()
    image, label, geometry = oracle_case(9)
    write_image(tmp_path / "in" / "new.nii.gz", image[None], geometry)
    make_read_only(home, monkeypatch, number)
    settings = PredictSettings(model=model, device="cpu", uncertainty=True, save_probabilities=True)
    with caplog.at_level("INFO"):
        assert predict_folder(tmp_path / "in", tmp_path / "out", settings, home=home) == {}
    np.testing.assert_array_equal(read_label(tmp_path / "out" / "new.nii.gz").array, label)
    assert ("is not kept" in caplog.text) == (model is None)
    assert not any(path.exists() for path in kept)
    with pytest.raises(WriteError, match=r"choice\.json: .*(may not be written|read-only)"):
        find_best_configuration(1, home=home)


def test_prediction_and_training_judge_by_corrected_labels_in_memory(
    oracle_home: HomeFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    home = oracle_home()
    (home / "results" / DATASET / "choice.json").unlink()
    run = Run(home / "results" / DATASET / MODEL[3] / "fold_0")
    case, stored = run.record().split.val[0], run.scores_file.read_bytes()
    file = home / "raw" / DATASET / "labelsTr" / f"{case}.nii.gz"
    label = read_label(file)
    write_label(file, np.where(label.array == 1, 2, label.array), label.geometry)
    plan_and_preprocess(1, PlanSettings(configurations=("3d_fullres",), workers=0), home=home)
    image, expected, geometry = oracle_case(9)
    write_image(tmp_path / "in" / "new.nii.gz", image[None], geometry)
    make_read_only(home, monkeypatch, errno.EROFS)
    with caplog.at_level("INFO"):
        assert predict_folder(tmp_path / "in", tmp_path / "out", PredictSettings(device="cpu"), home=home) == {}
    np.testing.assert_array_equal(read_label(tmp_path / "out" / "new.nii.gz").array, expected)
    assert "scores that were corrected are not kept" in caplog.text
    settings = TrainSettings(network="oracle_home:Oracle", iterations=3, batch=1, device="cpu")
    scores = train(1, "3d_fullres", 0, settings, home=home)
    assert [score.dice for score in scores if score.case == case and score.organ == "organ1"] == [0.0]
    assert choose_again(1, home=home).table[MODEL[3]]["organ1"] < 1
    assert run.scores_file.read_bytes() == stored
