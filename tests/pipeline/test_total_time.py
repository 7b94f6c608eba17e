"""The total time of trainings, said before the first begins: from budgets, from a measured step, or unknown."""

from __future__ import annotations

from datetime import datetime, tzinfo
from pathlib import Path

import pytest
from factories import make_configuration, make_plan

from autoseg.pipeline import total_time
from autoseg.pipeline.total_time import PlannedCases, describe_total
from autoseg.planners.splits import write_splits
from autoseg.runtime.hardware import StepCost
from autoseg.runtime.serialization import write_json
from autoseg.runtime.shown_text import duration
from autoseg.runtime.workspace import Workspace
from autoseg.schema import CaseFingerprint, Fingerprint, Plan, RunRecord, Split
from autoseg.schema.settings import TrainSettings
from autoseg.trainers import time_estimates
from autoseg.trainers.step_cost import Probe
from autoseg.trainers.training_spec import training_spec

PLAN = make_plan(make_configuration(2))


class Night(datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Night:
        return cls(2026, 1, 2, 22, 0)


@pytest.fixture(autouse=True)
def night(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(total_time, "datetime", Night)


def trainings(*several: TrainSettings) -> list[total_time.Training]:
    return [(settings, training_spec(PLAN, "2d", settings)) for settings in several]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[RunRecord]:
    """The jobs of which a step was measured: half a second, and in 3D nobody knows."""
    jobs: list[RunRecord] = []

    def measure(job: RunRecord, probe: Probe) -> StepCost | None:
        jobs.append(job)
        if job.trainer == "AdversarialTrainer":
            raise RuntimeError("a trial step failed")
        return StepCost(0.5, 1)

    monkeypatch.setattr(time_estimates, "measure_step", measure)
    return jobs


def said(home: Path, several: list[total_time.Training], folds: str = "0", *, plan: Plan = PLAN) -> str:
    splits = Workspace(home).preprocessed(plan.dataset) / "splits.json"
    if not splits.is_file():
        splits.parent.mkdir(parents=True, exist_ok=True)
        splits.write_text("[]")
    workspace = Workspace(home)
    return describe_total(several, list(folds), workspace, PlannedCases.read(workspace, plan))


def measured_cases(home: Path, plan: Plan, *, folds: int) -> None:
    """Writes the fingerprint of as many cases as folds, and the folds."""
    folder = Workspace(home).preprocessed(plan.dataset)
    names = [f"case_{index}" for index in range(folds)]
    cases = tuple(CaseFingerprint(name, (10, 40, 40), (1.0, 1.0, 1.0), 1.0, 2, (5, 5)) for name in names)
    write_json(folder / "fingerprint.json", Fingerprint(cases, plan.intensities, True))
    write_splits(folder / "splits.json", [Split(tuple(other for other in names if other != name), (name,)) for name in names])


def test_budgets_in_time_are_added_up_with_what_goes_with_them(tmp_path: Path, asked: list[RunRecord]) -> None:
    several = trainings(TrainSettings(seconds=300.0, organs=("ball",)), TrainSettings(seconds=300.0, organs=("block",)))
    expected = "In all 10 trainings: 50 min of training, at most 5 min of trying steps and 31 min of validation: done by about 23:26"
    assert said(tmp_path, several, "01234") == expected
    assert said(tmp_path, trainings(TrainSettings(seconds=300.0, trial=4))).endswith("at most 30 s of trying steps: done by about 22:05")
    assert not asked


def test_full_validation_is_estimated_by_that_of_the_planned_network(tmp_path: Path, asked: list[RunRecord]) -> None:
    measured_cases(tmp_path, PLAN, folds=3)
    full = TrainSettings(seconds=60.0, validation="full", device="cpu")
    words = said(tmp_path, trainings(full))
    assert "60 s of training, about 6 s of trying steps and " in words and " of validation, " in words and "done by" in words
    assert len(asked) == 1
    refused = TrainSettings(seconds=60.0, validation="full", trainer="AdversarialTrainer", device="cpu")
    assert said(tmp_path, trainings(refused)).endswith("60 s of training, with preprocessing and validation on top")


def test_preprocessing_counts_and_tomorrow_is_named(tmp_path: Path) -> None:
    measured_cases(tmp_path, PLAN, folds=3)
    words = said(tmp_path, trainings(TrainSettings(seconds=7200.0)), "0")
    assert " of preprocessing: done by about Sat 03 Jan 01:" in words


def test_of_iterations_a_step_is_measured_once_for_all_organs_and_folds(tmp_path: Path, asked: list[RunRecord]) -> None:
    measured_cases(tmp_path, PLAN, folds=5)
    several = trainings(*(TrainSettings(iterations=7200, organs=(organ,), device="cpu") for organ in ("ball", "block")))
    words = said(tmp_path, several, "01234")
    assert words.startswith("In all 10 trainings: 10 h 0 min of training, about 2 min of trying steps and ")
    assert " of validation, " in words
    assert len(asked) == 1


def test_what_nobody_knows_is_called_unknown(tmp_path: Path, asked: list[RunRecord]) -> None:
    several = trainings(TrainSettings(seconds=30.0), TrainSettings(iterations=500, trainer="AdversarialTrainer", device="cpu"))
    assert "30 s of training and the unknown time of 500 iterations in 1 of them, with preprocessing" in said(tmp_path, several)
    assert "the unknown time of 5 iterations" in said(tmp_path, trainings(TrainSettings(iterations=5)))
    assert len(asked) == 1, "a handful of steps is not worth the measurement"


def test_finished_trainings_are_not_counted_again(tmp_path: Path) -> None:
    (settings, spec), *_ = several = trainings(TrainSettings(seconds=60.0))
    run = spec.model(Workspace(tmp_path).results(PLAN.dataset), settings.trainer).run("0")
    for path in (run.checkpoint, run.scores_file):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert said(tmp_path, several, "01").startswith("In all 2 trainings, of which 1 is finished: 60 s of")


def test_a_cascade_needs_every_fold_of_its_first_stage_once(tmp_path: Path) -> None:
    plan = make_plan(make_configuration(name="3d_lowres"), make_configuration(name="3d_cascade", previous_stage="3d_lowres"))
    measured_cases(tmp_path, plan, folds=5)
    settings = TrainSettings(seconds=60.0)
    first, second = ([(settings, training_spec(plan, name, settings))] for name in ("3d_lowres", "3d_cascade"))
    for several in (second, first + second):
        assert said(tmp_path, several, plan=plan).startswith("In all 6 trainings: 6 min of training")


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.25, "0.25 s"), (90, "90 s"), (300, "5 min"), (16500, "4 h 35 min"), (200_000, "2 d 7 h")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
