"""How ``--fast`` predicts with a cascade, and what it says where nothing cheaper is allowed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from factories import make_configuration, make_geometry, make_plan, record_run

from autoseg.inference.trained_model import InferenceOptions
from autoseg.pipeline import fast_prediction as module
from autoseg.pipeline.fast_prediction import fast_options
from autoseg.runtime.runs import ModelFolder
from autoseg.schema import Choice
from autoseg.schema.cheaper_prediction import LARGER_STEPS, NO_MIRRORING, DiceLoss

STAGE, CASCADE = "3d_lowres__Trainer", "3d_cascade__Trainer"


def test_the_first_stage_of_a_cascade_is_one_fold_too(tmp_path: Path) -> None:
    first = make_configuration(name="3d_lowres", data="3d_lowres")
    plan = make_plan(make_configuration(), first, make_configuration(name="3d_cascade", data="3d_cascade", previous_stage="3d_lowres"))
    for fold in ("0", "1"):
        record_run(ModelFolder(tmp_path / STAGE).run(fold), plan, [], configuration=first, fold=fold)
    second = {"configuration": plan.configurations["3d_cascade"], "previous_model": STAGE}
    record_run(ModelFolder(tmp_path / CASCADE).run("1"), plan, [], fold="1", **second)
    choice = Choice({"ball": (CASCADE,)}, ("1",), {}, 0)
    found = fast_options(InferenceOptions(folds=("1",)), choice, tmp_path, CASCADE)
    assert (found.stage_folds, found.mirror, found.coarse_to_fine, found.step) == (("1",), False, False, 0.75)
    record_run(ModelFolder(tmp_path / CASCADE).run("2"), plan, [], fold="2", **second)
    assert fast_options(InferenceOptions(folds=("2",)), choice, tmp_path, CASCADE).stage_folds is None, "a fold that it lacks"


def test_in_full_the_reason_and_the_seconds_are_those_that_were_measured(tmp_path: Path) -> None:
    plan = make_plan(configuration := make_configuration())
    record_run(ModelFolder(tmp_path / "3d__Trainer").run("0"), plan, [], configuration=configuration)
    lost = DiceLoss(0.03, 0.01, 0.05, 2, {"ball": 0.03}, seconds=2.0, full_seconds=16.0, voxels=1000.0)
    worse = replace(lost, mean=0.2)
    choice = replace(Choice({"ball": ("3d__Trainer",)}, ("0",), {}, 0), cheaper={"3d__Trainer": {NO_MIRRORING: lost, LARGER_STEPS: worse}})
    predictor = SimpleNamespace(mirror=True, step=None)
    model: Any = SimpleNamespace(
        name="3d__Trainer", plan=plan, configuration=configuration, predictor=predictor, previous=None, depends_on=()
    )
    expected = "without mirrored copies it loses +0.0300 Dice (2 held-out patients, 95 % interval +0.0100 to +0.0500)"
    assert module._model(model, choice, tmp_path, folds_asked=False) == (
        f"--fast: 3d__Trainer in full: no cheaper way is known to lose at most 0.01 Dice on held-out cases ({expected})"
    )
    geometry = make_geometry((10, 20, 30))
    assert module._seconds(model, choice, tmp_path, [geometry]) == pytest.approx(16.0 * 6)
    predictor.mirror = False
    assert module._seconds(model, choice, tmp_path, [geometry]) == pytest.approx(2.0 * 6)
