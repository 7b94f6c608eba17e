"""Models of one organ with one output: trained, chosen beside models with two, predicted; models of earlier versions as they were begun."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import story_data as data

import autoseg
from autoseg.data.images import read_label
from autoseg.pipeline import PlanSettings, PredictSettings, TrainSettings
from autoseg.runtime.checkpoints import load_checkpoint
from autoseg.runtime.runs import ModelFolder
from autoseg.runtime.serialization import read_json, write_json

quick_trainings = data.quick_trainings
NAME = "Dataset003_Tiny"
SHORT = TrainSettings(iterations=3, batch=2, device="cpu", organs=("ball",), network_options={"features": [4, 6, 8]})
ONE = replace(SHORT, network="conze_unet")
CASCADE = replace(SHORT, network="unet_cascade")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with one output, a cascade as earlier versions began it, and a planned network, with two."""
    folder = tmp_path_factory.mktemp("outputs")
    data.make_volumes(folder / "raw" / NAME, n_test=1)
    autoseg.plan_and_preprocess(3, PlanSettings(configurations=("2d",), memory_gb=0.2, workers=0), home=folder)
    autoseg.train(3, "2d", 0, ONE, home=folder)
    autoseg.train(3, "2d", 0, replace(CASCADE, sigmoid=False), home=folder)
    earlier = folder / "results" / NAME / "2d__Trainer__unet_cascade__ball" / "fold_0" / "run.json"
    record = read_json(earlier, dict)
    del record["configuration"]["sigmoid"], record["settings"]["sigmoid"]
    write_json(earlier, record, digest=False)
    autoseg.train(3, "2d", 0, replace(SHORT, network_options={}), home=folder)
    return folder


def heads(home: Path, model: str, fold: int = 0) -> list[int]:
    """Outputs of the networks of a model, in order."""
    states, _ = load_checkpoint(ModelFolder(home / "results" / NAME / model).run(str(fold)).checkpoint)
    return [len(weight) for name, weight in states["network"].items() if name.endswith("head.weight")]


def test_the_network_has_one_output(home: Path) -> None:
    assert heads(home, "2d__Trainer__conze_unet__ball") == [1]
    assert heads(home, "2d__Trainer__unet_cascade__ball") == [2, 2]


def test_of_several_organs_it_is_said_that_there_is_an_output_each(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    autoseg.train(3, "2d", 0, replace(ONE, organs=(), sigmoid=True), home=home)
    assert heads(home, "2d__Trainer__conze_unet") == [3]
    assert "--sigmoid: one output is for a model of one organ; this one has 3." in caplog.text


def test_further_folds_of_a_model_of_an_earlier_version_have_its_outputs(home: Path) -> None:
    autoseg.train(3, "2d", 1, CASCADE, home=home)
    assert heads(home, "2d__Trainer__unet_cascade__ball", 1) == [2, 2]
    with pytest.raises(ValueError, match="outputs one a class, the plan now says one, with sigmoid"):
        autoseg.train(3, "2d", 1, replace(CASCADE, sigmoid=True, restart=True), home=home)


def test_models_with_one_and_two_outputs_are_averaged_and_predict(home: Path) -> None:
    choice = autoseg.find_best_configuration(3, home=home, rule="best_mean")
    averages = [name for name in choice.table if name.count(" + ") == 2]
    assert len(averages) == 1 and "conze_unet" in averages[0] and "unet_cascade" in averages[0]
    for model in ("2d__Trainer__conze_unet__ball", "2d__Trainer__unet_cascade__ball"):
        out = home / f"out_{model}"
        settings = PredictSettings(dataset="3", model=model, device="cpu", folds=("0",))
        assert autoseg.predict_folder(home / "raw" / NAME / "imagesTs", out, settings, home=home) == {}
        (written,) = out.glob("*.nii.gz")
        assert set(np.unique(read_label(written).array)) <= {0, data.BALL}
