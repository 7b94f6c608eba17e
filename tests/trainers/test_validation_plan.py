"""How much of validation is left out where time is short, what that costs, and that it is recorded and done so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from factories import make_configuration, make_job, make_plan

from autoseg.runtime.hardware import StepCost
from autoseg.runtime.runs import Run
from autoseg.runtime.serialization import from_jsonable, to_jsonable
from autoseg.schema import Budget, Locator, Tiling
from autoseg.schema.run_record import RunRecord, ValidationSettings
from autoseg.schema.settings import TrainSettings
from autoseg.trainers import run_setup
from autoseg.trainers.run_options import RunFolders
from autoseg.trainers.run_setup import _validation, with_validation
from autoseg.trainers.trainer import Trainer
from autoseg.trainers.validation_plan import (
    CaseSize,
    as_validated,
    plan_validation,
    predicted_validation,
    tiles_of,
    validation_limit,
)

THREE_D = make_configuration()
CASES = [CaseSize((8, 16, 24), 3072)] * 2
TILES = 1 * 3 * 5
COST = StepCost(1.0, 1, tile_seconds=1.0)


def test_tiles_are_counted_as_the_sliding_window_lays_them() -> None:
    assert tiles_of(THREE_D, (8, 16, 24)) == TILES
    assert tiles_of(THREE_D, (2, 3, 4)) == 1
    assert tiles_of(make_configuration(2), (5, 8, 12)) == 5 * 2
    whole = Locator((6.0,) * 3, (16,) * 3, 3.0, whole=True)
    assert tiles_of(replace(THREE_D, locator=whole), (100, 100, 100)) == 1


def test_validation_costs_tiles_times_copies_times_seconds_of_a_tile() -> None:
    seconds = predicted_validation(THREE_D, CASES, COST, outputs=3)
    assert 2 * TILES * 8 <= seconds < 2 * TILES * 8 + 0.1
    unmeasured = replace(COST, tile_seconds=0.0)
    assert predicted_validation(THREE_D, CASES, unmeasured, outputs=3) == pytest.approx(seconds / 6, rel=1e-3), "a third of half a batch"


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (241.0, None),
        (239.0, ValidationSettings((1, 2), 0.5)),
        (119.0, ValidationSettings((2,), 0.5)),
        (59.0, ValidationSettings((), 0.5)),
        (29.0, ValidationSettings((), 0.75)),
        (13.0, ValidationSettings((), 1.0)),
        (0.1, ValidationSettings((), 1.0)),
    ],
)
def test_copies_go_before_tiles_and_no_more_than_must(limit: float, expected: ValidationSettings | None) -> None:
    found, why = plan_validation(THREE_D, CASES, COST, outputs=3, limit=limit)
    assert found == expected
    assert ("--validation full" in why) == (expected is not None)
    if expected is not None:
        assert "would take about 4 min, with 8 mirrored copies and tiles 0.5 of the patch apart" in why


def test_what_nothing_can_be_left_out_of_is_said_and_a_plain_mean_keeps_its_tiles() -> None:
    bare = replace(THREE_D, mirroring=replace(THREE_D.mirroring, axes=()), tiling=Tiling(0.5, "plain"))
    found, why = plan_validation(bare, CASES, COST, outputs=3, limit=1.0)
    assert found is None
    assert why.endswith("nothing of it can be left out")


def test_only_a_time_bounds_validation_and_never_below_a_minute() -> None:
    assert validation_limit(Budget("iterations", 10, 1)) is None
    assert validation_limit(Budget("time", 90.0, 1)) == 60.0
    assert validation_limit(Budget("time", 7200.0, 1)) == 3600.0
    assert plan_validation(THREE_D, CASES, COST, outputs=3, limit=None)[0] is None


def test_the_predictor_of_a_run_follows_its_record(folders: RunFolders) -> None:
    job = replace(make_job(make_plan()), validation=ValidationSettings((2,), 1.0))
    assert from_jsonable(to_jsonable(job), RunRecord) == job
    predictor = Trainer(job, folders, device=torch.device("cpu"), progress=False).predictor(torch.nn.Identity())
    assert (predictor.configuration.mirroring.axes, predictor.step) == ((2,), 1.0)
    assert as_validated(replace(job, validation=None)) == job.configuration


def test_another_fold_is_validated_as_those_before_unless_all_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = replace(make_job(make_plan()), validation=ValidationSettings((), 1.0))
    monkeypatch.setattr(Run, "siblings", lambda self: [SimpleNamespace(record=lambda: first)])
    job, run = replace(first, validation=None), Run(tmp_path / "fold_1")
    found, why = _validation(job, run, COST, CASES, limit=1e9)
    assert found == first.validation
    assert "as in the model's other folds" in why
    full = replace(job, settings=TrainSettings(validation="full"))
    assert _validation(full, run, COST, CASES, limit=None)[0] is None


@pytest.mark.parametrize(
    ("budget", "asked", "expected"),
    [
        (Budget("time", 10.0, 1), "auto", ValidationSettings((2,), 0.5)),
        (Budget("time", 1000.0, 1), "auto", None),
        (Budget("time", 10.0, 1), "full", None),
        (Budget("iterations", 10, 1), "auto", None),
    ],
)
def test_after_training_it_is_planned_by_tiles_measured_then(
    folders: RunFolders, monkeypatch: pytest.MonkeyPatch, budget: Budget, asked: str, expected: ValidationSettings | None
) -> None:
    monkeypatch.setattr(run_setup, "measured_tile", lambda trainer: 0.9)
    job = replace(make_job(make_plan()), budget=budget, settings=TrainSettings(validation=asked))
    trainer = Trainer(job, folders, device=torch.device("cpu"), progress=False)
    assert with_validation(trainer, CASES) == replace(job, validation=expected)
    begun = folders.files.case_scores("c")
    begun.parent.mkdir(parents=True)
    begun.write_text("[]")
    assert with_validation(trainer, CASES) == job, "cases that were validated stay comparable"


def test_a_tile_is_measured_without_touching_the_record(folders: RunFolders) -> None:
    job = replace(make_job(make_plan()), validation=ValidationSettings((2,), 1.0))
    trainer = Trainer(job, folders, device=torch.device("cpu"), progress=False)
    assert run_setup.measured_tile(trainer) > 0
    assert trainer.job is job
