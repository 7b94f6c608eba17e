"""Training on: a run gets more time than it was started with, whether it is interrupted or finished.

A run that was said to be the first part of a longer training (``--fit-to``) goes on exactly where it ended: its learning rate had fallen as
far as that of the whole, and its last checkpoint is kept. Its network, the moving average of the weights, is meanwhile what an annealed one
would nearly be. Any other finished run was annealed to its end, and goes on from its final networks, at the place in the schedule where a
training of the whole time would be by then: a warm restart (SGDR; Loshchilov & Hutter, ICLR 2017), whose rate then falls to zero once more.
Until the longer training is done the run stays what it was: its networks and ``run.json`` are replaced at the end, one after the other.
"""

from __future__ import annotations

import math
from dataclasses import replace

from ..runtime.runs import Run
from ..schema.run_record import RunRecord
from ..schema.settings import TrainSettings
from .run_setup import budget_of

LEAST_SECONDS = 1.0
"""A training that would be longer by less is finished."""


def check_longer(settings: TrainSettings, run: Run) -> None:
    """Raises a ValueError where a run cannot be trained on as asked for."""
    if not settings.longer:
        return
    if settings.restart:
        raise ValueError("--longer and --restart: expected only one of them")
    if settings.seconds is None:
        raise ValueError("--longer: expected the time of the training in all, that so far included; add --time 2h")
    if run.is_started and (budget := run.record().budget).kind != "time":
        raise ValueError(f"--longer: expected a run with a budget in time, found {run.folder} with {budget.why or budget.kind}")


def is_trained_on(run: Run, settings: TrainSettings) -> bool:
    """Whether a trained run is asked to be trained for longer than it was."""
    return settings.longer and run.is_trained and run.is_started and _seconds(settings) > run.record().budget.amount + LEAST_SECONDS


def with_requested_time(record: RunRecord, run: Run, settings: TrainSettings) -> RunRecord:
    """The record of a started run with the time that is asked for now; as it is where that run is trained, and not for longer.

    Its validation intervals stay as long as they are.
    """
    if (
        not settings.longer
        or math.isclose(_seconds(settings), record.budget.amount)
        or (run.is_trained and not is_trained_on(run, settings))
    ):
        return record
    intervals = max(1, round(record.budget.validation_intervals * _seconds(settings) / record.budget.amount))
    budget = replace(budget_of(settings), validation_intervals=min(1000, intervals))
    asked = None if record.settings is None else replace(record.settings, seconds=settings.seconds, fitted_seconds=settings.fitted_seconds)
    earlier = (*record.earlier_budgets, record.budget.amount) if run.is_trained else record.earlier_budgets
    return replace(record, budget=budget, settings=asked, earlier_budgets=earlier)


def _seconds(settings: TrainSettings) -> float:
    return settings.seconds or 0.0
