"""How long the trainings of a command will take in all, said before the first begins."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..planners.budget import ITERATIONS_PER_EPOCH, fit_batch
from ..runtime.hardware import choose_device
from ..runtime.serialization import to_jsonable
from ..schema import Split
from ..schema.run_record import RunRecord
from ..schema.settings import TrainSettings
from ..schema.training_options import TrainingOptions
from ..trainers.run_setup import budget_of
from ..trainers.step_cost import measure_step
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
    parts = [f"{in_words(known)} of training"] if known or not unknown else []
    if unknown:
        parts.append(f"the unknown time of {sum(unknown):g} iterations" + f" in {len(unknown)} of them" * bool(known))
    noun = "training" if count == 1 else "trainings"
    return f"In all {count} {noun}{done}: {' and '.join(parts)}, with preprocessing and validation on top"


def in_words(seconds: float) -> str:
    """A duration in the two units that suit it."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.3g} s"
    hours, days = minutes // 60, minutes // 1440
    if days:
        return f"{days} d {hours % 24} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


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
        measured[key] = _measured_step(settings, spec)
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


def _measured_step(settings: TrainSettings, spec: TrainingSpec) -> float | None:
    """Seconds of a step, measured in a process of its own; None where it cannot be taken, of which the training will say why."""
    device = choose_device(settings.device)
    configuration, _ = fit_batch(spec.configuration, device.type, batch=settings.batch)
    job = RunRecord(
        plan=spec.plan,
        configuration=configuration,
        fold="0",
        split=Split(("random",), ()),
        budget=budget_of(settings),
        seed=settings.seed,
        options=TrainingOptions(),
        trainer=settings.trainer,
        trainer_options=settings.trainer_options,
        settings=replace(settings, restart=False),
    )
    try:
        cost = measure_step(job, str(device))
    except (ValueError, RuntimeError) as error:
        log.debug("A step of %s was not measured: %s", configuration.name, error)
        return None
    return None if cost is None else cost.seconds
