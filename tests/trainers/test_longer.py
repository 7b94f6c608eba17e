"""A run that gets more time: it goes on from where it was, and stays what it was until the longer training is done."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from factories import make_job, make_plan
from trainer_runs import Killed, build, elsewhere, equal, kill_at, weights

from autoseg.runtime.checkpoints import load_checkpoint
from autoseg.runtime.runs import Run, read_history
from autoseg.runtime.serialization import read_json, write_json
from autoseg.schema import Budget
from autoseg.schema.run_record import RunRecord
from autoseg.schema.settings import TrainSettings
from autoseg.trainers.longer import check_longer, is_trained_on, with_requested_time
from autoseg.trainers.run_setup import budget_of, fitted_budget

NAMES = ("Trainer", "AdversarialTrainer", "PyramidTrainer", "SpatialConfigurationTrainer")


def record(seconds: float = 60.0) -> RunRecord:
    budget = Budget("time", seconds, 4, "a minute")
    return dataclasses.replace(make_job(make_plan()), budget=budget, settings=TrainSettings(seconds=seconds))


@pytest.fixture
def finished(folders, no_pictures):
    """A run of eight iterations, trained."""
    job = make_job(make_plan(), warmup=0.2)
    build("Trainer", job, folders).fit()
    return job


@pytest.mark.parametrize("name", NAMES)
def test_every_trainer_goes_on_from_its_final_networks(name, folders, no_pictures):
    job = make_job(make_plan(), iterations=4, validation_intervals=2)
    build(name, job, folders).fit()
    before, rows = weights(folders), read_history(folders.files.history_file)
    longer = dataclasses.replace(job, budget=Budget("iterations", 8, 4))
    trainer = build(name, longer, folders)
    trainer.restore()
    at_start = trainer.final_states()["network"]
    assert equal(before, {key: tensor.clone() for key, tensor in at_start.items()})
    assert (trainer.iteration, trainer.interval) == (4, 2)
    build(name, longer, folders).fit(longer=True)
    states, meta = load_checkpoint(folders.files.checkpoint)
    assert meta["iteration"] == 8 and not equal(before, states["network"])
    now = read_history(folders.files.history_file)
    assert [row["validation_interval"] for row in now] == [1, 2, 3, 4] and now[:2] == rows


def test_without_being_asked_a_trained_run_stays_as_it_is(folders, finished):
    before = weights(folders)
    build("Trainer", dataclasses.replace(finished, budget=Budget("iterations", 16, 8)), folders).fit()
    assert equal(before, weights(folders))


def test_the_rate_rises_anew_and_falls_to_zero(folders, finished, monkeypatch):
    trainer = build("Trainer", dataclasses.replace(finished, budget=Budget("iterations", 16, 8)), folders)
    rates, step = [], trainer.step

    def noted(batch):
        rates.append(trainer.optimized.learning_rate)
        return step(batch)

    trainer.step = noted
    trainer.fit(longer=True)
    assert len(rates) == 8 and rates[0] < rates[2] and rates[2] > rates[-1]
    assert max(rates) < 0.55e-2, "at the place of the longer schedule, and not at its start"


def test_until_the_longer_training_is_done_the_former_networks_stay(folders, finished):
    before, longer = weights(folders), dataclasses.replace(finished, budget=Budget("iterations", 16, 8))
    trainer = build("Trainer", longer, folders)
    kill_at(trainer, 13)
    with pytest.raises(Killed):
        trainer.fit(longer=True)
    assert equal(before, weights(folders)) and folders.files.latest_checkpoint.is_file()
    build("Trainer", longer, folders).fit(longer=True)
    assert load_checkpoint(folders.files.checkpoint)[1]["iteration"] == 16
    assert not folders.files.latest_checkpoint.is_file()


def test_killed_before_the_record_was_written_it_is_done_at_once(folders, finished):
    longer = dataclasses.replace(finished, budget=Budget("iterations", 16, 8))
    build("Trainer", longer, folders).fit(longer=True)
    before = weights(folders)
    build("Trainer", longer, folders).fit(longer=True)
    assert equal(before, weights(folders))


@pytest.fixture
def steps_as_seconds(monkeypatch):
    """Makes a trainer's clock tell the number of its steps; `rates` are those of all steps."""

    def clocked(trainer):
        monkeypatch.setattr("autoseg.trainers.trainer.time", SimpleNamespace(monotonic=lambda: float(trainer.iteration)))
        step = trainer.step

        def counted(batch):
            rates.append(trainer.optimized.learning_rate)
            return step(batch)

        trainer.step = counted
        return trainer

    rates: list[float] = []
    clocked.rates = rates
    return clocked


@pytest.mark.parametrize("name", ["Trainer", "AdversarialTrainer"])
def test_the_first_part_of_a_training_and_its_rest_are_that_training(name, folders, no_pictures, steps_as_seconds):
    def job(seconds: float) -> RunRecord:
        options = {"warmup": 0.25, "average_decay": 0.5, "optimizer": "adamw", "learning_rate": 1e-3}
        budget, settings = Budget("time", seconds, round(seconds / 2)), TrainSettings(seconds=seconds, fitted_seconds=8)
        return dataclasses.replace(make_job(make_plan(), **options), budget=budget, settings=settings)

    at_once = elsewhere(folders, "fold_1")
    steps_as_seconds(build(name, job(8), at_once)).fit()
    rates = steps_as_seconds.rates.copy()
    steps_as_seconds.rates.clear()
    steps_as_seconds(build(name, job(4), folders)).fit()
    part = weights(folders)
    assert load_checkpoint(folders.files.checkpoint)[1]["iteration"] == 4 and folders.files.latest_checkpoint.is_file()
    assert equal(part, build(name, job(4), folders).fit().state_dict()), "not trained on unless asked for"
    steps_as_seconds(build(name, job(8), folders)).fit(longer=True)
    assert steps_as_seconds.rates == rates and rates[3] > rates[-1]
    assert equal(weights(folders), weights(at_once)) and not equal(weights(folders), part)
    assert not folders.files.latest_checkpoint.is_file()


def test_how_far_the_rate_falls():
    part = dataclasses.replace(record(15), settings=TrainSettings(seconds=15, fitted_seconds=60))
    assert part.scheduled_share == 0.25 and record(15).scheduled_share == 1
    assert dataclasses.replace(part, budget=Budget("time", 90, 4)).scheduled_share == 1


def test_a_run_in_progress_takes_the_time_that_is_asked_for_now(tmp_path):
    run = Run(tmp_path / "fold_0")
    write_json(run.record_file, record())
    now = with_requested_time(run.record(), run, TrainSettings(seconds=30, longer=True))
    assert now.budget.amount == 30 and now.budget.validation_intervals == 2, "intervals as long as before"
    assert now.settings is not None and now.settings.seconds == 30 and now.earlier_budgets == ()
    assert with_requested_time(run.record(), run, TrainSettings(seconds=30)) == run.record()


def test_a_trained_run_gets_more_time_and_never_less(tmp_path):
    run = Run(tmp_path / "fold_0")
    write_json(run.record_file, record())
    run.checkpoint.touch()
    assert with_requested_time(run.record(), run, TrainSettings(seconds=30, longer=True)) == run.record()
    now = with_requested_time(run.record(), run, TrainSettings(seconds=600, longer=True))
    assert (now.budget.amount, now.budget.validation_intervals, now.earlier_budgets) == (600, 40, (60,))
    assert is_trained_on(run, TrainSettings(seconds=600, longer=True)) and not is_trained_on(run, TrainSettings(seconds=600))
    whole = with_requested_time(run.record(), run, TrainSettings(seconds=600, fitted_seconds=900, longer=True))
    assert whole.settings is not None and whole.settings.fitted_seconds == 900
    write_json(run.record_file, now)
    assert not is_trained_on(run, TrainSettings(seconds=600, longer=True))
    assert read_json(run.record_file, RunRecord).earlier_budgets == (60,)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (TrainSettings(longer=True), "--longer: expected the time of the training in all"),
        (TrainSettings(longer=True, seconds=5, restart=True), "--longer and --restart"),
        (TrainSettings(longer=True, seconds=5), "--longer: expected a run with a budget in time, found"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(tmp_path, settings, message):
    run = Run(tmp_path / "fold_0")
    write_json(run.record_file, make_job(make_plan()))
    with pytest.raises(ValueError, match=message):
        check_longer(settings, run)


def test_the_first_part_of_a_training_is_fitted_to_the_whole():
    settings = TrainSettings(seconds=120, fitted_seconds=1200, device="cpu")
    assert (budget_of(settings).amount, budget_of(settings).validation_intervals) == (120, 2)
    assert (fitted_budget(settings).amount, fitted_budget(settings).validation_intervals) == (1200, 20)
    assert fitted_budget(TrainSettings(seconds=120, device="cpu")) == budget_of(TrainSettings(seconds=120, device="cpu"))
    assert torch.get_num_threads() == 1
