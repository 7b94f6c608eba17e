"""The plan of a dataset that is taken from another one's."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from factories import change_info, relabel, write_dataset

from autoseg import cli
from autoseg.data.descriptions import planned_dataset
from autoseg.pipeline import PlanSettings, TrainSettings, plan_and_preprocess, train
from autoseg.planners.plan_from import plan_like
from autoseg.preprocessing.storage import Store
from autoseg.presets.settings import plan_settings
from autoseg.runtime.commands import plan_command
from autoseg.runtime.hardware import StepCost
from autoseg.runtime.serialization import read_json
from autoseg.runtime.workspace import Workspace
from autoseg.schema import Dataset, Fingerprint

QUICK = PlanSettings(configurations=("3d_fullres",), memory_gb=0.2, workers=0)
LIKE_1 = PlanSettings(configurations=("3d_fullres",), plan_from="1", workers=0)
TAKEN = ("transpose", "orientation", "intensities", "preset", "memory_gb")


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dataset 1, planned; dataset 2 has other organs, other intensities and voxels of another size."""
    home = tmp_path_factory.mktemp("home")
    write_dataset(home / "raw" / "Dataset001_First", ("a", "b"))
    second = write_dataset(home / "raw" / "Dataset002_Second", ("a", "b"), spacing=(1.5, 1.5, 1.0))
    for path in (second / "labelsTr").iterdir():
        relabel(path, {2: 7})
    change_info(second, labels={"background": 0, "lump_left": 7})
    plan_and_preprocess(1, QUICK, home=home)
    return home


@pytest.fixture
def home(planned: Path, tmp_path: Path) -> Path:
    return shutil.copytree(planned, tmp_path / "home")


def described(home: Path, number: int) -> tuple[Dataset, Fingerprint]:
    folder = next((home / "preprocessed").glob(f"Dataset00{number}*"))
    return planned_dataset(Workspace(home), number), read_json(folder / "fingerprint.json", Fingerprint)


def test_what_is_taken_and_what_is_its_own(home):
    plan_and_preprocess(2, QUICK, home=home)
    own = Workspace(home).plan("Dataset002_Second")
    source, plan = Workspace(home).plan("Dataset001_First"), plan_and_preprocess(2, LIKE_1, home=home)
    assert plan == Workspace(home).plan("Dataset002_Second")
    assert {name: getattr(plan, name) for name in TAKEN} == {name: getattr(source, name) for name in TAKEN}
    full, there = plan.configurations["3d_fullres"], source.configurations["3d_fullres"]
    assert full == dataclasses.replace(there, median_shape=full.median_shape, mirroring=own.configurations["3d_fullres"].mirroring)
    assert (there.spacing, there.median_shape, full.median_shape) == ((2.0, 1.0, 1.0), (10, 14, 16), (5, 21, 24))
    assert plan.configurations.keys() == source.configurations.keys()
    assert (plan.labels, plan.dataset, plan.has_spacing) == (own.labels, "Dataset002_Second", True)
    assert plan.lateral_axis not in full.mirroring.axes, "a side without its partner: the flips are of its own organs"
    assert plan.intensities != own.intensities
    stored = Store(home / "preprocessed" / "Dataset002_Second" / "3d_fullres").load("a")
    assert stored.trace.spacing == full.spacing


def test_it_is_recorded_in_the_plan_and_in_the_command(home, caplog):
    plan = plan_and_preprocess(2, LIKE_1, home=home)
    assert plan.settings.plan_from == "Dataset001_First"
    assert plan_command(plan) == "autoseg_plan_and_preprocess -d Dataset002_Second -c 3d_fullres --plan-from Dataset001_First"
    assert (plan.reasons[0].what, plan.reasons[0].value) == ("plan", "Dataset001_First")
    assert [row.what for row in plan.reasons].count("flips") == len({one.dim for one in plan.configurations.values()})
    plan_and_preprocess(2, QUICK, home=home)
    assert "the former plan was taken from Dataset001_First; for such a plan again, give --plan-from" in caplog.text


def test_of_a_dataset_of_which_only_the_models_are_there_or_of_a_folder(home, tmp_path):
    expected = plan_and_preprocess(2, LIKE_1, home=home)
    (home / "results" / "Dataset001_First").mkdir(parents=True)
    for name in ("plan.json", "dataset.json"):
        shutil.copy(home / "preprocessed" / "Dataset001_First" / name, home / "results" / "Dataset001_First" / name)
    shutil.rmtree(home / "raw" / "Dataset001_First")
    shutil.rmtree(home / "preprocessed" / "Dataset001_First")
    assert plan_and_preprocess(2, LIKE_1, home=home) == expected
    elsewhere = shutil.move(home / "results" / "Dataset001_First", tmp_path / "given by a friend")
    plan = plan_and_preprocess(2, dataclasses.replace(LIKE_1, plan_from=str(elsewhere)), home=home)
    assert plan.configurations == expected.configurations
    assert plan.settings.plan_from == str(elsewhere)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"plan_from": "7"}, r"planned dataset: expected one of Dataset001_First, got '7'"),
        ({"plan_from": "2"}, r"planned dataset: expected one of Dataset001_First, got '2'"),
        ({"plan_from": "1", "spacing": (1.0, 1.0, 1.0), "force_lowres": True}, "expected no --spacing, --force-lowres beside it"),
        ({"plan_from": "1", "one_grid": True}, "expected no --one-grid beside it"),
    ],
)
def test_what_cannot_be_taken_is_refused_before_anything_is_measured(home, settings, message):
    with pytest.raises(ValueError, match=message):
        plan_and_preprocess(2, PlanSettings(workers=0, **settings), home=home)
    assert not (home / "preprocessed" / "Dataset002_Second" / "plan.json").exists()


def test_its_own_plan_is_no_other_ones(home):
    with pytest.raises(ValueError, match="expected one other dataset than Dataset001_First, got '1'"):
        plan_and_preprocess(1, LIKE_1, home=home)


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        (("MR", "T2"), r"expected the 1 channels MR as in Dataset001_First, found 2 \(MR, T2\)"),
        (("CT",), "found 'CT' where 'MR' is, whose intensities are normalised in another way"),
    ],
)
def test_other_channels_are_refused(home, channels, message):
    source, (dataset, fingerprint) = Workspace(home).plan("Dataset001_First"), described(home, 1)
    with pytest.raises(ValueError, match=message):
        plan_like(source, dataclasses.replace(dataset, channels=channels), fingerprint)


def test_channels_of_other_names_are_said_other_axes_and_unknown_spacings_refused(home, caplog):
    source, (dataset, fingerprint) = Workspace(home).plan("Dataset001_First"), described(home, 1)
    plan_like(source, dataclasses.replace(dataset, channels=("T1",)), fingerprint)
    assert "its channels T1 are taken for MR as in Dataset001_First" in caplog.text
    with pytest.raises(ValueError, match="images of a known spacing as in Dataset001_First, found an unknown one"):
        plan_like(source, dataset, dataclasses.replace(fingerprint, has_spacing=False))
    flat = [dataclasses.replace(one, shape=one.shape[1:], spacing=one.spacing[1:], lateral_axis=1) for one in fingerprint.cases]
    with pytest.raises(ValueError, match="images of 3 axes as in Dataset001_First, found images of 2"):
        plan_like(source, dataset, dataclasses.replace(fingerprint, cases=tuple(flat)))


def test_a_papers_preset_does_not_ask_for_rules_beside_it():
    settings = plan_settings("roth2018", plan_from="1")
    assert (settings.force_lowres, settings.plan_from) == (False, "1")


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_the_story_from_one_dataset_to_a_network_that_is_trained_on_with_another(home, monkeypatch, capsys, caplog):
    monkeypatch.setattr("autoseg.trainers.run_setup.measure_step", lambda *_: StepCost(seconds=0.01, peak_bytes=1))
    settings = TrainSettings(iterations=2, batch=2, device="cpu", options={"validation_batches": 1})
    train(1, "3d_fullres", "all", settings, home=home)
    shutil.rmtree(home / "raw" / "Dataset001_First")
    assert cli.plan_and_preprocess(["-d", "2", "-c", "3d_fullres", "--plan-from", "1", "--workers", "0", "--home", str(home)]) == 0
    model = home / "results" / "Dataset001_First" / "3d_fullres__Trainer"
    assert f"Next: autoseg_train Dataset002_Second 3d_fullres 0 --pretrained {model}" in capsys.readouterr().out
    with caplog.at_level("INFO"):
        train(2, "3d_fullres", 0, dataclasses.replace(settings, pretrained=model), home=home)
    assert "Its head is new" in caplog.text and "learned other organs: ball, block" in caplog.text
    record = json.loads((home / "results" / "Dataset002_Second" / "3d_fullres__Trainer" / "fold_0" / "run.json").read_text())
    assert record["options"]["learning_rate"] == pytest.approx(1e-4)
    first = read_json(model / "fold_all" / "run.json", dict)["plan"]
    assert record["plan"]["intensities"] == first["intensities"]
