"""The majority vote of three 2D models, each of its own plane, from planning to prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import story_data as data
from ensemble_models import NAME, fit, folder_of, predict, results, run_of

import autoseg
from autoseg.pipeline import PlanSettings
from autoseg.runtime.runs import ModelFolder
from autoseg.schema.settings import TrainSettings

PLANES = ("2d", "2d_coronal", "2d_sagittal")


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_three_planes_vote(tmp_path: Path) -> None:
    data.make_volumes(tmp_path / "raw" / NAME, n_train=4, n_test=1, numTraining=4, groups=None)
    plan = autoseg.plan_and_preprocess(3, PlanSettings(configurations=PLANES, memory_gb=0.2, workers=0), home=tmp_path)
    assert [plan.configurations[name].slice_axis for name in PLANES] == [0, 1, 2]
    for name in PLANES:
        autoseg.train(3, name, 0, TrainSettings(iterations=60, device="cpu", learning_rate=0.02), home=tmp_path)
    names = [f"{name}__Trainer" for name in PLANES]
    scores = fit(tmp_path, "vote", *names, folds=("0",))["0"]
    assert run_of(tmp_path, "vote").record().ensemble.reference == names[0]
    assert {score.case for score in scores} == {score.case for score in ModelFolder(results(tmp_path) / names[1]).run("0").scores()}
    alone = np.stack([predict(tmp_path, tmp_path / name, model=name, case="case_4") for name in names])
    values = np.unique(alone)
    votes = np.stack([(alone == value).sum(0) for value in values])
    found = predict(tmp_path, tmp_path / "vote", model=folder_of(tmp_path, "vote").name, case="case_4")
    clear = votes.max(0) > 1
    assert np.mean(found[clear] == values[votes.argmax(0)][clear]) > 0.98, "but for the grid"
    choice = autoseg.find_best_configuration(3, home=tmp_path, vote=True)
    assert " + ".join(names) in choice.table, "averages and majorities of planes are candidates"
