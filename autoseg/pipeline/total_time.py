"""How long the trainings of a command will take in all, said before the first begins."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..planners.budget import ITERATIONS_PER_EPOCH
from ..runtime.serialization import to_jsonable
from ..runtime.shown_text import duration
from ..schema.settings import TrainSettings
from ..trainers.run_setup import budget_of
from ..trainers.time_estimates import predicted_step
from ..trainers.training_spec import TrainingSpec

log = logging.getLogger(__name__)

Training = tuple[TrainSettings, TrainingSpec]

LEAST_MEASURED = ITERATIONS_PER_EPOCH
"""Iterations of a training from which on the time of a step is measured for the total; shorter ones are not worth the measurement."""


def describe_total(
    trainings: Sequence[Training],
    folds: Sequence[str],
    results: Path,
    *,
    first_stages: Sequence[Training] = (),
    every_fold: Sequence[str] = (),
) -> str:
    """One sentence: how many trainings there are, how many of them are finished, and how long the others train in all.

    A budget in time is known; of one in iterations a step is measured for each network and patch, as the training itself does, and the
    total is that of the plan's batch. Preprocessing and validation come on top.

    Args:
        folds: Each training is run on each.
        results: ``results/<dataset>``, where finished ones are found.
        first_stages: That cascades among the trainings need, each on `every_fold`; those that are among the trainings count once.
    """
    runs: dict[Path, tuple[Training, bool]] = {}
    wanted = [(one, fold) for one in trainings for fold in folds] + [(one, fold) for one in first_stages for fold in every_fold]
    for (settings, spec), fold in wanted:
        run = spec.model(results, settings.trainer).run(fold)
        runs.setdefault(run.folder, ((settings, spec), run.is_finished and not settings.restart))
    left, count = [one for one, is_finished in runs.values() if not is_finished], len(runs)
    done = f", of which {count - len(left)} are finished" if len(left) < count else ""
    measured: dict[str, float | None] = {}
    seconds = [_seconds(settings, spec, measured) for settings, spec in left]
    unknown = [_steps(settings) for (settings, _), one in zip(left, seconds, strict=True) if one is None]
    known = sum(one for one in seconds if one is not None)
    parts = [f"{duration(known)} of training"] if known or not unknown else []
    if unknown:
        parts.append(f"the unknown time of {sum(unknown):g} iterations" + f" in {len(unknown)} of them" * bool(known))
    noun = "training" if count == 1 else "trainings"
    return f"In all {count} {noun}{done}: {' and '.join(parts)}, with preprocessing and validation on top"


def _steps(settings: TrainSettings) -> float:
    return budget_of(settings).amount


def _seconds(settings: TrainSettings, spec: TrainingSpec, measured: dict[str, float | None]) -> float | None:
    """How long a training takes; None where nobody knows."""
    budget = budget_of(settings)
    if budget.kind == "time":
        return budget.amount
    if budget.amount < LEAST_MEASURED:
        return None
    key = _same_cost(settings, spec)
    if key not in measured:
        cost = predicted_step(settings, spec)
        measured[key] = None if cost is None else cost.seconds
    step = measured[key]
    return None if step is None else step * budget.amount


def _same_cost(settings: TrainSettings, spec: TrainingSpec) -> str:
    """Trainings of which a step takes as long: those of other organs, as many, too."""
    facts: Mapping[str, object] = {
        "configuration": spec.configuration,
        "outputs": spec.plan.labels.n_outputs,
        "trainer": settings.trainer,
        "trainer_options": settings.trainer_options,
        "batch": settings.batch,
        "device": settings.device,
    }
    return json.dumps(to_jsonable(facts), sort_keys=True)
