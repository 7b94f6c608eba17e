"""Who does not learn from mirrored images does not predict them: the SpatialConfiguration-Net, presets, ``mirror_probability=0``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import CASES, make_configuration, make_plan, random_image, write_random_network

from autoseg.inference.predictor import Predictor
from autoseg.inference.trained_model import InferenceOptions, load_model
from autoseg.inference.volume_predictor import Volume
from autoseg.presets.settings import train_settings
from autoseg.runtime.hardware import StepCost
from autoseg.runtime.runs import ModelFolder
from autoseg.schema import Configuration, Mirroring, Split
from autoseg.schema.run_record import RunRecord
from autoseg.schema.settings import TrainSettings
from autoseg.trainers import run_setup
from autoseg.trainers.batches import TRAINING, BatchMaker
from autoseg.trainers.spatial_configuration.trainer import SpatialConfigurationTrainer
from autoseg.trainers.training_spec import training_spec

CPU = torch.device("cpu")
PLAN = make_plan(make_configuration(), make_configuration(2, name="2.5d", slices=3, data="2d"))
NETWORK = {"features": 4, "levels": 2, "spatial_features": 4, "spatial_levels": 2, "downsampling": 2, "dropout": 0.0}


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Gives the record that a training with some settings begins with."""
    monkeypatch.setattr(run_setup, "measure_step", lambda job, device: StepCost(0.1, 1))

    def begin(settings: TrainSettings, configuration: str = "3d_fullres") -> RunRecord:
        run = ModelFolder(tmp_path / "model").run("0")
        settings = replace(settings, device="cpu", iterations=4, seconds=None, epochs=None)
        return run_setup.new_record(training_spec(PLAN, configuration, settings), Split(CASES[:2], CASES[2:]), run, None, settings=settings)

    return begin


def passes(configuration: Configuration) -> int:
    """Forward passes a tile, as validation and prediction make them by default."""
    seen: list[int] = []

    def network(patches: torch.Tensor) -> torch.Tensor:
        seen.append(len(patches))
        return patches.new_zeros((len(patches), 3, *patches.shape[2:]))

    predictor = Predictor([network], replace(configuration, slices=1), PLAN.labels, device=CPU)
    predictor.logits(Volume(random_image(*[1] * (3 - configuration.dim), *configuration.patch_size)))
    return sum(seen)


@pytest.mark.parametrize("given", [{"mirror_probability": 0}, {"augmentation": {"mirror_probability": 0.0}}])
def test_without_flips_in_training_there_are_no_mirrored_passes(begun, given):
    assert passes(begun(TrainSettings()).configuration) == 8
    assert passes(begun(TrainSettings(options={"mirror_probability": 0.25})).configuration) == 8
    record = begun(TrainSettings(options=given))
    assert record.options.augmentation.mirror_probability == 0
    assert record.configuration.mirroring == Mirroring()
    assert passes(record.configuration) == 1


@pytest.mark.parametrize("trainer", ["Trainer", "SpatialConfigurationTrainer"])
def test_flips_that_a_network_cannot_learn_from_are_said_to_change_nothing(begun, trainer, caplog):
    settings = TrainSettings(trainer=trainer, network="scn", network_options=NETWORK)
    begun(settings)
    assert "mirror_probability" not in caplog.text
    begun(replace(settings, options={"mirror_probability": 0.25}))
    assert "mirror_probability changes nothing here: scn is never shown mirrored images" in caplog.text


def test_nor_in_what_the_model_predicts_later(begun, tmp_path, monkeypatch):
    folder = tmp_path / "3d_fullres__Trainer"
    for fold, options in (("0", {"mirror_probability": 0}), ("1", {})):
        write_random_network(folder / f"fold_{fold}", replace(begun(TrainSettings(options=options)), fold=fold))
    flips = {folds: load_model(folder, CPU, InferenceOptions(folds)).configuration.mirroring.axes for folds in (("0",), ("1",), ("1", "0"))}
    assert flips == {("0",): (), ("1",): (0, 1, 2), ("1", "0"): ()}, "folds that vote together do what all of them learned"


class TestSpatialConfigurationNet:
    SETTINGS = TrainSettings(trainer="SpatialConfigurationTrainer", network="scn", network_options=NETWORK)

    def test_neither_network_learns_from_a_flip_and_none_is_predicted(self, begun, folders):
        assert begun(self.SETTINGS).configuration.mirroring == Mirroring(), "nor of whole regions"
        record = begun(replace(self.SETTINGS, trainer_options={"whole_region": False}))
        assert record.configuration.mirroring == Mirroring()
        assert passes(record.configuration) == 1
        trainer = SpatialConfigurationTrainer(record, folders, device=CPU, progress=False)
        assert trainer.predictor(trainer.network).predictor.configuration.mirroring.axes == ()
        quiet = train_settings("fang2020", options={"mirror_probability": 1}).changed_options["augmentation"]
        options = replace(record.options.augmentation, **quiet)
        record = replace(record, options=replace(record.options, augmentation=options, foreground=0.0))
        make = BatchMaker(record, folders, ["a"], stream=TRAINING, device=CPU)
        stored = np.pad(make.cases["a"].image[:][0], 8)
        windows = np.lib.stride_tricks.sliding_window_view(stored, record.configuration.patch_size)
        for number in range(3):
            for patch in make(number).image.numpy():
                assert (np.abs(windows - patch[0]).max(axis=(-3, -2, -1)) == 0).any(), "found in the case as it is"

    def test_nor_does_the_plain_trainer_mirror_this_network(self, begun):
        assert passes(begun(replace(self.SETTINGS, trainer="Trainer")).configuration) == 1

    def test_who_wants_to_compare_may_ask_for_flips(self, begun):
        record = begun(replace(self.SETTINGS, trainer_options={"mirroring": True}))
        assert passes(record.configuration) == 8


@pytest.mark.parametrize("name", ["conze2021", "crespi2023", "roth2018", "thaler2021"])
def test_the_papers_without_flips_have_none(begun, name):
    settings = train_settings(name)
    record = begun(TrainSettings(options=settings.options))
    assert record.options.augmentation.mirror_probability == 0
    assert passes(record.configuration) == 1
