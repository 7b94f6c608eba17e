"""The record of a run that starts: budget, batch and patch that fit the device, and the cases of its fold."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..data.annotations import annotated_indices
from ..planners.budget import MIN_BATCH_SIZE, choose_budget, fit_batch, fit_memory, fit_time_budget, probing_limit
from ..runtime.hardware import StepCost, choose_device, device_memory, release_memory
from ..runtime.registry import lookup, unknown_name_error
from ..runtime.runs import Run
from ..runtime.shown_text import duration
from ..runtime.workspace import Workspace
from ..schema import Budget, Configuration, Dataset, Labels, Mirroring, Split
from ..schema.run_record import RunRecord, ValidationSettings
from ..schema.settings import TrainSettings
from ..schema.training_options import TrainingOptions
from . import TRAINERS
from .fine_tuning import width_of
from .learning_checks import too_few_steps
from .run_options import default_options, sibling_configuration
from .step_cost import Probe, measure_step, measured_tile
from .trainer import Trainer
from .training_spec import TrainingSpec
from .validation_plan import FULL, CaseSize, as_validated, describe, plan_validation, predicted_validation, validation_limit

log = logging.getLogger(__name__)


def split_of(workspace: Workspace, dataset: str, fold: str) -> Split:
    """Training and validation cases of a fold.

    Raises:
        ValueError: There is no such fold; the message lists those there are.
    """
    splits = workspace.splits(dataset)
    if fold == "all":
        return Split(workspace.usable_cases(dataset), workspace.usable_cases(dataset))
    return splits[check_fold(fold, splits)]


def check_fold(fold: str, splits: Sequence[Split]) -> int:
    """The number of a fold by its name; a ValueError where there is no such fold."""
    if not fold.isdecimal() or int(fold) >= len(splits):
        expected = f"0 to {len(splits) - 1} or all" if splits else "all (one patient cannot be split)"
        raise ValueError(f"fold: expected {expected}, got {fold!r}")
    return int(fold)


def of_sources(split: Split, dataset: Dataset, settings: TrainSettings, labels: Labels) -> Split:
    """A split without the training cases of other source datasets than those that are asked for; held-out cases stay.

    Raises:
        ValueError: There is no such source, or no training case of it is annotated for one of the organs.
    """
    if not settings.sources:
        return split
    known = sorted({case.source for case in dataset.cases if case.source})
    for name in settings.sources:
        if name not in known:
            raise unknown_name_error(f"--sources: source of {dataset.name}", name, known)
    usable = {one.name for one in dataset.cases if one.source in settings.sources}
    train = tuple(name for name in split.train if name in usable)
    if not any(one.name in train and annotated_indices(one.annotated, labels) != () for one in dataset.cases):
        raise ValueError(
            f"--sources {' '.join(settings.sources)}: expected training cases with annotations of {', '.join(labels.names)}, found none"
        )
    return replace(split, train=train)


def _like_sibling(configuration: Configuration, sibling: Configuration | None, run: Run) -> Configuration:
    """The configuration with patch, surroundings, width and sum of the Dice loss of the model's other folds, where there are any."""
    if sibling is None:
        return configuration
    configuration = replace(configuration, context=sibling.context, batch_dice=sibling.batch_dice)
    if (sibling.patch_size, sibling.width) == (configuration.patch_size, configuration.width):
        return configuration
    then, planned = ("x".join(map(str, one.patch_size)) for one in (sibling, configuration))
    log.warning(
        "Patch %s and %g times the planned features as in the folds of this model that were started before, not %s and %g; "
        "to change it, move %s away.",
        *(then, sibling.width, planned, configuration.width, run.model.folder),
    )
    return replace(configuration, patch_size=sibling.patch_size, width=sibling.width)


def new_record(
    spec: TrainingSpec, split: Split, run: Run, previous: Path | None, *, settings: TrainSettings, held_out: Sequence[CaseSize] = ()
) -> RunRecord:
    """The record of a run that starts: what was asked for, made to fit device and budget.

    Args:
        previous: Segmentations of a cascade's first stage, in that stage's model folder; None without one.
        held_out: Sizes of the cases that will validate it, for whose validation time is planned too.

    Raises:
        RuntimeError: Not even the smallest step fits on this device, or, where other folds of the model have a patch, that patch.
    """
    device = choose_device(settings.device)
    budget, fitted = budget_of(settings), fitted_budget(settings)
    configuration, batch_why = fit_batch(spec.configuration, device.type, batch=settings.batch, keep_patch=bool(settings.patch))
    sibling, options = sibling_configuration(run), _options(fitted, device.type, configuration.batch_size, settings)
    if options.augmentation.mirror_probability == 0:
        # A network that never learned from mirrored images does not predict them either, in validation or later.
        configuration = replace(configuration, mirroring=Mirroring())
    elif not configuration.mirroring.axes and "mirror_probability" in _named_augmentation(settings):
        log.warning("mirror_probability changes nothing here: %s is never shown mirrored images.", configuration.network)
    configuration = _like_sibling(replace(configuration, width=width_of(settings.pretrained)), sibling, run)
    job = RunRecord(
        plan=spec.plan,
        configuration=configuration,
        fold=run.fold,
        split=split,
        budget=budget,
        seed=settings.seed,
        options=options,
        trainer=settings.trainer,
        pretrained=settings.pretrained,
        previous_model=None if previous is None else previous.parent.name,
        trainer_options=settings.trainer_options,
        settings=replace(settings, restart=False, longer=False, trial=None),
    )
    configuration, cost, reasons = _fitted(job, sibling, device, settings)
    limit = None if settings.validation == FULL else validation_limit(fitted)
    validation, validation_why = _validation(replace(job, configuration=configuration), run, cost, held_out, limit=limit)
    log.info("Training %s, fold %s, on %s: %s.", configuration.name, job.fold, device, budget.why)
    if batch_why.endswith("as planned") and any(reason.startswith("batch ") for reason in reasons):
        batch_why = ""  # the reason names the batch too, and what became smaller
    for sentence in filter(None, (batch_why, *reasons, validation_why)):
        log.info("%s.", sentence)
    if warning := too_few_steps(fitted, cost.seconds, fine_tunes=job.pretrained is not None):
        log.warning("%s.", warning)
    steps = fitted.amount / cost.seconds if fitted.kind == "time" else None
    options = _options(fitted, device.type, configuration.batch_size, settings, steps=steps)
    return replace(job, configuration=configuration, options=options, validation=validation)


def _validation(
    job: RunRecord, run: Run, cost: StepCost, held_out: Sequence[CaseSize], *, limit: float | None
) -> tuple[ValidationSettings | None, str]:
    """How a run's held-out cases are predicted, and why: as those of the model's other folds, or as a limit of seconds allows."""
    outputs, siblings = job.plan.labels.n_outputs, run.siblings()
    if not siblings or job.settings is None or job.settings.validation == FULL:
        return plan_validation(job.configuration, held_out, cost, outputs=outputs, limit=limit)
    settings = siblings[0].record().validation
    alike = as_validated(replace(job, validation=settings))
    took = duration(predicted_validation(alike, held_out, cost, outputs=outputs))
    how = f", with {describe(alike)} as in the model's other folds" if settings else ""
    return settings, f"Validation will then take about {took}{how}" if held_out else ""


def with_validation(trainer: Trainer, held_out: Sequence[CaseSize]) -> RunRecord:
    """The record of a trained run with the validation that its time allows, by tiles that are measured now.

    Before the training it was planned by what steps and tiles cost then. What validation has begun with stays, as do other folds' settings.

    Args:
        held_out: Sizes of the cases that validate it.
    """
    job, run = trainer.job, trainer.folders.files
    asked = TrainSettings() if job.settings is None else job.settings
    limit = validation_limit(fitted_budget(replace(asked, seconds=job.budget.amount)) if job.budget.kind == "time" else job.budget)
    if limit is None or asked.validation == FULL or run.siblings() or any(run.validation.glob("*.scores.json")):
        return job
    tile = measured_tile(trainer)
    cost = StepCost(trainer.seconds / max(1, trainer.iteration), 0, tile)
    validation, why = plan_validation(job.configuration, held_out, cost, outputs=job.plan.labels.n_outputs, limit=limit)
    if validation != job.validation:
        log.info("%s.", why)
    return replace(job, validation=validation)


def _named_augmentation(settings: TrainSettings) -> Mapping[str, Any]:
    """The options of augmentation that the user, or a preset, names."""
    asked = settings.changed_options.get("augmentation", {})
    return asked if isinstance(asked, Mapping) else {}


def _fitted(
    job: RunRecord, sibling: Configuration | None, device: torch.device, settings: TrainSettings
) -> tuple[Configuration, StepCost, list[str]]:
    """The job's configuration made to fit memory and time by real steps on the device, the cost of its step, and what to tell the user.

    A short time changes nothing that was asked for: batch, patch and features of the network.
    """
    probe = Probe(str(device), limit=probing_limit(job.budget), progress=True)

    def measured(one: Configuration) -> StepCost | None:
        return measure_step(replace(job, configuration=one), probe)

    release_memory(device)  # a training before this one may have left some
    configuration, cost, memory_why = fit_memory(
        job.configuration, measured, limit_bytes=device_memory(device), keep_patch=sibling is not None
    )
    time_why = ""
    if sibling is None:
        configuration, cost, time_why = fit_time_budget(
            *(configuration, fitted_budget(settings), cost, measured),
            may_narrow=job.pretrained is None and "features" not in settings.network_options,
            keep_patch=bool(settings.patch),
            min_batch=settings.batch or MIN_BATCH_SIZE,
        )
    step = f"A step takes {cost.seconds:.3g} s and {cost.peak_bytes / 1e9:.1f} GB"
    if not cost.measured:
        step = f"A step takes about {cost.seconds:.3g} s, estimated: steps were tried for a tenth of --time, {duration(probe.limit)}"
    reasons = [why for why in (memory_why, time_why, step) if why]
    if job.budget.kind == "iterations":
        reasons.append(f"It will take about {duration(job.budget.amount * cost.seconds)}")
    return configuration, cost, reasons


def _options(budget: Budget, device_type: str, batch: int, settings: TrainSettings, *, steps: float | None = None) -> TrainingOptions:
    suited, fine_tunes = lookup(TRAINERS, settings.trainer, "trainer").suited_options, settings.pretrained is not None
    changes = settings.changed_options
    return default_options(
        *(budget, device_type),
        batch=batch,
        fine_tunes=fine_tunes,
        changes=changes,
        suited=suited,
        steps=steps,
        is_scored_early=settings.fitted_seconds is not None,
    )


def budget_of(settings: TrainSettings) -> Budget:
    """How long to train: what the user asks for, or the default of the device."""
    device = choose_device(settings.device)
    budget = choose_budget(device.type, epochs=settings.epochs, iterations=settings.iterations, seconds=settings.seconds)
    if settings.fitted_seconds is None or settings.seconds is None:
        return budget
    whole = fitted_budget(settings)
    intervals = max(1, round(whole.validation_intervals * budget.amount / whole.amount))  # as long as those of the whole
    return replace(budget, validation_intervals=intervals)


def fitted_budget(settings: TrainSettings) -> Budget:
    """The budget that network, batch and optimiser are fitted to: that of the training, or the longer one of which it is the first part."""
    if settings.fitted_seconds is None or settings.seconds is None:
        return budget_of(replace(settings, fitted_seconds=None))
    return budget_of(replace(settings, seconds=max(settings.seconds, settings.fitted_seconds), fitted_seconds=None))
