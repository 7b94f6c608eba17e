"""A training as it is frozen into ``run.json``: budget, batch and patch that fit the device, and the cases of its fold."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..machine import choose_device, device_memory, free_memory
from ..model import Budget, Configuration, Split
from ..planners.budget import choose_budget, fit_batch, fit_memory, fit_time
from ..trainers.job import TrainingJob, TrainingOptions, default_options
from ..trainers.trial import measure_step
from ..workspace import Workspace
from .begun import patch_of_siblings
from .settings import TrainSettings
from .variants import Variant

log = logging.getLogger(__name__)


def split_of(workspace: Workspace, dataset: str, fold: str) -> Split:
    """Training and validation cases of a fold.

    Raises:
        ValueError: There is no such fold; the message lists those there are.
    """
    splits = workspace.splits(dataset)
    if fold == "all":
        return Split(workspace.usable_cases(dataset), workspace.usable_cases(dataset))
    if not fold.isdecimal() or int(fold) >= len(splits):
        expected = f"0 to {len(splits) - 1} or all" if splits else "all (one patient cannot be split)"
        raise ValueError(f"fold: expected {expected}, got {fold!r}")
    return splits[int(fold)]


def _like_siblings(configuration: Configuration, patch: tuple[int, ...] | None, run: Path) -> Configuration:
    """The configuration with the patch of the model's other folds, where there are any."""
    if patch is None or patch == configuration.patch_size:
        return configuration
    now, planned = ("x".join(map(str, sizes)) for sizes in (patch, configuration.patch_size))
    log.warning(
        "Patch %s as in the folds of this model that were begun before, not %s; to change it, move %s away.", now, planned, run.parent
    )
    return replace(configuration, patch_size=patch)


def new_job(asked: Variant, split: Split, run: Path, previous: Path | None, *, settings: TrainSettings) -> TrainingJob:
    """Describes a run that begins: what was asked for, made to fit device and budget.

    Args:
        asked: Plan and configuration.
        split: Cases of the fold.
        run: Its folder.
        previous: Segmentations of a cascade's first stage, in that stage's model folder; None without one.
        settings: What the user asked for.

    Raises:
        ValueError: The patch of the model's other folds does not fit on this device.
        RuntimeError: Not even the smallest patch does.
    """
    device = choose_device(settings.device)
    budget = budget_of(settings)
    configuration, batch_why = fit_batch(asked.configuration, device.type, batch=settings.batch)
    siblings_patch = patch_of_siblings(run)
    configuration = _like_siblings(configuration, siblings_patch, run)
    job = TrainingJob(
        plan=asked.plan,
        configuration=configuration,
        fold=run.name.removeprefix("fold_"),
        split=split,
        budget=budget,
        seed=settings.seed,
        options=_options(budget, device.type, configuration.batch_size, settings),
        trainer=settings.trainer,
        pretrained=settings.pretrained,
        previous_model=None if previous is None else previous.parent.name,
        trainer_options=settings.trainer_options,
    )
    free_memory(device)  # a training before this one may have left some
    configuration, cost, memory_why = fit_memory(
        configuration, lambda one: measure_step(replace(job, configuration=one), str(device)), limit_bytes=device_memory(device)
    )
    if siblings_patch is None:
        configuration, patch_why = fit_time(configuration, budget, cost.seconds)
    elif configuration.patch_size == siblings_patch:
        patch_why = ""
    else:
        raise ValueError(f"{run}: patch {siblings_patch} of the model's other folds does not fit on {device}; move {run.parent} away")
    log.info("Training %s, fold %s, on %s: %s.", configuration.name, run.name.removeprefix("fold_"), device, budget.why)
    log.info("%s; %.3g s and %.1f GB a step.", batch_why, cost.seconds, cost.peak_bytes / 1e9)
    for why in filter(None, (memory_why, patch_why)):
        log.info("%s.", why)
    if budget.kind == "iterations":
        log.info("It will take about %s.", _duration(budget.amount * cost.seconds))
    return replace(job, configuration=configuration, options=_options(budget, device.type, configuration.batch_size, settings))


def _options(budget: Budget, device_type: str, batch: int, settings: TrainSettings) -> TrainingOptions:
    return default_options(budget, device_type, batch=batch, fine_tunes=settings.pretrained is not None, changes=changes_of(settings))


def changes_of(settings: TrainSettings) -> dict[str, Any]:
    """The training options that the user asked for."""
    return settings.options | ({} if settings.learning_rate is None else {"learning_rate": settings.learning_rate})


def budget_of(settings: TrainSettings) -> Budget:
    """How long to train: what the user said, or the default of the device."""
    device = choose_device(settings.device)
    return choose_budget(device.type, epochs=settings.epochs, iterations=settings.iterations, seconds=settings.seconds)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{max(1, minutes)} min"
