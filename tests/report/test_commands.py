"""The commands of the report: each makes a run with the values of the one that it was written for, in a folder of the same name."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import CASES, ORGANS, make_configuration, make_job, make_plan

import autoseg.pipeline
from autoseg import cli
from autoseg.pipeline import PlanSettings, TrainSettings
from autoseg.report.commands import choice_command, plan_command, training_command, with_fold
from autoseg.report.runs import commands
from autoseg.runtime.hardware import StepCost
from autoseg.runtime.registry import ENSEMBLE
from autoseg.runtime.serialization import read_json, to_plain, write_json
from autoseg.runtime.workspace import Workspace
from autoseg.schema import Budget, Choice, Configuration, Plan, Reason, Split
from autoseg.schema.run_record import RunRecord
from autoseg.trainers import run_setup as jobs
from autoseg.trainers.job import default_options
from autoseg.trainers.training_spec import training_spec

DATASET = "Dataset001_Tiny"

ASKED: dict[str, dict[str, Any]] = {
    "steps": {"iterations": 600},
    "many steps": {"iterations": 1_234_567},
    "epochs": {"epochs": 4},
    "time": {"seconds": 5400.0},
    "a long time": {"seconds": 1_300_000.5},
    "seed, batch and rate": {"iterations": 60, "seed": 7, "batch": 3, "learning_rate": 1e-5},
    "loss and average": {"iterations": 60, "options": {"loss": "generalised_dice", "average_decay": 0.0}},
    "training options": {"iterations": 60, "options": {"optimizer": "adam", "foreground": 0.5, "deep_supervision": False}},
    "augmentation": {"iterations": 60, "options": {"augmentation": {"scale_range": [0.8, 1.2], "noise_probability": 0.0}}},
    "a trainer with its own network": {"iterations": 60, "trainer": "PyramidTrainer", "trainer_options": {"fusion_from": 0.25}},
    "another one": {
        "iterations": 60,
        "trainer": "SpatialConfigurationTrainer",
        "trainer_options": {"localisation_loss": "generalised_dice"},
    },
    "a network": {"iterations": 60, "network": "vnet"},
    "the planned network by name": {"iterations": 60, "network": "plain_unet", "network_options": {"features": [8, 16]}},
    "options of the planned network": {"iterations": 60, "network_options": {"convs_per_stage": [2, 2]}},
    "organs": {"iterations": 60, "organs": ("block",)},
    "a window": {"iterations": 60, "organs": ("ball",), "window": (400.0, -50.0)},
    "normalisation": {"iterations": 60, "normalization": ("zscore",)},
    "normalisation of each channel": {"iterations": 60, "normalization": ("clip:-200:200", "nonorm")},
    "a tag": {"iterations": 60, "tag": "second"},
    "a tag like a network": {"iterations": 60, "tag": "vnet"},
    "all at once": {"iterations": 60, "organs": ("ball",), "network": "vnet", "window": (350.0, 50.0), "tag": "x.1"},
    "trained weights": {"iterations": 60, "pretrained": Path("/some where/2d__Trainer/fold_0/checkpoint_final.pt")},
}


def two_channels(dim: int) -> Configuration:
    return make_configuration(dim, normalization=("ct", "zscore"), mask_normalization=(False, False))


@pytest.fixture
def plan() -> Plan:
    return make_plan(two_channels(2), two_channels(3), channels=("CT", "MR"))


def begun(plan: Plan, settings: TrainSettings, home: Path, name: str = "3d_fullres") -> tuple[RunRecord, str]:
    """A run as it is recorded when it begins, and the name of its model's folder."""
    asked = training_spec(plan, name, settings)
    run = Workspace(home).model(DATASET, name, settings.trainer, *asked.words) / "fold_1"
    write_json(home / "run.json", jobs.new_job(asked, Split(CASES[:2], CASES[2:]), run, None, settings=settings))
    return read_json(home / "run.json", RunRecord), run.parent.name


def said(command: str, monkeypatch: pytest.MonkeyPatch) -> tuple[tuple[Any, ...], TrainSettings]:
    """What the training command hands on."""
    heard: list[tuple] = []
    monkeypatch.setattr(autoseg.pipeline, "train", lambda *arguments, home: heard.append(arguments))
    program, *words = shlex.split(command)
    assert program == "autoseg_train" and cli.train(words) == 0
    *which, settings = heard[0]
    return tuple(which), settings


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_a_command_makes_the_same_run(asked: dict[str, Any], plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "measure_step", lambda job, device: StepCost(1e-4, 10**6))
    job, model = begun(plan, TrainSettings(**asked, device="cpu"), tmp_path)
    which, settings = said(training_command(job, DATASET, model), monkeypatch)
    assert which == (DATASET, "3d_fullres", "1")
    again, folder = begun(plan, settings, tmp_path)
    assert folder == model
    jobs_ = [to_plain(replace(one, budget=replace(one.budget, why=""))) for one in (job, again)]
    assert jobs_[0] == jobs_[1]


def test_every_option_of_a_training_is_in_some_command(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jobs, "measure_step", lambda job, device: StepCost(1e-4, 10**6))
    told = set()
    for asked in ASKED.values():
        job, model = begun(plan, TrainSettings(**asked, device="cpu"), tmp_path)
        told |= {word for word in shlex.split(training_command(job, DATASET, model)) if word.startswith("--")}
    with pytest.raises(SystemExit):
        cli.train(["--help"])
    known = {word.strip("[],") for word in capsys.readouterr().out.split() if word.strip("[").startswith("--")}
    without_effect = {"--home", "--verbose", "--restart"}
    said_otherwise = {"--window", "--preset"}  # a window is a normalisation, a preset is what it stands for
    assert told == {word for word in known if word.strip("-")} - without_effect - said_otherwise - {"--help"}


def test_the_device_is_said_where_it_is_known_or_follows_from_the_options(plan: Plan) -> None:
    job = replace(make_job(plan), budget=Budget("time", 10_000.0, 10))
    for device, told in (("cpu", " --device cpu"), ("cuda", "")):
        one = replace(job, options=default_options(job.budget, device, batch=2))
        command = training_command(one, DATASET, "3d_fullres__Trainer")
        assert command == f"autoseg_train {DATASET} 3d_fullres 0 --time 10000s --seed 3 --batch 2{told}"
        assert training_command(one, DATASET, "3d_fullres__Trainer", device=device).endswith(f"--batch 2 --device {device}")


def test_a_trainer_that_cannot_be_found_keeps_its_command(plan: Plan) -> None:
    job = replace(make_job(plan), trainer="nowhere_to_be_found:Trainer", seed=0)
    command = training_command(job, DATASET, "3d_fullres__nowhere_to_be_found.Trainer")
    assert "--trainer nowhere_to_be_found:Trainer" in command and "--learning-rate 0.01" in command


def test_an_ensemble_of_all_folds_is_one_command(plan: Plan) -> None:
    configuration = make_configuration(name=ENSEMBLE)
    job = replace(make_job(replace(plan, configurations={ENSEMBLE: configuration}), ENSEMBLE), seed=0)
    job = replace(job, trainer="Logits", trainer_options={"kind": "logits", "members": ["2d__Trainer", "3d_fullres__Trainer"]})
    start = f"autoseg_train_ensemble {DATASET} --kind logits"
    assert training_command(job, DATASET, "ensemble__Logits", folds=("0", "1")) == f"{start} --folds 0 1 --iterations 8"
    named = training_command(job, DATASET, "ensemble__Logits__2models_0a1b2c")
    assert named == f"{start} --members 2d__Trainer 3d_fullres__Trainer --folds 0 --iterations 8"
    one = replace(job, plan=replace(job.plan, labels=replace(ORGANS, names=("ball", "block"))), trainer_options={"kind": "argmax"})
    assert training_command(one, DATASET, "ensemble__Argmax__ball+block").endswith("--organs ball block --folds 0")


@pytest.mark.parametrize(
    "asked",
    [
        PlanSettings(),
        PlanSettings(groups=r"^p\d+"),
        PlanSettings(groups=r"-(\w+)$", configurations=("2d", "3d_lowres"), preset="resenc_m", memory_gb=6.3, force_lowres=True),
        PlanSettings(spacing=(3.0, 0.1 + 0.2, 1 / 3), configurations=("2d",)),
    ],
)
def test_a_command_plans_with_the_settings_that_the_plan_records(
    asked: PlanSettings, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(tmp_path / "plan.json", replace(plan, settings=asked))
    program, *words = shlex.split(plan_command(read_json(tmp_path / "plan.json", Plan), DATASET))
    heard: list[tuple] = []
    monkeypatch.setattr(autoseg.pipeline, "plan_and_preprocess", lambda *arguments, home: heard.append(arguments) or plan)
    assert program == "autoseg_plan_and_preprocess" and cli.plan_and_preprocess(words) == 0
    assert heard == [(DATASET, asked)]


def test_a_plan_of_0_1_0_records_no_settings(plan: Plan, tmp_path: Path) -> None:
    write_json(tmp_path / "plan.json", {name: value for name, value in to_plain(plan).items() if name != "settings"})
    assert read_json(tmp_path / "plan.json", Plan).settings is None


def test_the_command_of_a_plan_without_settings_is_reconstructed(plan: Plan) -> None:
    three = replace(plan.configurations["3d_fullres"], spacing=(3.0, 0.78125, 1.0))
    asked = (
        Reason("all", "spacing", "0.7812 x 3 x 1", "as you asked"),
        Reason("3d_lowres", "spacing", "6 x 2 x 2", "as you asked: smaller"),
    )
    plan = replace(plan, configurations={"2d": plan.configurations["2d"], "3d_fullres": three}, transpose=(1, 0, 2), reasons=asked)
    told = plan_command(replace(plan, preset="resenc_m", memory_gb=6.5), DATASET)
    assert told.endswith("--preset resenc_m --memory 6.5GB --spacing 0.78125 3 1 --force-lowres")
    assert choice_command(Choice({}, (), {}, 0, by="cheapest", metric="nsd_surface"), DATASET).endswith(
        "--metric nsd_surface --rule cheapest"
    )
    limited = choice_command(Choice({}, (), {}, 0, max_members=1, max_seconds=2.5), DATASET)
    assert limited == f"autoseg_find_best_configuration {DATASET} --max-members 1 --max-seconds 2.5"
    assert with_fold("autoseg_train D 2d 0 --tag 'a b'", "3") == "autoseg_train D 2d 3 --tag 'a b'"


def test_what_a_training_needs_is_trained_before_it() -> None:
    from autoseg.report import RunFacts

    runs = [
        RunFacts("3d_cascade__Trainer", "0", command="second", needs=("3d_lowres__Trainer",)),
        RunFacts("3d_lowres__Trainer", "0", command="first"),
        RunFacts("ensemble__Logits", "0", command="third", needs=("3d_cascade__Trainer", "not there")),
        RunFacts("ensemble__Logits", "1", command="third", needs=("3d_cascade__Trainer",)),
    ]
    assert commands(DATASET, None, runs, None)[:3] == ("first", "second", "third")
