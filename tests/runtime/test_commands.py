"""Commands that make results again: each hands on the settings that were recorded."""

from __future__ import annotations

import shlex
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from factories import make_job, make_plan

import autoseg.pipeline
from autoseg import cli
from autoseg.report.content import RunFacts
from autoseg.report.runs import commands
from autoseg.runtime.commands import choice_command, plan_command, train_command
from autoseg.runtime.migrate.artefacts import complete_record
from autoseg.runtime.serialization import read_json, to_jsonable, write_json
from autoseg.schema import Choice, EnsembleRecord, Plan, Reason, RunRecord
from autoseg.schema.settings import EnsembleSettings, PlanSettings, TrainSettings
from autoseg.trainers.trial_checks import checked_training_options

DATASET = "Dataset001_Tiny"

GIVEN: dict[str, Any] = {
    "trainer": "PyramidTrainer",
    "trainer_options": {"fusion_from": 0.25, "name": "a b"},
    "network": "vnet",
    "network_options": {"features": [8, 16]},
    "organs": ("ball", "left block"),
    "sources": ("Dataset001_One", "Dataset002_Two"),
    "window": (400.0, -50.5),
    "window_bits": 8,
    "center_crop": (320, 300),
    "slice_shape": (256, 250),
    "patch": (224, 220),
    "sigmoid": False,
    "pseudo_labels": True,
    "normalization": ("clip:-200:200", "nonorm"),
    "options": {"loss": "ce", "foreground": 0.5, "deep_supervision": False, "augmentation": {"scale_range": [0.8, 1.2]}},
    "epochs": 4,
    "iterations": 1_234_567,
    "first_iterations": 9,
    "seconds": 1_300_000.5,
    "fitted_seconds": 2_600_000.5,
    "longer": True,
    "trial": 12,
    "validation": "full",
    "seed": 7,
    "device": "cuda:1",
    "batch": 3,
    "learning_rate": 1e-5,
    "pretrained": Path("/some where/2d__Trainer/fold_0/checkpoint_final.pt"),
    "tag": "x.1",
}
TOGETHER = {"normalization": "window", "iterations": "epochs"}
"""Settings that exclude each other on the command line."""


def handed_on(command: str, name: str, monkeypatch: pytest.MonkeyPatch, result: object = None) -> tuple[Any, ...]:
    """What a command hands to the function of the pipeline."""
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(autoseg.pipeline, name, lambda *arguments, home, **failures: calls.append(arguments) or result)
    program, *words = shlex.split(command)
    assert getattr(cli, program.removeprefix("autoseg_"))(words) == 0
    return calls[0]


def record(settings: TrainSettings) -> RunRecord:
    return replace(make_job(make_plan()), settings=settings, fold="1")


@pytest.mark.parametrize("name", GIVEN)
def test_every_setting_of_a_training_comes_back(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = TrainSettings(**{name: GIVEN[name]})
    write_json(tmp_path / "run.json", record(settings))
    command = train_command(read_json(tmp_path / "run.json", RunRecord))
    which = handed_on(command, "train", monkeypatch)
    assert which[:3] == (DATASET, "3d_fullres", "1")
    assert to_jsonable(which[3]) == to_jsonable(settings)


def test_no_command_that_a_file_leads_to_allows_code() -> None:
    command = train_command(record(TrainSettings(allow_code=("of_a_stranger",), tag="x")))
    assert "allow-code" not in command and "of_a_stranger" not in command and "--tag x" in command


def test_all_settings_together_and_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {item.name for item in fields(TrainSettings)} - {"restart", "allow_code", "rate_of_preset"} == set(GIVEN)
    for left_out in (set(TOGETHER), set(TOGETHER.values()) | {"seconds"}):
        settings = TrainSettings(**{name: value for name, value in GIVEN.items() if name not in left_out})
        assert to_jsonable(handed_on(train_command(record(settings)), "train", monkeypatch)[3]) == to_jsonable(settings)
    assert train_command(record(TrainSettings())) == f"autoseg_train {DATASET} 3d_fullres 1"
    assert train_command(record(TrainSettings(restart=True)), fold="all") == f"autoseg_train {DATASET} 3d_fullres all"


def test_the_device_is_named_where_it_is_known() -> None:
    assert train_command(record(TrainSettings()), device="cpu").endswith("1 --device cpu")
    assert train_command(record(TrainSettings(device="cuda:1")), device="cuda").endswith("1 --device cuda:1")


def test_a_run_of_0_1_0_gives_every_resolved_value(monkeypatch: pytest.MonkeyPatch) -> None:
    old = complete_record(replace(make_job(make_plan(), learning_rate=0.02, loss="ce"), settings=None))
    settings = handed_on(train_command(old), "train", monkeypatch)[3]
    assert (settings.iterations, settings.seed, settings.batch, settings.learning_rate) == (8, 3, 2, 0.02)
    options = {**settings.options, "learning_rate": settings.learning_rate}
    assert options.items() >= {name: value for name, value in to_jsonable(old.options).items() if name != "augmentation"}.items()


def test_momentum_that_earlier_versions_recorded_and_did_not_use_is_none() -> None:
    job = make_job(make_plan(), optimizer="rmsprop", momentum=0.99)
    assert complete_record(job).options.momentum == 0, "a run that has no checkpoint yet goes on without it, too"
    asked = replace(job, settings=TrainSettings(options={"optimizer": "rmsprop", "momentum": 0.99}))
    assert complete_record(asked) == asked
    old = complete_record(replace(make_job(make_plan()), settings=None))
    assert (old.options.optimizer, old.settings.options["momentum"]) == ("adamw", 0.0)
    assert checked_training_options(replace(old.settings, iterations=8)).momentum == 0, "so its command is not refused"


def test_an_ensemble_of_all_folds_is_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = EnsembleSettings(kind="logits", members=("2d__Trainer", "3d_fullres__Trainer"), organs=("left ball",), iterations=8)
    of_ensemble = replace(
        make_job(make_plan()), settings=None, ensemble=EnsembleRecord("logits", settings.members, "2d__Trainer", settings)
    )
    which = handed_on(train_command(of_ensemble, folds=("0", "1")), "train_ensemble", monkeypatch, {})
    assert which == (DATASET, replace(settings, folds=("0", "1")))
    old = replace(
        make_job(make_plan()), settings=None, trainer_options={"kind": "argmax", "members": ["a__T", "b__T"], "reference": "a__T"}
    )
    members = complete_record(old)
    assert members.ensemble == EnsembleRecord("argmax", ("a__T", "b__T"), "a__T") and members.trainer_options == {}
    assert "--kind argmax --members a__T b__T" in train_command(members)


@pytest.mark.parametrize(
    "settings",
    [
        PlanSettings(),
        PlanSettings(groups=r"^p\d+"),
        PlanSettings(groups=r"-(\w+)$", configurations=("2d", "3d_lowres"), preset="resenc_m", memory_gb=6.3, force_lowres=True),
        PlanSettings(spacing=(3.0, 0.1 + 0.2, 1 / 3), configurations=("2d",)),
        PlanSettings(spacing="x2", one_grid=True),
    ],
)
def test_a_command_plans_with_the_recorded_settings(settings: PlanSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOSEG_HOME", str(tmp_path))
    (tmp_path / "raw").mkdir()
    plan = replace(make_plan(), settings=settings)
    assert handed_on(plan_command(plan), "plan_and_preprocess", monkeypatch, plan) == (DATASET, settings)


def test_a_plan_of_0_1_0_says_what_its_values_and_reasons_say(tmp_path: Path) -> None:
    plan = make_plan()
    write_json(tmp_path / "plan.json", {name: value for name, value in to_jsonable(plan).items() if name != "settings"})
    plan = read_json(tmp_path / "plan.json", Plan)
    assert plan.settings is None
    one = replace(plan.configurations["3d_fullres"], spacing=(3.0, 0.78125, 1.0))
    reasons = (
        Reason("all", "spacing", "0.7812 x 3 x 1", "as you asked"),
        Reason("3d_lowres", "spacing", "6 x 2 x 2", "as you asked: smaller"),
    )
    plan = replace(plan, configurations={"3d_fullres": one}, transpose=(1, 0, 2), reasons=reasons, preset="resenc_m", memory_gb=6.5)
    assert plan_command(plan).endswith("--preset resenc_m --memory 6.5GB --spacing 0.78125 3 1 --force-lowres")


def test_a_choice_by_other_settings_than_the_usual_ones() -> None:
    assert choice_command(Choice({}, (), {}, 0), DATASET) == f"autoseg_find_best_configuration {DATASET}"
    limited = Choice({}, (), {}, 0, rule="cheapest", metric="nsd_surface", max_members=1, max_seconds=2.5)
    assert choice_command(limited, DATASET).endswith("--metric nsd_surface --rule cheapest --max-members 1 --max-seconds 2.5")


def test_what_a_training_needs_is_trained_before_it() -> None:
    runs = [
        RunFacts("3d_cascade__Trainer", "0", command="second", needs=("3d_lowres__Trainer",)),
        RunFacts("3d_lowres__Trainer", "0", command="first"),
        RunFacts("ensemble__Logits", "0", command="third", needs=("3d_cascade__Trainer", "not there")),
        RunFacts("ensemble__Logits", "1", command="third", needs=("3d_cascade__Trainer",)),
    ]
    assert commands(DATASET, None, runs, None)[:3] == ("first", "second", "third")
