"""Models and labels belong together by the names of organs, whatever values a later plan gives them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle_home import DATASET, MODEL, HomeFactory, oracle_case

from autoseg.data.images import read_label, write_image, write_label
from autoseg.inference.trained_model import InferenceOptions, load_model
from autoseg.pipeline import PlanSettings, PredictSettings, find_best_configuration, plan_and_preprocess, predict, predict_folder
from autoseg.pipeline.evaluating import evaluate_predictions
from autoseg.report.overlays import OverlaySettings, draw_overlays
from autoseg.runtime.serialization import read_json, write_json
from autoseg.schema import Choice


def relabel(home: Path, labels: Mapping[str, Any], values: Sequence[int] = (0, 1, 2), **info: Any) -> None:
    """Gives the organs of the dataset other names and values (old value to new one), also in its label maps, and plans anew."""
    folder = home / "raw" / DATASET
    known = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(known | {"labels": {"background": 0, **labels}} | info))
    for file in sorted((folder / "labelsTr").iterdir()):
        label = read_label(file)
        write_label(file, np.array(values, np.uint8)[label.array], label.geometry)
    plan_and_preprocess(1, PlanSettings(configurations=("3d_fullres",), workers=0), home=home)


def written(home: Path, tmp_path: Path, **settings: Any) -> tuple[np.ndarray, np.ndarray]:
    """What is predicted of a new case, and its organs as the numbers 1 and 2."""
    image, label, geometry = oracle_case(7)
    write_image(tmp_path / "new" / "x_0000.nii.gz", image[None], geometry)
    assert predict_folder(tmp_path / "new", tmp_path / "out", PredictSettings(device="cpu", **settings), home=home) == {}
    return read_label(tmp_path / "out" / "x.nii.gz").array, label


@pytest.mark.parametrize(
    ("labels", "values"),
    [
        ({"organ2": 1, "organ1": 2}, (0, 2, 1)),
        ({"organ1": 2, "organ2": 1}, (0, 2, 1)),
        ({"organ1": 1, "new": 2, "organ2": 3}, (0, 1, 3)),
        ({"organ2": 2}, (0, 0, 2)),
    ],
    ids=["exchanged", "other values", "inserted", "removed"],
)
@pytest.mark.parametrize("asked", [None, MODEL[3]])
def test_an_older_model_writes_the_values_of_the_present_plan(
    oracle_home: HomeFactory, tmp_path: Path, labels: dict[str, int], values: tuple[int, ...], asked: str | None
) -> None:
    home = oracle_home()
    before, truth = written(home, tmp_path, model=asked)
    assert np.array_equal(before, truth)
    relabel(home, labels, values)
    found, truth = written(home, tmp_path, model=asked)  # into the same folder: what has old values there is made again
    assert np.array_equal(found, np.array(values)[truth])
    array, _ = predict((oracle_case(7)[0], (2.5, 0.8, 0.7)), 1, settings=PredictSettings(model=asked, device="cpu"), home=home)
    assert np.array_equal(array, found)


def test_a_new_choice_compares_an_older_model_by_name(oracle_home: HomeFactory, caplog: pytest.LogCaptureFixture) -> None:
    home = oracle_home()
    before = read_json(home / "results" / DATASET / "choice.json", Choice)
    relabel(home, {"organ2": 5, "other": 4, "organ1": 3}, (0, 3, 5))
    for metric in ("dice", "sensitivity"):  # the second is computed from the stored label maps, which have the old values
        choice = find_best_configuration(1, home=home, metric=metric)
        assert set(choice.organs) == {"organ1", "organ2"}
    assert choice.calibration[MODEL[3]].temperature == before.calibration[MODEL[3]].temperature
    assert find_best_configuration(1, home=home).table == before.table
    assert "No model covers other" in caplog.text


def test_a_renamed_organ_is_background_and_said(oracle_home: HomeFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    home = oracle_home()
    relabel(home, {"liver": 1, "organ2": 2})
    found, truth = written(home, tmp_path)
    assert np.array_equal(found, np.where(truth == 2, 2, 0))
    assert "liver: not segmented by these models" in caplog.text
    assert "no organ of the dataset any more, and is left out: organ1" in caplog.text


def test_a_model_without_a_common_organ_is_refused(oracle_home: HomeFactory, tmp_path: Path) -> None:
    home = oracle_home()
    relabel(home, {"liver": 1, "spleen": 2})
    with pytest.raises(ValueError, match="3d_fullres__Trainer__oracle_home.Oracle: does not fit the organs.*liver, spleen.*organ1, organ2"):
        written(home, tmp_path, model="3d_fullres")
    with pytest.raises(ValueError, match="nothing is trained and validated"):
        written(home, tmp_path)


def test_regions_of_other_labels_are_refused_and_renumbered_ones_are_not(oracle_home: HomeFactory, tmp_path: Path) -> None:
    home = oracle_home(regions=True)
    with pytest.raises(ValueError, match=r"regions_class_order: .*a voxel of value 7 .*right is \[4, 7\] .*in the order whole, core"):
        relabel(home, {"core": [7], "whole": [4, 7]}, (0, 4, 7), regions_class_order=[7, 4])
    relabel(home, {"whole": [4, 7], "core": [4]}, range(8), regions_class_order=[7, 4])
    found, truth = written(home, tmp_path)
    assert np.array_equal(found, np.array([0, 7, 4])[truth])
    relabel(home, {"whole": [4], "core": [7]}, range(8), regions_class_order=[4, 7])
    with pytest.raises(ValueError, match=r"regions are made of other labels: whole \[1, 2\], core \[2\] then, whole \[4\], core \[7\] now"):
        written(home, tmp_path, model="3d_fullres")
    relabel(home, {"core": [4]}, (0, 0, 0, 0, 4, 0, 0, 0), regions_class_order=[4])
    found, truth = written(home, tmp_path)
    assert np.array_equal(found, np.array([0, 0, 4])[truth]), "an outer region that is gone hides nothing"


def test_a_damaged_choice_is_refused_by_name(oracle_home: HomeFactory, tmp_path: Path) -> None:
    home = oracle_home()
    path = home / "results" / DATASET / "choice.json"
    choice = read_json(path, dict)
    for change, message in (
        ({"organs": {"organ1": ["gone__Trainer"]}}, "choice.json: gone__Trainer, chosen for organ1, is not there"),
        ({"member_folds": {MODEL[3]: ["3"]}}, f"choice.json: fold 3 of {MODEL[3]}, chosen for organ1, is not there"),
        ({"organs": {}}, "choice.json: expected a model for at least one organ"),
        ({"organs": {"organ1": []}}, "choice.json: expected a model for organ1"),
    ):
        write_json(path, {**choice, **change})
        with pytest.raises(ValueError, match=message):
            written(home, tmp_path)


def test_a_run_of_other_channels_is_refused_by_name(oracle_home: HomeFactory, tmp_path: Path) -> None:
    home = oracle_home()
    record = home / "results" / DATASET / MODEL[3] / "fold_0" / "run.json"
    known = read_json(record, dict)
    write_json(record, {**known, "plan": {**known["plan"], "channels": ["CT"]}})
    with pytest.raises(ValueError, match=f"{MODEL[3]}: expected the channels noNorm of {DATASET}, found CT"):
        written(home, tmp_path)


def test_label_maps_with_the_values_of_a_former_plan_are_compared_and_drawn_by_name(
    oracle_home: HomeFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = oracle_home()
    image, _, geometry = oracle_case(0)
    write_image(tmp_path / "new" / "c0_0000.nii.gz", image[None], geometry)
    asked = PredictSettings(device="cpu")
    predict_folder(tmp_path / "new", tmp_path / "out", asked, home=home)
    predict_folder(tmp_path / "new", tmp_path / "one.nii.gz", asked, home=home)
    relabel(home, {"organ2": 1, "organ1": 2}, (0, 2, 1))
    references = home / "raw" / DATASET / "labelsTr"
    validation = home / "results" / DATASET / MODEL[3] / "fold_0" / "validation"
    for reference, prediction in (
        (references, tmp_path / "out"),
        (references, validation),
        (references / "c0.nii.gz", tmp_path / "one.nii.gz"),
    ):
        (result,) = evaluate_predictions(reference, [prediction], dataset="1", home=home, partial=True).results
        assert {score.dice for score in result.scores} == {1.0}
    shown: list[tuple[np.ndarray, np.ndarray]] = []
    monkeypatch.setattr("autoseg.report.overlays.overlay", lambda *args, **kwargs: (shown.append((args[1], args[2])), args[4].touch()))
    settings = OverlaySettings(dataset="1")
    draw_overlays(tmp_path / "new", tmp_path / "drawn", prediction=tmp_path / "out", reference=references, settings=settings, home=home)
    assert np.array_equal(*shown[0])


def test_folds_that_were_trained_differently_do_not_vote_together(oracle_home: HomeFactory) -> None:
    home = oracle_home()
    model = home / "results" / DATASET / MODEL[3]
    shutil.copytree(model / "fold_0", model / "fold_1")
    record = model / "fold_1" / "run.json"
    known = read_json(record, dict)
    for change, what in (
        ({"plan": {**known["plan"], "labels": {**known["plan"]["labels"], "names": ["organ2", "organ1"]}}}, "labels"),
        ({"configuration": {**known["configuration"], "normalization": ["zscore"]}}, "normalization"),
    ):
        write_json(record, {**known, **change})
        with pytest.raises(ValueError, match=f"fold_1/run.json: the folds of {MODEL[3]} do not belong together: .*{what}.*--restart"):
            load_model(model, torch.device("cpu"), InferenceOptions())
    assert load_model(model, torch.device("cpu"), InferenceOptions(folds=("0",))).name == MODEL[3]
