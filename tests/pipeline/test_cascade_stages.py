"""Both stages of a cascade in one home: their grid, their budgets, the steps of their tiles."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import story_data as data
import torch
from factories import make_configuration, make_plan

from autoseg import cli
from autoseg.cli.units import spacing, steps
from autoseg.inference.trained_model import InferenceOptions, load_model
from autoseg.pipeline import (
    PlanSettings,
    PredictSettings,
    TrainSettings,
    chosen_models,
    first_stage_of_unlabelled,
    plan_and_preprocess,
    predict_folder,
    pseudo_labelling,
    train,
)
from autoseg.pipeline.chosen_models import models_chosen
from autoseg.preprocessing.storage import Store, read_array
from autoseg.runtime.runs import ModelFolder
from autoseg.schema import Tiling
from autoseg.trainers.training_spec import TrainingSpec, of_stage

DATASET = "Dataset003_Tiny"
CASCADE = TrainSettings(
    trainer="CascadeTrainer",
    trainer_options={"first_step": 1.0, "second_step": 0.63, "tile_mean": "plain", "previous_input": False, "radius": 1},
    iterations=2,
    first_iterations=3,
    batch=2,
    device="cpu",
)
quick_trainings = data.quick_trainings


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained cascade on one grid of twice the planned spacing."""
    home = tmp_path_factory.mktemp("home")
    data.make_volumes(home / "raw" / DATASET)
    settings = PlanSettings(configurations=("3d_lowres", "3d_cascade"), spacing="x2", one_grid=True, memory_gb=0.2, workers=0)
    plan_and_preprocess(3, settings, home=home)
    with pytest.MonkeyPatch.context() as patch:
        data.make_quick(patch)
        train(3, "3d_cascade", 0, CASCADE, home=home)
    return home


def model(home: Path, configuration: str) -> ModelFolder:
    return ModelFolder(home / "results" / DATASET / f"{configuration}__CascadeTrainer")


@pytest.mark.slow
def test_each_stage_has_its_budget_grid_and_tiles(home: Path) -> None:
    first, second = (model(home, name).run("0").record() for name in ("3d_lowres", "3d_cascade"))
    assert (first.budget.amount, second.budget.amount) == (3, 2)
    assert first.configuration.spacing == second.configuration.spacing == pytest.approx(tuple(2 * size for size in data.SPACING))
    assert first.configuration.data == second.configuration.data == "3d_fullres"
    assert (first.configuration.tiling, second.configuration.tiling) == (Tiling(1.0, "plain"), Tiling(0.63, "plain"))
    assert not second.configuration.sees_previous


@pytest.mark.slow
def test_prediction_takes_the_steps_of_validation_unless_asked_for_others(home: Path, tmp_path: Path) -> None:
    folder, cpu = model(home, "3d_cascade").folder, torch.device("cpu")

    def of_stages(**options: float) -> tuple[float, float]:
        loaded = load_model(folder, cpu, InferenceOptions(**options))
        return loaded.previous.predictor.step, loaded.predictor.step

    assert of_stages() == (1.0, 0.63)
    assert of_stages(step=0.8) == (0.8, 0.8)
    assert of_stages(step=0.8, first_step=0.9) == (0.9, 0.8)
    keys = {load_model(folder, cpu, InferenceOptions(step=0.8, first_step=one)).key for one in (None, 0.9, 1.0)}
    assert len(keys) == 3, "what was predicted with others is not taken for it"
    source = home / "raw" / DATASET / "imagesTs"
    settings = PredictSettings(model="3d_cascade", step=(1.0, 0.5), device="cpu", mirror=False)
    assert predict_folder(source, tmp_path / "out", settings, home=home) == {}
    words = ["-i", str(source), "-o", str(tmp_path / "more"), "-c", "3d_cascade", "--step", "1", "0.5", "--home", str(home)]
    assert cli.predict([*words, "--device", "cpu"]) == 0
    assert cli.predict([*words, "--device", "cpu", "--step", "1", "0.5", "0.5"]) == 2


def test_words_of_the_command_line() -> None:
    assert (steps(None), steps([0.5]), steps([1.0, 0.63])) == (None, 0.5, (1.0, 0.63))
    assert (spacing(None), spacing(["x2"]), spacing(["2", "1", "1.5"])) == (None, "x2", (2.0, 1.0, 1.5))
    with pytest.raises(ValueError, match="or a multiple of the planned spacing"):
        spacing(["2", "x2"])


def test_a_budget_of_its_own_is_for_a_first_stage_only() -> None:
    low = make_configuration(name="3d_lowres")
    plan = make_plan(make_configuration(2), low, make_configuration(name="3d_cascade", previous_stage="3d_lowres"))
    given = TrainSettings(seconds=60.0, first_iterations=3)
    first, second, other = (of_stage(given, TrainingSpec(plan, plan.configurations[name])) for name in ("3d_lowres", "3d_cascade", "2d"))
    assert (first.iterations, first.seconds) == (3, None)
    assert second == other == given
    usual = TrainSettings(iterations=5)
    assert of_stage(usual, TrainingSpec(plan, low)) == usual


@pytest.mark.slow
def test_both_stages_learn_from_pseudo_labels_of_networks_that_have_not_seen_the_held_out_cases(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = shutil.copytree(home, tmp_path / "home")
    raw = home / "raw" / DATASET
    (raw / "imagesUn").mkdir()
    for number, image in enumerate(sorted((raw / "imagesTr").iterdir())[:2]):
        shutil.copy(image, raw / "imagesUn" / f"new{number}_0000.nii.gz")
    settings = PlanSettings(configurations=("3d_lowres", "3d_cascade"), spacing="x2", one_grid=True, memory_gb=0.2, workers=0)
    plan_and_preprocess(3, settings, home=home)
    cascade = model(home, "3d_cascade")
    monkeypatch.setattr(pseudo_labelling, "models_chosen", lambda source: models_chosen(source, cascade.name))
    loaded = []
    load = chosen_models.chosen_ensemble
    for module in (pseudo_labelling, first_stage_of_unlabelled):
        monkeypatch.setattr(module, "chosen_ensemble", lambda *a, **more: loaded.append(load(*a, **more)) or loaded[-1])
    for configuration in ("3d_lowres", "3d_cascade"):
        train(3, configuration, 0, dataclasses.replace(CASCADE, pseudo_labels=True), home=home)
        student = ModelFolder(home / "results" / DATASET / f"{configuration}__CascadeTrainer__pseudo").run("0")
        record = student.record()
        assert sorted(record.pseudo_labels.cases) == ["new0", "new1"]
        assert sorted(path.name for path in (student.folder / "region_on_unlabelled").glob("*.b2nd")) == ["new0.b2nd", "new1.b2nd"]
    assert record.previous_model == "3d_lowres__CascadeTrainer"  # not the student of that stage
    teachers = [one.models[cascade.name] for one in loaded if cascade.name in one.models]
    assert [len(one.predictor.networks) for one in teachers] == [1] * len(teachers)
    assert [len(one.previous.predictor.networks) for one in teachers] == [1] * len(teachers)
    found = home / "results" / DATASET / "3d_lowres__CascadeTrainer" / "unlabelled_on_3d_fullres" / "fold_0"
    image = Store(home / "preprocessed" / DATASET / "unlabelled" / "3d_fullres").load("new0").image
    assert read_array(found / "new0.b2nd").shape == (1, *image.shape[1:])
