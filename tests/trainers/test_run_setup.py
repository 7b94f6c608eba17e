"""What a short time changes in a training, and what it leaves as the user asked for it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from factories import make_configuration, make_plan

from autoseg.runtime.hardware import StepCost
from autoseg.runtime.runs import Run
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
