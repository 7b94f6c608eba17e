"""Roth's and Thaler's whole experiments on the phantom, from one command each, with tiny budgets and narrow networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import story_data

from autoseg import cli
from autoseg.data.images import read_label
from autoseg.data.phantom.dataset import make_phantom
from autoseg.pipeline import PredictSettings, predict_folder
from autoseg.runtime.runs import ModelFolder
from autoseg.runtime.serialization import read_json
from autoseg.schema import Tiling
from autoseg.trainers.cascade.candidate_region import CandidateRegionChoice
from autoseg.trainers.cascade.trainer import CANDIDATE_REGION

quick_trainings = story_data.quick_trainings
DATASET = "Dataset900_Phantom"
TINY = ["--iterations", "2", "--device", "cpu", "--folds", "0"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    make_phantom(tmp_path / "raw" / DATASET, n_train=5, n_test=1, seed=0, size=0.3)
    return tmp_path


def predicts(home: Path, model: str) -> None:
    """The trained model segments an image of the phantom on its grid."""
    source, out = home / "raw" / DATASET / "imagesTs", home / f"out_{model}"
    assert predict_folder(source, out, PredictSettings(model=model, device="cpu"), home=home) == {}
    (written,) = out.glob("*.nii.gz")
    (reference,) = (home / "raw" / DATASET / "labelsTs").glob("*.nii.gz")
    assert read_label(written).array.shape == read_label(reference).array.shape


@pytest.mark.slow
def test_roths_cascade_from_one_command(home, caplog):
    options = ["--network-option", "width=2", "--first-iterations", "3", "--home", str(home)]
    with caplog.at_level("INFO"):
        assert cli.run(["900", "--preset", "roth2018", *TINY, *options]) == 0
    log = caplog.text
    assert "Preset roth2018, after Roth et al." in log
    assert "runs 3 iterations instead of 200000 iterations (3d_lowres roth_unet); 2 iterations instead of 115000" in log
    assert "In all 6 trainings" in log, "the second stage needs all five folds of the first"
    assert "Recall of the candidate region by its radius in voxels" in log
    results = home / "results" / DATASET
    first, second = (ModelFolder(results / f"{name}__CascadeTrainer__roth_unet") for name in ("3d_lowres", "3d_cascade"))
    assert sorted(run.fold for run in first.runs()) == ["0", "1", "2", "3", "4"], "predictions of all training cases, out of fold"
    one, two = first.run("0").record(), second.run("0").record()
    assert (one.budget.amount, two.budget.amount) == (3, 2)
    assert one.configuration.spacing == two.configuration.spacing
    assert one.configuration.median_shape == two.configuration.median_shape
    assert two.configuration.patch_size == (20, 36, 36), "the paper's 28, 44, 44 exceed these small images"
    assert two.configuration.input_size == (108, 124, 124)
    assert (one.configuration.tiling, two.configuration.tiling) == (Tiling(1.0, "plain"), Tiling(0.63, "plain"))
    assert (one.configuration.region.source, two.configuration.region.source) == ("body", "previous")
    assert not two.configuration.sees_previous and two.options.foreground == 0
    chosen = read_json(second.folder / CANDIDATE_REGION, CandidateRegionChoice)
    assert len(chosen.rows) == 11 and len(chosen.rows[0].organs) == len(two.plan.labels.names)
    found = {organ: [row.organs[index] for row in chosen.rows] for index, organ in enumerate(chosen.organs)}
    assert all(np.all(np.diff(curve) >= 0) for curve in found.values())
    predicts(home, second.folder.name)


@pytest.mark.slow
def test_thalers_networks_from_one_command(home, caplog):
    narrow = [
        "--network-option",
        "features=4",
        "--network-option",
        "spatial_features=2",
        "--trainer-option",
        'locator_options={"features": 4}',
    ]
    with caplog.at_level("INFO"):
        assert cli.run(["900", "--preset", "thaler2021", *TINY, *narrow, "--spacing", "8", "8", "8", "--home", str(home)]) == 0
    log = caplog.text
    assert "Preset thaler2021, after Thaler et al." in log and "8 x 8 x 8 mm instead of 2 x 2 x 2 mm" in log
    assert "20 % of the steps also train the network that locates the organs" in log
    model = ModelFolder(home / "results" / DATASET / "3d_fullres__SpatialConfigurationTrainer__scale_2048")
    record = model.run("0").record()
    one = record.configuration
    assert one.locator.whole and one.locator.margin == 16 and sorted(one.locator.most) == [80, 80, 256]
    assert one.batch_size == 1 and one.mirroring.axes == ()
    assert max(one.patch_size) <= 160 and all(size % 32 == 0 for size in one.patch_size)
    assert (record.options.average_decay, record.options.relative_clip, record.options.learning_rate) == (0.999, 5.0, 1e-4)
    predicts(home, model.folder.name)
