"""Learning from the cases of some of the datasets that were merged (Crespi et al. 2023, experiment 3)."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from ensemble_models import NAME, linked_home, planned_once, small

import autoseg
from autoseg.data.descriptions import planned_dataset, write_planned_dataset
from autoseg.runtime.hardware import StepCost
from autoseg.runtime.runs import ModelFolder
from autoseg.runtime.serialization import read_json, write_json
from autoseg.runtime.workspace import Workspace
from autoseg.schema import Plan
from autoseg.schema.settings import EnsembleSettings, TrainSettings
from autoseg.trainers.resume_checks import check_folds
from autoseg.trainers.trainer import Trainer

planned = pytest.fixture(scope="module")(planned_once)
linked = pytest.fixture(linked_home)


@pytest.fixture
def home(linked: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Cases 0 to 4 are of the dataset `one`, in which bars were not outlined, the others of `two`; networks are tiny."""
    copied = linked / "copied"
    shutil.copytree(linked / "preprocessed", copied)
    (linked / "preprocessed").unlink()
    copied.rename(linked / "preprocessed")
    workspace = Workspace(linked)
    dataset = planned_dataset(workspace, 3)
    cases = [replace(one, source="one" if one.name < "case_5" else "two") for one in dataset.cases]
    cases = [replace(one, annotated=("ball",)) if one.source == "one" else one for one in cases]
    write_planned_dataset(workspace, replace(dataset, cases=tuple(cases)))
    file = linked / "preprocessed" / NAME / "plan.json"
    plan = read_json(file, Plan)
    write_json(file, replace(plan, configurations={"2d": small(plan.configurations["2d"])}), digest=False)
    monkeypatch.setattr("autoseg.trainers.run_setup.measure_step", lambda job, device: StepCost(0.01, 1))
    monkeypatch.setattr("autoseg.trainers.history.plot_history", lambda rows, path: path.touch())
    return linked


def settings(*sources: str, **given: object) -> TrainSettings:
    return TrainSettings(sources=sources, iterations=1, device="cpu", batch=2, **given)


def test_a_model_learns_from_its_datasets_and_is_validated_on_all(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[int, set[str]] = {}
    make = Trainer.batch_maker

    def noting(self: Trainer, names: list[str], *, stream: int):  # noqa: ANN202
        seen[stream] = set(names)
        return make(self, names, stream=stream)

    monkeypatch.setattr(Trainer, "batch_maker", noting)
    splits = Workspace(home).splits(NAME)
    fold = next(str(number) for number, split in enumerate(splits) if min(split.val) < "case_5" <= max(split.val))
    scores = autoseg.train(3, "2d", fold, settings("two", organs=("ball",)), home=home)
    split = splits[int(fold)]
    assert seen == {0: {name for name in split.train if name >= "case_5"}, 1: {name for name in split.val if name >= "case_5"}}
    assert {one.case for one in scores} == set(split.val)
    (model,) = (home / "results" / NAME).glob("2d__*")
    assert model.name == "2d__Trainer__ball__from_two"
    run = ModelFolder(model).run(fold)
    check_folds([run], splits, home / "splits.json")
    learnt = max(split.train)  # of the dataset that is learnt from
    with pytest.raises(ValueError, match=f"found {learnt} elsewhere"):
        check_folds([run], [replace(one, train=tuple({*one.train} - {learnt})) for one in splits], home / "splits.json")
    assert autoseg.train(3, "2d", fold, settings("two", organs=("ball",)), home=home) == scores


def test_an_ensemble_of_models_of_different_datasets_learns_from_both(home: Path) -> None:
    for fold in (0, 1):
        autoseg.train(3, "2d", fold, settings("one", organs=("ball",)), home=home)
        autoseg.train(3, "2d", fold, settings("two", organs=("bar",)), home=home)
    made = EnsembleSettings(kind="logits", folds=("0",), iterations=1, device="cpu")
    scores = autoseg.pipeline.train_ensemble(3, made, home=home)["0"]
    splits = Workspace(home).splits(NAME)
    record = ModelFolder(next((home / "results" / NAME).glob("ensemble__*"))).run("0").record()
    assert set(record.split.train) == set(splits[1].val) and {one.case for one in scores} == set(splits[0].val)


def test_unknown_datasets_and_those_without_the_organ_are_refused_before_a_folder_is_made(home: Path) -> None:
    with pytest.raises(ValueError, match="--sources: source of Dataset003_Tiny: expected one of one, two, got 'three'"):
        autoseg.train(3, "2d", 0, settings("three"), home=home)
    with pytest.raises(ValueError, match="--sources one: expected training cases with annotations of bar, found none"):
        autoseg.train(3, "2d", 0, settings("one", organs=("bar",)), home=home)
    assert not (home / "results").exists()
