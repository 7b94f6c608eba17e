"""What cheaper ways of predicting lose on held-out cases: measured once a network, within validation's time."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import make_configuration, make_job, make_plan, write_dataset

from autoseg.data.datasets import load_dataset
from autoseg.inference.coarse_to_fine import CoarseToFinePredictor, coarse_factors
from autoseg.inference.predictor import Predictor
from autoseg.inference.volume_predictor import Volume
from autoseg.runtime.runs import Run
from autoseg.schema import Budget, Mirroring
from autoseg.schema.cheaper_prediction import COARSE_TO_FINE, LARGER_STEPS, NO_MIRRORING, WAYS
from autoseg.schema.run_record import ValidationSettings
from autoseg.trainers import cheaper_validation
from autoseg.trainers.cheaper_validation import cheaper_ways, is_cheaper_interrupted, read_cheaper, validate_cheaper
from autoseg.trainers.run_options import RunFolders
from autoseg.trainers.trainer import Trainer
from autoseg.trainers.validation import validate_fold

CPU = torch.device("cpu")


class BySides(torch.nn.Module):
    """Sees the ball and the block by their brightness, and takes a dark voxel for the block only in the first half of what it is shown."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = torch.arange(x.shape[-1]) < x.shape[-1] // 2
        return torch.cat([torch.full_like(x, 0.9), x, torch.where(half, -x, torch.zeros_like(x))], 1)


@pytest.fixture
def validated(folders: RunFolders, tmp_path):
    """A trainer of a validated fold, its network, and the dataset."""
    dataset = load_dataset(write_dataset(tmp_path / "raw" / "Dataset001_Tiny"))
    trainer, network = Trainer(make_job(make_plan()), folders, device=CPU, progress=False), BySides()
    run = Run(folders.run)
    run.folder.mkdir(parents=True, exist_ok=True)
    run.checkpoint.write_bytes(b"weights of monday")
    validate_fold(trainer.predictor(network), trainer.job, folders, dataset, progress=False)
    return trainer, network, dataset


def test_each_way_is_cheaper_than_the_one_before() -> None:
    whole = make_configuration()
    ways = cheaper_ways(whole)
    assert tuple(ways) == WAYS
    assert all(not one.mirroring.axes for one in ways.values())
    assert [one.tiling.step for one in ways.values()] == [0.5, 0.75, 0.75]
    assert tuple(cheaper_ways(replace(whole, mirroring=Mirroring()))) == (LARGER_STEPS, COARSE_TO_FINE)
    assert COARSE_TO_FINE not in cheaper_ways(replace(whole, previous_stage="3d_lowres"))


def test_held_out_cases_are_predicted_in_cheaper_ways_and_once_a_network(validated, monkeypatch) -> None:
    trainer, network, dataset = validated
    found = validate_cheaper(trainer, network, dataset)
    assert {(one.case, one.way) for one in found} == {(case, way) for case in "cd" for way in WAYS}
    bare = [one for one in found if one.way == NO_MIRRORING]
    assert all(one.full["block"] > one.dice["block"] for one in bare), "with mirrors both halves are seen"
    assert all(one.patient == one.case and one.seconds > 0 and one.full_seconds > 0 and one.voxels > 0 for one in bare)
    run = Run(trainer.folders.run)
    assert read_cheaper(run) == found
    monkeypatch.setattr(cheaper_validation, "predict_held_out", None)
    assert validate_cheaper(trainer, network, dataset) == found
    run.checkpoint.write_bytes(b"weights of tuesday")
    assert read_cheaper(run) == [], "of another network"


def test_a_reduced_validation_is_compared_with_a_full_prediction(validated) -> None:
    trainer, network, dataset = validated
    in_full = validate_cheaper(trainer, network, dataset)
    (Run(trainer.folders.run).validation / "cheaper.json").unlink()
    reduced = trainer.for_job(replace(trainer.job, validation=ValidationSettings((), 0.75)))
    found = validate_cheaper(reduced, network, dataset)
    assert [one.full for one in found] == [one.full for one in in_full]


def test_what_does_not_fit_into_the_time_is_not_measured(validated, monkeypatch) -> None:
    trainer, network, dataset = validated
    short = trainer.for_job(replace(trainer.job, budget=Budget("time", 1.0, 4)))
    monkeypatch.setattr(cheaper_validation, "TIME_SHARE", 1e-9)
    assert validate_cheaper(short, network, dataset) == []
    assert not (Run(trainer.folders.run).validation / "cheaper.json").exists()
    assert validate_cheaper(trainer.for_job(replace(trainer.job, fold="all")), network, dataset) == []


def test_what_was_killed_goes_on_with_the_cases_that_waited(validated, monkeypatch) -> None:
    trainer, network, dataset = validated
    run, predicted = Run(trainer.folders.run), cheaper_validation._in_cheaper_ways

    def killed_at_second(trainer, network, case, full):
        if case.name == "d":
            raise KeyboardInterrupt
        return predicted(trainer, network, case, full)

    monkeypatch.setattr(cheaper_validation, "_in_cheaper_ways", killed_at_second)
    with pytest.raises(KeyboardInterrupt):
        validate_cheaper(trainer, network, dataset)
    assert is_cheaper_interrupted(run)
    assert {one.case for one in read_cheaper(run)} == {"c"}
    again = []
    monkeypatch.setattr(cheaper_validation, "_in_cheaper_ways", lambda *given: again.append(given[2].name) or predicted(*given))
    found = validate_cheaper(trainer, network, dataset)
    assert again == ["d"]
    assert {one.case for one in found} == {"c", "d"} and read_cheaper(run) == found
    assert not is_cheaper_interrupted(run)


def test_the_first_look_finds_where_organs_are_and_the_second_is_equal_there(caplog) -> None:
    configuration, labels = make_configuration(), make_plan().labels
    image = np.full((1, 40, 40, 40), -3.0, np.float32)
    image[0, 8:14, 8:14, 8:14] = 3.0

    def network(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(x), x, torch.full_like(x, -5.0)], 1)

    plain = Predictor([network], configuration, labels, device=CPU, mirror=False)
    finer = CoarseToFinePredictor(Predictor([network], configuration, labels, device=CPU, mirror=False))
    whole, found = plain.logits(Volume(image)), finer.logits(Volume(image))
    assert torch.equal(whole.argmax(0), found.argmax(0)) and (found.argmax(0) == 1).sum() == 6**3
    assert finer.predictor.computed < plain.computed / 3 and finer.predictor.skipped
    region = finer.region(Volume(image))
    assert region is not None and region[2:20, 10, 10].all() and region[10, 10, 2:20].all() and not region[30:].any()
    with caplog.at_level(logging.WARNING):
        assert finer.region(Volume(np.full_like(image, -3.0))) is None
    assert "whole volume" in caplog.text
    assert finer.region(Volume(image[:, :8, :8, :8])) is None, "one tile: nothing to save"


def test_thick_slices_stay_and_slices_alone_are_skipped() -> None:
    assert coarse_factors(make_configuration()) == (2, 2, 2)
    assert coarse_factors(make_configuration(spacing=(5.0, 1.0, 1.0))) == (1, 2, 2)
    assert coarse_factors(make_configuration(2)) == (2, 2, 2)
