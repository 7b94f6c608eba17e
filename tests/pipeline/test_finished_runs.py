"""What is wrong is said of a finished run as of a new one, and leaves nothing behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import oracle_home as oracle
import pytest

from autoseg.pipeline import TrainSettings, train
from autoseg.runtime.hardware import StepCost

NETWORK = {"network": "oracle_home:Oracle", "device": "cpu"}
UNKNOWN = [
    ({**NETWORK, "options": {"loss": "dyce"}}, "loss: expected one of .*dice_ce"),
    ({**NETWORK, "options": {"optimizer": "adm"}}, "optimizer: expected one of"),
    ({"network": "plain_unett", "device": "cpu"}, "network: expected one of .*plain_unet"),
    ({**NETWORK, "trainer": "Trainr"}, "trainer: expected one of .*Trainer"),
]


def files(home: Path) -> set[Path]:
    return {path.relative_to(home) for path in (home / "results").rglob("*")}


@pytest.mark.parametrize("tag", ["", "x"])
@pytest.mark.parametrize(("settings", "message"), UNKNOWN)
def test_unknown_names_are_refused_where_nothing_is_left_to_train_too(shared_oracle_home, settings, message, tag):
    home = shared_oracle_home()
    before = files(home)
    with pytest.raises(ValueError, match=message):
        train(1, "3d_fullres", 0, TrainSettings(**settings, tag=tag), home=home)
    assert files(home) == before


LATE = [
    ({"network": "plain_unet", "network_options": {"features": [4, "x"]}}, "plain_unet.* cannot be built"),
    ({"network": "se_resunet", "network_options": {"reducton": 4}}, "se_resunet.*reducton"),
    ({"network": "vgg16_unet", "network_options": {"pretrained": "no_such.pth"}}, "ImageNet weights are 2D"),
    ({"network": "torch.nn:Conv2d"}, "torch.nn:Conv2d.* cannot be built"),
    ({"network": "deepmedic", "network_options": {"widths": []}}, "deepmedic"),
    ({**NETWORK, "options": {"foreground": "half"}}, "training options: expected values as the defaults, got foreground='half'"),
    ({**NETWORK, "options": {"momentum": 0.9}}, "momentum: adamw"),
    ({"trainer": "SpatialConfigurationTrainer", "trainer_options": {"localisation_loss": "dyce"}}, "localisation_loss: expected one of"),
    ({"trainer": "SpatialConfigurationTrainer", "trainer_options": {"locator_options": {"levels": "x"}}}, "localisation_unet"),
    ({"trainer": "SpatialConfigurationTrainer", "options": {"foreground": 0.5}}, "foreground: expected a training on patches"),
    ({**NETWORK, "options": {"class_weights": [0.2, 1.2], "loss": "dice"}}, "class_weights: expected one of the losses ce"),
    ({**NETWORK, "options": {"organ_slices": True}}, r"organ_slices: expected a configuration of slices \(2d, 2.5d\), got 3d_fullres"),
    ({"trainer": "PyramidTrainer", "network_options": {"input_scales": 9}}, "expected 1 to . scales"),
]


@pytest.mark.parametrize(("settings", "message"), LATE)
def test_what_cannot_be_built_is_refused_before_a_folder_is_made(shared_oracle_home, settings, message, monkeypatch):
    home = shared_oracle_home()
    before = files(home)
    monkeypatch.setattr("autoseg.trainers.run_setup.measure_step", lambda job, device: pytest.fail("the trial step was taken"))
    settings = {"device": "cpu", "iterations": 1, **settings}
    with pytest.raises(ValueError, match=message):
        train(1, "3d_fullres", 0, TrainSettings(**settings, tag="late"), home=home)
    assert files(home) == before


def test_a_damaged_run_record_is_an_error_before_the_run_is_called_finished(oracle_home, caplog):
    home = oracle_home()
    record = home / "results" / oracle.DATASET / oracle.MODEL[3] / "fold_0" / "run.json"
    record.write_text(record.read_text()[:200])
    with pytest.raises(ValueError, match=r"run\.json.*damaged"):
        train(1, "3d_fullres", 0, TrainSettings(**NETWORK), home=home)
    assert "finished" not in caplog.text


def test_an_edited_copy_of_the_plan_is_kept_by_training(oracle_home, caplog, monkeypatch):
    home = oracle_home()
    monkeypatch.setattr("autoseg.trainers.run_setup.measure_step", lambda job, device: StepCost(0.01, 1))
    copy = home / "results" / oracle.DATASET / "plan.json"
    content = json.loads(copy.read_text())
    copy.write_text(json.dumps({**content, "memory_gb": 9.0}))
    edited = copy.read_text()
    train(1, "3d_fullres", 1, TrainSettings(iterations=1, batch=1, **NETWORK), home=home)
    assert copy.read_text() == edited
    assert "plan.json: was edited, so it is kept" in caplog.text


def test_a_finished_run_reads_no_corrected_label_map_without_leave(oracle_home, tmp_path):
    home = oracle_home()
    path = home / "preprocessed" / oracle.DATASET / "dataset.json"
    content = json.loads(path.read_text())
    del content["digest"]
    (case,) = (home / "results" / oracle.DATASET / oracle.MODEL[3] / "fold_0" / "validation").glob("*.nii.gz")
    entry = next(one for one in content["cases"] if f"{one['name']}.nii.gz" == case.name)
    shutil.copy(home / entry["label"], tmp_path / "elsewhere.nii.gz")
    entry |= {"label": str(tmp_path / "elsewhere.nii.gz"), "digests": [entry["digests"][0], "0" * 64 + ":5"]}
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="--allow-external"):
        train(1, "3d_fullres", 0, TrainSettings(**NETWORK), home=home)
