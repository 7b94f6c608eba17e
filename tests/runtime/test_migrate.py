"""Files of version 0.1.0 are read: a results folder that it wrote is listed, predicted with and reported, and renamed fields are found."""

from __future__ import annotations

import shutil
from pathlib import Path

import factories
import numpy as np
import pytest

from autoseg.data.descriptions import planned_dataset
from autoseg.data.images import read_label
from autoseg.pipeline.predicting import predict_folder
from autoseg.pipeline.reporting import write_report
from autoseg.runtime.migrate.names import existing_file
from autoseg.runtime.runs import model_folders
from autoseg.runtime.serialization import from_jsonable, read_json, to_jsonable, write_json
from autoseg.runtime.workspace import Workspace
from autoseg.schema import Budget, Choice, Configuration, Dataset, DiceRegression, Fingerprint, Labels, Plan, PostProcessing
from autoseg.schema.conventions import FORMAT
from autoseg.schema.run_record import RunRecord
from autoseg.schema.settings import PredictSettings
from autoseg.selection.quality_estimation import read_estimated_dice
from autoseg.trainers.run_environment import read_run_environments, remove_run_environment

WRITTEN = Path(__file__).parents[1] / "fixtures" / "results_0_1_0"
NAME = "Dataset001_Tiny"
MODELS = ("2d__Trainer", "3d_fullres__Trainer", "ensemble__Argmax__2models_b14bea")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder as 0.1.0 left it, with the images that it was trained on."""
    for part in ("preprocessed", "results"):
        shutil.copytree(WRITTEN / part, tmp_path / part)
    factories.write_dataset(tmp_path / "raw" / NAME)
    (tmp_path / "results" / NAME / "choice.json").touch()  # a checkout does not keep the order in which files were written
    return tmp_path


def test_models_and_their_records_are_listed_and_read(home: Path):
    workspace = Workspace(home)
    results = workspace.results(NAME)
    assert {model.name: model.trained_folds() for model in model_folders(results)} == dict.fromkeys(MODELS, ["0", "1"])
    cases = planned_dataset(workspace, 1).cases
    assert [case.name for case in cases] == list(factories.CASES)
    assert cases[0].images[0].is_relative_to(home)
    assert workspace.usable_cases(NAME) == factories.CASES
    assert workspace.plan(NAME).labels == factories.ORGANS
    for model in model_folders(results):
        record = model.run("0").record()
        assert record.budget.validation_intervals > 0
        assert record.plan.labels == factories.ORGANS
        assert [score.organ for score in model.run("0").scores()] == ["ball", "block"]
    assert record.configuration.network == "autoseg.networks.combiners:MaxConfidence"


def test_the_choice_and_what_lies_beside_it_are_read(home: Path):
    results = home / "results" / NAME
    choice = read_json(results / "choice.json", Choice)
    assert choice.rule == "supported"
    assert choice.postprocessing["ball"].components == 1
    assert choice.calibration["2d__Trainer"].temperature == pytest.approx(0.788, abs=1e-3)
    assert {one.case for one in read_estimated_dice(results, choice)["ball"]} == {"a", "d"}
    (environment,) = read_run_environments(results / MODELS[0] / "fold_0")
    assert environment.kind == "cpu"
    remove_run_environment(results / MODELS[0] / "fold_0")
    assert read_run_environments(results / MODELS[0] / "fold_0") == []


@pytest.mark.parametrize("model", [None, MODELS[2]])
def test_its_models_predict(home: Path, model: str | None):
    settings = PredictSettings(dataset=NAME, model=model, device="cpu")
    predict_folder(home / "raw" / NAME / "imagesTr", home / "out", settings=settings, home=home)
    for case in factories.CASES:
        found = read_label(home / "out" / f"{case}.nii.gz").array
        expected = read_label(WRITTEN / "predictions" / f"{case}.nii.gz").array
        assert found.shape == expected.shape
        assert model or np.array_equal(found, expected)


def test_its_results_are_reported(home: Path):
    page = write_report(NAME, home=home).read_text(encoding="utf-8")
    assert "2d__Trainer" in page and "0.9335" in page


def test_former_field_names_are_understood():
    assert from_jsonable({"kind": "time", "amount": 9.0, "rounds": 4}, Budget) == Budget("time", 9.0, 4)
    regions = {"names": ["a"], "members": [[1]], "regions": True, "paint": [1]}
    assert from_jsonable(regions, Labels) == factories.regions(a=(1,))
    line = DiceRegression(0.9, 0.05, 0.03, 0.7, 40)
    stored = {"organs": {}, "folds": [], "table": {}, "cases": 0, "by": "autoseg.evaluation.rules:cheapest"}
    stored |= {"cleaning": {"ball": {"components": 2}}, "reliability": {"ball": vars(line)}}
    choice = from_jsonable(stored, Choice)
    assert choice.rule == "autoseg.selection.rules:cheapest"
    assert choice.postprocessing == {"ball": PostProcessing(components=2)}
    assert choice.dice_regression == {"ball": line}
    with pytest.raises(ValueError, match="rounds"):  # a field under both names
        from_jsonable({"kind": "time", "amount": 1, "rounds": 1, "validation_intervals": 2}, Budget)


@pytest.mark.parametrize(
    ("stored", "present"),
    [
        ("autoseg.networks.combiners:Strongest", "autoseg.networks.combiners:MaxConfidence"),
        ("autoseg.networks.fusion:Fusion", "autoseg.networks.fusion:Fusion"),
        ("autoseg.trainers.cascade:CascadeTrainer", "autoseg.trainers.cascade.trainer:CascadeTrainer"),
        ("mine.networks:Strongest", "mine.networks:Strongest"),
        ("autoseg.normalization:zscore", "autoseg.preprocessing.normalization:zscore"),
        ("plain_unet", "plain_unet"),
    ],
)
def test_recorded_objects_are_found_where_they_are_now(stored: str, present: str):
    plain = to_jsonable(factories.make_configuration()) | {"network": stored, "normalization": [stored]}
    plain["network_options"]["network"] = stored
    found = from_jsonable(plain, Configuration)
    assert (found.network, found.normalization, found.network_options["network"]) == (present, (present,), present)


@pytest.mark.parametrize(
    ("name", "kind"), [("plan", Plan), ("choice", Choice), ("run", RunRecord), ("dataset", Dataset), ("fingerprint", Fingerprint)]
)
def test_files_of_a_newer_format_are_refused(tmp_path: Path, name: str, kind: type):
    write_json(tmp_path / f"{name}.json", {"format": FORMAT + 1})
    with pytest.raises(ValueError, match=rf"{name}\.json.*expected at most {FORMAT}, found {FORMAT + 1}"):
        read_json(tmp_path / f"{name}.json", kind)


def test_files_are_written_with_the_number_of_their_format(tmp_path: Path):
    write_json(tmp_path / "plan.json", factories.make_plan())
    assert read_json(tmp_path / "plan.json", dict)["format"] == FORMAT
    write_json(tmp_path / "split.json", Budget("time", 1.0, 1))
    assert "format" not in read_json(tmp_path / "split.json", dict)


def test_a_file_is_looked_for_under_its_present_name_first(tmp_path: Path):
    present, former = tmp_path / "run_environment.json", tmp_path / "trained_on.json"
    assert existing_file(present) == present
    former.touch()
    assert existing_file(present) == former
    present.touch()
    assert existing_file(present) == present
