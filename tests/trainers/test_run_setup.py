"""What a short time changes in a training, and what it leaves as the user asked for it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import make_configuration, make_plan

from autoseg.runtime.hardware import StepCost
from autoseg.runtime.runs import Run
from autoseg.runtime.serialization import write_json
from autoseg.schema import Configuration, Split
from autoseg.schema.run_record import RunRecord
from autoseg.schema.settings import TrainSettings
from autoseg.trainers import run_setup
from autoseg.trainers.training_spec import training_spec

STAGES = {"strides": [[1, 1], [2, 2]], "kernel_sizes": [[3, 3]] * 2, "convs_per_stage": [1, 1], "decoder_convs": [1]}
PLANNED = {"patch_size": (64, 64), "batch_size": 8, "network_options": {"features": [32, 64], **STAGES}}


@pytest.mark.parametrize(
    ("asked", "patch", "features"),
    [
        ({}, (32, 32), [16, 32]),
        ({"patch": (64, 64)}, (64, 64), [16, 32]),
        ({"network_options": {"features": [64, 128]}}, (32, 32), [64, 128]),
        ({"patch": (96, 96), "network_options": {"features": [64, 128]}, "batch": 6}, (96, 96), [64, 128]),
    ],
)
def test_patch_and_features_that_were_asked_for_stay_however_short_the_time(
    asked: dict[str, Any], patch: tuple[int, ...], features: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(job: RunRecord, device: str) -> StepCost:
        """As many seconds as there are thousands of voxels; half the features are a third of it."""
        one: Configuration = job.configuration
        return StepCost(one.batch_size * math.prod(one.patch_size) / 1000 * (1 if one.width == 1 else 1 / 3), 1)

    monkeypatch.setattr(run_setup, "measure_step", measure)
    settings = TrainSettings(seconds=60.0, device="cpu", **asked)
    spec = training_spec(make_plan(make_configuration(2, **PLANNED)), "2d", settings)
    found = run_setup.new_record(spec, Split(("a",), ("b",)), Run(tmp_path / "fold_0"), None, settings=settings).configuration
    assert (found.patch_size, found.built_options["features"]) == (patch, features)
    assert found.batch_size == (6 if "batch" in asked else 4)


@pytest.mark.parametrize("batch_dice", [True, False], ids=["cut to few slices", "by an earlier version"])
def test_further_folds_count_the_dice_as_the_first_one_does(batch_dice: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first fold had little time, the second has enough."""
    stages = {"strides": [[1, 1, 1], [1, 2, 2]], "kernel_sizes": [[1, 3, 3]] * 2, "convs_per_stage": [1, 1], "decoder_convs": [1]}
    whole = {"spacing": (10.0, 1.5, 1.5), "patch_size": (8, 16, 16), "median_shape": (8, 16, 16)}
    planned = make_configuration(**whole, network_options={"features": [8, 16], **stages})
    monkeypatch.setattr(run_setup, "measure_step", lambda job, _: StepCost(math.prod(job.configuration.patch_size) / 1000, 1))
    spec, records = training_spec(make_plan(planned), "3d_fullres", TrainSettings(device="cpu")), []
    for fold, seconds in enumerate((1000.0, 1e6)):
        run, settings = Run(tmp_path / f"fold_{fold}"), TrainSettings(seconds=seconds, device="cpu")
        record = run_setup.new_record(spec, Split(("a",), ("b",)), run, None, settings=settings)
        records.append(replace(record, configuration=replace(record.configuration, batch_dice=batch_dice)) if fold == 0 else record)
        write_json(run.record_file, records[-1])
    first, second = (one.configuration for one in records)
    assert first.patch_size == second.patch_size and math.prod(first.patch_size) < 8 * 16 * 16
    assert second.batch_dice == batch_dice
