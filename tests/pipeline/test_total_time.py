"""The total time of trainings, said before the first begins: from budgets, from a measured step, or unknown."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories import make_configuration, make_plan

from autoseg.pipeline import total_time
from autoseg.pipeline.total_time import describe_total
from autoseg.runtime.hardware import StepCost
from autoseg.runtime.shown_text import duration
from autoseg.schema import RunRecord
from autoseg.schema.settings import TrainSettings
from autoseg.trainers import time_estimates
from autoseg.trainers.step_cost import Probe
from autoseg.trainers.training_spec import training_spec

PLAN = make_plan(make_configuration(2))


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


def test_budgets_in_time_are_added_up(tmp_path: Path, asked: list[RunRecord]) -> None:
    several = trainings(TrainSettings(seconds=300.0, organs=("ball",)), TrainSettings(seconds=300.0, organs=("block",)))
    expected = "In all 10 trainings: 50 min of training, with preprocessing and validation on top"
    assert describe_total(several, list("01234"), tmp_path) == expected
    assert not asked


def test_of_iterations_a_step_is_measured_once_for_all_organs_and_folds(tmp_path: Path, asked: list[RunRecord]) -> None:
    several = trainings(*(TrainSettings(iterations=7200, organs=(organ,), device="cpu") for organ in ("ball", "block")))
    assert describe_total(several, list("01234"), tmp_path).startswith("In all 10 trainings: 10 h 0 min of training")
    assert len(asked) == 1


def test_what_nobody_knows_is_called_unknown(tmp_path: Path, asked: list[RunRecord]) -> None:
    several = trainings(TrainSettings(seconds=30.0), TrainSettings(iterations=500, trainer="AdversarialTrainer", device="cpu"))
    said = describe_total(several, ["0"], tmp_path)
    assert "30 s of training and the unknown time of 500 iterations in 1 of them" in said
    assert "the unknown time of 5 iterations" in describe_total(trainings(TrainSettings(iterations=5)), ["0"], tmp_path)
    assert len(asked) == 1, "a handful of steps is not worth the measurement"


def test_finished_trainings_are_not_counted_again(tmp_path: Path) -> None:
    (settings, spec), *_ = several = trainings(TrainSettings(seconds=60.0))
    run = spec.model(tmp_path, settings.trainer).run("0")
    for path in (run.checkpoint, run.scores_file):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert describe_total(several, ["0", "1"], tmp_path).startswith("In all 2 trainings, of which 1 are finished: 1 min of")


def test_a_cascade_needs_every_fold_of_its_first_stage_once(tmp_path: Path) -> None:
    plan = make_plan(make_configuration(name="3d_lowres"), make_configuration(name="3d_cascade", previous_stage="3d_lowres"))
    settings = TrainSettings(seconds=60.0)
    first, second = ([(settings, training_spec(plan, name, settings))] for name in ("3d_lowres", "3d_cascade"))
    for several in (second, first + second):
        said = describe_total(several, ["0"], tmp_path, first_stages=first, every_fold=list("01234"))
        assert said.startswith("In all 6 trainings: 6 min of training")


@pytest.mark.parametrize(("seconds", "words"), [(30, "30 s"), (300, "5 min"), (16500, "4 h 35 min"), (200_000, "2 d 7 h")])
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
