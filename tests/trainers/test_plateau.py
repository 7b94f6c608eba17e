"""A learning rate that falls where the smoothed validation loss does not, an early end, and both after an interruption."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from factories import make_job, make_plan
from trainer_runs import elsewhere, equal, run_until_killed, weights

from autoseg.schema.training_options import TrainingOptions
from autoseg.trainers.history import History
from autoseg.trainers.plateau import Plateau
from autoseg.trainers.trainer import Trainer

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("no_pictures")


def after(*losses: float, **options: object) -> Plateau:
    plateau = Plateau(TrainingOptions(**{"schedule": "plateau", "plateau_smoothing": 0.0, "plateau_patience": 2, **options}))
    for loss in losses:
        plateau.add(loss)
    return plateau


def test_the_rate_falls_after_the_intervals_of_patience_and_again_after_as_many() -> None:
    factors = [after(*[1.0, 0.5, *[0.6] * n]).factor for n in range(6)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert after(1.0, 0.5, 0.6, 0.4, 0.5).factor == 1, "a new minimum begins the count anew"
    assert after(1.0, 0.5, 0.6, 0.6, plateau_factor=0.5).factor == 0.5
    assert after(1.0, 0.5, 0.6, 0.6, schedule="constant").factor == 1


def test_the_loss_is_smoothed_before_it_is_compared() -> None:
    assert after(1.0, 0.5, 0.9, plateau_smoothing=0.75).average == pytest.approx(0.75 * (0.75 * 1.0 + 0.25 * 0.5) + 0.25 * 0.9)
    noisy = [1.0, 0.5, 0.9, 0.6, 0.8, 0.55]
    assert after(*noisy).factor < 1
    assert after(*noisy, plateau_smoothing=0.9).factor == 1, "on average it still falls"


def test_training_ends_after_as_many_intervals_without_a_minimum_and_only_if_asked() -> None:
    assert not after(*[1.0] * 50).has_ended
    assert [after(*[1.0] * n, early_stopping=3).has_ended for n in (3, 4)] == [False, True]


def test_intervals_that_were_not_scored_count_for_nothing() -> None:
    assert after(1.0, math.nan, 1.0, math.nan).waited == 1


def test_states_go_through_a_checkpoint() -> None:
    one, other = after(1.0, 0.5, 0.6, 0.7), after()
    other.load(one.states())
    assert other.states() == one.states()
    other.load({})
    assert other.states() == one.states(), "a checkpoint of an earlier version has none"


@pytest.mark.parametrize(
    ("name", "value"), [("plateau_patience", 0), ("plateau_factor", 1.0), ("plateau_smoothing", 1.0), ("early_stopping", -1)]
)
def test_options_that_make_no_sense_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        TrainingOptions(**{name: value})


class RisingLoss(Trainer):
    """Its validation loss has a minimum in the third interval."""

    def _score_patches(self) -> dict[str, float]:
        return {**super()._score_patches(), "validation_loss": abs(self.interval - 2.0)}


def trainer(folders, **options: object) -> Trainer:
    job = make_job(make_plan(), iterations=16, validation_intervals=8, schedule="plateau", optimizer="adamw")
    options = {"plateau_smoothing": 0.0, "plateau_patience": 2, "early_stopping": 4, **options}
    job = dataclasses.replace(job, options=dataclasses.replace(job.options, **options))
    return RisingLoss(job, folders, device=CPU, progress=False)


def test_a_run_falls_ends_early_and_is_finished(folders) -> None:
    trainer(folders).fit()
    rows = History(folders.run).rows
    assert [row["learning_rate"] for row in rows] == pytest.approx([1e-2] * 5 + [1e-3] * 2)
    assert folders.files.is_trained
    trainer(elsewhere(folders, "whole"), early_stopping=0).fit()
    assert len(History(elsewhere(folders, "whole").run).rows) == 8


@pytest.mark.parametrize("iteration", [3, 9, 11, 13])
def test_a_run_that_is_killed_anywhere_goes_on_with_the_rate_and_the_count_it_had(folders, iteration, monkeypatch) -> None:
    monkeypatch.setattr("autoseg.trainers.trainer.SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    trainer(folders).fit()
    killed = elsewhere(folders, "killed")
    run_until_killed(trainer(killed), iteration)
    trainer(killed).fit()
    assert equal(weights(killed), weights(folders))
    columns = ("learning_rate", "train_loss", "validation_loss", "iteration")
    assert [[row[name] for name in columns] for row in History(killed.run).rows] == [
        [row[name] for name in columns] for row in History(folders.run).rows
    ]
