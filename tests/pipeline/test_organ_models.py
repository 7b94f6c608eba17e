"""Models of some organs and of all, windows of their own, the choice among them, and predictions in the dataset's own label values."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import story_data as data

import autoseg
from autoseg import cli
from autoseg.data.images import read_label
from autoseg.pipeline import PlanSettings, PredictSettings, TrainSettings
from autoseg.preprocessing.storage import Store
from autoseg.runtime.serialization import from_jsonable, read_json, write_json
from autoseg.schema import Choice, Plan, Score
from autoseg.schema.run_record import RunRecord

NAME = "Dataset003_Tiny"
BALL, BAR, BOTH = "2d__Trainer__ball__w300_l100", "2d__Trainer__bar__w600_l200", "2d__Trainer"
SHORT = TrainSettings(iterations=3, batch=2, device="cpu")
FAST = PredictSettings(mirror=False, device="cpu")
quick_trainings = data.quick_trainings


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of one organ, each in its own window, and one of both."""
    folder = tmp_path_factory.mktemp("organs")
    data.make_volumes(folder / "raw" / NAME, n_test=1, windows={"ball": [300, 100]})
    autoseg.plan_and_preprocess(3, PlanSettings(configurations=("2d",), memory_gb=0.2, workers=0), home=folder)
    autoseg.train(3, "2d", 0, SHORT, home=folder)
    autoseg.train(3, "2d", 0, replace(SHORT, organs=("ball",), window="auto"), home=folder)
    arguments = ["3", "2d", "0", "--organs", "bar", "--window", "600", "200", "--iterations", "3", "--batch", "2", "--device", "cpu"]
    assert cli.train([*arguments, "--home", str(folder)]) == 0
    return folder


def stored_scores(home: Path, model: str) -> list[Score]:
    return from_jsonable(read_json(home / "results" / NAME / model / "fold_0" / "validation" / "scores.json", list), list[Score])


def values_in(path: Path) -> set[int]:
    return set(np.unique(read_label(path).array).tolist())


def test_each_model_knows_its_organs_and_its_window(home: Path) -> None:
    results = home / "results" / NAME
    assert sorted(path.name for path in results.iterdir() if path.is_dir()) == sorted((BALL, BAR, BOTH))
    ball, bar = (read_json(results / name / "fold_0" / "run.json", RunRecord) for name in (BALL, BAR))
    assert (ball.plan.labels.names, ball.plan.labels.members) == (("ball",), ((data.BALL,),))
    assert ball.plan.data_labels == bar.plan.data_labels == read_json(results / "plan.json", Plan).labels
    assert (ball.configuration.normalization, bar.configuration.normalization) == (("window:300:100",), ("window:600:200",))
    assert (ball.configuration.data, bar.configuration.data) == ("2d_w300_l100", "2d_w600_l200")


def test_data_in_a_window_lies_between_zero_and_one_and_holds_all_labels(home: Path) -> None:
    preprocessed = home / "preprocessed" / NAME
    window, planned = (Store(preprocessed / name).load("case_1") for name in ("2d_w600_l200", "2d"))
    assert window.image[:].min() >= 0
    assert window.image[:].max() <= 1
    assert planned.image[:].min() < 0
    assert np.array_equal(window.segmentation[:], planned.segmentation[:])
    assert set(window.locations) == {"0", "1"}


def test_a_model_is_scored_for_its_own_organs_only(home: Path) -> None:
    for model, organs in {BALL: {"ball"}, BAR: {"bar"}, BOTH: {"ball", "bar"}}.items():
        assert {score.organ for score in stored_scores(home, model)} == organs
    references = {model: {(s.case, s.organ): s.n_reference for s in stored_scores(home, model)} for model in (BALL, BAR, BOTH)}
    assert references[BALL] | references[BAR] == references[BOTH]
    for path in (home / "results" / NAME / BAR / "fold_0" / "validation").glob("*.nii.gz"):
        assert values_in(path) <= {0, data.BAR}


def test_each_organ_is_chosen_among_the_models_that_cover_it(home: Path) -> None:
    choice = autoseg.find_best_configuration(3, home=home)
    assert {name: set(row) for name, row in choice.table.items()} == {BOTH: {"ball", "bar"}, BALL: {"ball"}, BAR: {"bar"}}
    for organ in ("ball", "bar"):
        best = max(row.get(organ, -1) for row in choice.table.values())
        assert choice.table[choice.organs[organ][0]][organ] == best
    printed = autoseg.pipeline.describe_choice(choice)
    assert printed.count("*") == 3, "two organs and the legend"


@pytest.mark.parametrize("ball", [BALL, BOTH])
def test_prediction_merges_the_models_into_the_datasets_own_values(home: Path, tmp_path: Path, ball: str) -> None:
    choice = Choice({"ball": (ball,), "bar": (BAR,)}, ("0",), dict.fromkeys((BOTH, BALL, BAR), {}), 2)
    write_json(home / "results" / NAME / "choice.json", choice)
    image = home / "raw" / NAME / "imagesTs" / "case_4_0000.nii.gz"
    assert autoseg.predict_folder(image, tmp_path, replace(FAST, save_probabilities=True), home=home) == {}
    merged = read_label(tmp_path / "case_4.nii.gz").array
    alone = {name: read_label(predict_with(home, image, tmp_path / name, name)).array for name in (ball, BAR)}
    assert set(np.unique(merged).tolist()) <= {0, data.BALL, data.BAR}
    claimed = {data.BALL: alone[ball] == data.BALL, data.BAR: alone[BAR] == data.BAR}
    assert np.array_equal(merged != 0, claimed[data.BALL] | claimed[data.BAR])
    for value, mask in claimed.items():
        assert np.all(mask[merged == value]), "every voxel of an organ comes from its own model"
    shares = np.load(tmp_path / "case_4_probabilities.npy")
    assert shares.shape == (2, *merged.shape)
    assert np.all(shares[1][alone[BAR] == data.BAR] >= 0.5)
    in_memory, _ = autoseg.predict(load(image), home=home, settings=FAST)
    assert set(np.unique(in_memory).tolist()) <= {0, data.BALL, data.BAR}


def predict_with(home: Path, image: Path, out: Path, model: str) -> Path:
    assert autoseg.predict_folder(image, out, replace(FAST, model=model), home=home) == {}
    return out / "case_4.nii.gz"


def load(path: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    found = read_label(path)
    return found.array, found.geometry.spacing


def test_an_organ_only_model_that_is_asked_for_leaves_the_others_background(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = home / "raw" / NAME / "imagesTs" / "case_4_0000.nii.gz"
    with caplog.at_level(logging.WARNING, "autoseg"):
        assert values_in(predict_with(home, image, tmp_path, BAR)) <= {0, data.BAR}
    assert "ball: not segmented by these models" in caplog.text
    caplog.clear()
    predict_with(home, image, tmp_path / "2d", "2d")
    assert "not segmented" not in caplog.text, "a configuration's name means its model of most organs"


def test_organs_that_no_model_covers_are_named(home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for part in ("raw", "preprocessed"):
        (tmp_path / part).symlink_to(home / part)
    (tmp_path / "results" / NAME).mkdir(parents=True)
    (tmp_path / "results" / NAME / BAR).symlink_to(home / "results" / NAME / BAR)
    with caplog.at_level(logging.WARNING, "autoseg"):
        choice = autoseg.find_best_configuration(3, home=tmp_path)
    assert choice.organs == {"bar": (BAR,)}
    assert "No model covers ball" in caplog.text


def test_a_run_goes_on_with_its_own_organs_only(home: Path) -> None:
    assert autoseg.train(3, "2d", 0, replace(SHORT, organs=("ball",), window="auto"), home=home) == stored_scores(home, BALL)
    with pytest.raises(ValueError, match="organ: expected one of ball, bar, got 'bal'. Did you mean 'ball'"):
        autoseg.train(3, "2d", 0, replace(SHORT, organs=("bal",)), home=home)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--window", "auto"], "no window is known for bar"),
        (["--window", "400"], "expected WIDTH LEVEL in HU"),
        (["--window", "0", "40"], "the width above 0"),
        (["--normalization", "zscor"], "Did you mean 'zscore'"),
        (["--normalization", "clip:200"], "expected clip:LOW:HIGH with numbers"),
    ],
)
def test_windows_that_make_no_sense_are_refused(home: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert cli.train(["3", "2d", "0", *words, "--home", str(home)]) == 2
    assert message in capsys.readouterr().err
