"""Further folds of a SpatialConfiguration-Net that an earlier version began: they are trained as its first fold was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import story_data as data

import autoseg
from autoseg.pipeline import PlanSettings, TrainSettings
from autoseg.runtime.runs import ModelFolder
from autoseg.runtime.serialization import read_json, write_json

quick_trainings = data.quick_trainings
NAME = "Dataset003_Tiny"
SMALL = {"features": 2, "levels": 2, "spatial_features": 2, "spatial_levels": 2, "downsampling": 2}
OPTIONS = {"locator_options": {"features": 2, "levels": 2}, "margin": 2}
SHORT = TrainSettings(
    trainer="SpatialConfigurationTrainer", trainer_options=OPTIONS, network_options=SMALL, iterations=2, batch=2, device="cpu"
)


def test_they_learn_from_patches_like_it_unless_somebody_asks_for_whole_regions(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data.make_volumes(tmp_path / "raw" / NAME, n_test=0)
    autoseg.plan_and_preprocess(3, PlanSettings(configurations=("3d_fullres",), memory_gb=0.2, workers=0), home=tmp_path)
    patches = replace(SHORT, trainer_options=OPTIONS | {"whole_region": False})
    autoseg.train(3, "3d_fullres", 0, patches, home=tmp_path)
    model = ModelFolder(tmp_path / "results" / NAME / "3d_fullres__SpatialConfigurationTrainer")
    record = read_json(model.run("0").record_file, dict)
    for unknown in (record["trainer_options"], record["settings"]["trainer_options"], record["configuration"]["locator"]):
        unknown.pop("whole_region", None)
        unknown.pop("whole", None)
        unknown.pop("most", None)
    write_json(model.run("0").record_file, record, digest=False)
    autoseg.train(3, "3d_fullres", 1, SHORT, home=tmp_path)
    first, second = (model.run(fold).record().configuration for fold in "01")
    assert not second.locator.whole
    assert (first.patch_size, first.patch_multiple, first.batch_size) == (second.patch_size, second.patch_multiple, second.batch_size)
    caplog.clear()
    for fold in (0, 1):
        autoseg.train(3, "3d_fullres", fold, replace(SHORT, first_iterations=5), home=tmp_path)
    assert "--first-iterations 5 changes nothing here: 3d_fullres is no stage of a cascade" in caplog.text
    assert "start over with --restart to change that" not in caplog.text
    asked = replace(SHORT, trainer_options=OPTIONS | {"whole_region": True}, restart=True)
    expected = "expected --trainer-option whole_region=false as in the model's other folds, got --trainer-option whole_region=true"
    with pytest.raises(ValueError, match=expected):
        autoseg.train(3, "3d_fullres", 1, asked, home=tmp_path)
