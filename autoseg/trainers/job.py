"""What a training run is told: values that are written to ``run.json`` when it starts and never change while it lives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from ..model import Budget, Configuration, Plan, Split
from ..naming import unknown
from ..records import read_json
from .augmentation import AugmentationOptions

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Numbers a user may want to change; none of them needs a subclass.

    Attributes:
        loss: Name in `autoseg.trainers.losses.LOSSES`.
        optimizer: Name in `autoseg.trainers.optimizers.OPTIMIZERS`.
        learning_rate: At the start (after warm-up).
        momentum: Of ``sgd`` (Nesterov).
        weight_decay: L2 penalty, or decoupled decay (``adamw``).
        schedule: Name in `autoseg.trainers.schedules.SCHEDULES`.
        warmup: Share of the budget with a rising learning rate.
        gradient_clip: Largest norm of the gradient.
        relative_clip: Multiple of the moving average of that norm which it may not exceed either; 0 switches that off.
        foreground: Share of a batch that must be centred on an organ.
        average_decay: Decay of an exponential moving average of the weights, which then validates and predicts; 0 switches it off.
        deep_supervision: Loss on the decoder's coarser outputs too.
        supervision: How these count: name in `autoseg.trainers.supervision.SUPERVISIONS`.
        validation_batches: Patches batches scored after every round.
        augmentation: Probabilities and ranges.
    """

    loss: str = "dice_ce"
    optimizer: str = "sgd"
    learning_rate: float = 1e-2
    momentum: float = 0.99
    weight_decay: float = 3e-5
    schedule: str = "poly"
    warmup: float = 0.0
    gradient_clip: float = 12.0
    relative_clip: float = 0.0
    foreground: float = 0.33
    average_decay: float = 0.0
    deep_supervision: bool = True
    supervision: str = "deep"
    validation_batches: int = 50
    augmentation: AugmentationOptions = field(default_factory=AugmentationOptions)

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate: expected a positive number, got {self.learning_rate}")
        if not 0 <= self.foreground <= 1:
            raise ValueError(f"foreground: expected a share between 0 and 1, got {self.foreground}")
        if self.gradient_clip <= 0 or self.relative_clip < 0:
            found = f"{self.gradient_clip} and {self.relative_clip}"
            raise ValueError(f"gradient_clip and relative_clip: expected a positive number, and 0 or more, got {found}")
        if not 0 <= self.average_decay < 1:
            raise ValueError(f"average_decay: expected 0 (off) up to below 1, got {self.average_decay}")


@dataclass(frozen=True)
class TrainingJob:
    """One fold of one configuration, completely described: the same job and seed give the same weights on a CPU.

    Attributes:
        plan: Of the dataset.
        configuration: The planned one, with the batch (and if need be the patch) that fits the device.
        fold: ``0`` .. ``4`` or ``all``.
        split: Cases of that fold.
        budget: How long.
        seed: Of every random choice.
        options: Optimisation and augmentation.
        trainer: Name in `autoseg.trainers.TRAINERS`.
        pretrained: Checkpoint whose fitting weights are the start, or None.
        previous_model: Model folder of a cascade's first stage, or None.
        trainer_options: What only this trainer knows; its `Options` say which there are.
    """

    plan: Plan
    configuration: Configuration
    fold: str
    split: Split
    budget: Budget
    seed: int
    options: TrainingOptions
    trainer: str = "Trainer"
    pretrained: Path | None = None
    previous_model: str | None = None
    trainer_options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunFolders:
    """Where a run reads and writes.

    Attributes:
        run: Checkpoints, history and validation of this fold.
        data: Preprocessed cases.
        previous: Segmentations of the previous stage on the grid of `data`; cascades only.
        region: Candidate regions on that grid (`region_masks`); None where patches are drawn, and losses counted, everywhere.
    """

    run: Path
    data: Path
    previous: Path | None = None
    region: Path | None = None


def checked_options(kind: type[T], options: Mapping[str, Any], trainer: str) -> T:
    """A trainer's own options as its frozen value.

    Args:
        kind: Dataclass of the trainer's options.
        options: `TrainingJob.trainer_options`.
        trainer: Its name, for the message.

    Raises:
        ValueError: One is unknown or its value makes no sense.
    """
    known = {item.name for item in fields(kind)}
    for name, value in options.items():
        if name not in known:
            raise unknown(f"option of {trainer}", name, known)
        try:
            kind(**{name: value})
        except TypeError as error:  # a word where a number is compared
            raise ValueError(f"{name}: expected a value as the default {getattr(kind(), name)!r}, got {value!r}") from error
    return kind(**options)


def begun_by_sibling(run: Path) -> Configuration | None:
    """What another fold of a run's model was begun with, or None where this is the first: all folds of a model vote together."""
    records = [record for record in sorted(run.parent.glob("fold_*/run.json")) if record.parent != run]
    return read_json(records[0], TrainingJob).configuration if records else None


CPU_VALIDATION_PATCHES = 16
FINE_TUNING_RATE = 0.1
"""Share of the learning rate with which weights that were trained before are trained on."""
LONG_RUN = 20_000
"""Iterations from which on the reference's optimiser, made for a quarter of a million of them, does at least as well as Adam."""


def default_options(
    budget: Budget,
    device_type: str,
    *,
    batch: int,
    fine_tunes: bool = False,
    changes: Mapping[str, Any] | None = None,
    suited: Callable[..., TrainingOptions] | None = None,
) -> TrainingOptions:
    """Options that suit the length of the run.

    A run of the reference's length gets the reference's optimisation. A short one gets Adam with a one-percent warm-up and an average of
    the weights; benchmarks/README.md says what that reaches in twenty minutes, benchmarks/short_training.py compares.

    Args:
        budget: Of the run.
        device_type: ``cuda``, ``mps`` or ``cpu``; a time budget on a GPU counts as long from two hours on.
        batch: Patches a step.
        fine_tunes: The weights were trained before: a tenth of the learning rate (Roth et al. 2018).
        changes: What the user asked for otherwise, by the names of `TrainingOptions`; ``augmentation`` by the names of
            `AugmentationOptions`.
        suited: ``suited(options, long_run=...)``: what the trainer makes of them before those changes.

    Raises:
        ValueError: An option is unknown or its value makes no sense.
    """
    long_run = budget.amount >= LONG_RUN if budget.kind == "iterations" else device_type != "cpu" and budget.amount >= 7200
    if long_run:
        options = TrainingOptions()
    else:
        options = TrainingOptions(
            optimizer="adamw",
            learning_rate=1e-3,
            weight_decay=1e-2,
            schedule="cosine",
            warmup=0.01,
            average_decay=0.99,
        )
    if suited is not None:
        options = suited(options, long_run=long_run)
    if device_type == "cpu":
        options = replace(options, validation_batches=max(1, CPU_VALIDATION_PATCHES // batch))
    if fine_tunes:
        options = replace(options, learning_rate=options.learning_rate * FINE_TUNING_RATE)
    return _changed(options, changes or {}, "training option")


def _changed(options: T, changes: Mapping[str, Any], what: str) -> T:
    known = {item.name for item in fields(options)}
    for name in changes:
        if name not in known:
            raise unknown(what, name, known)
    values = dict(changes)
    if isinstance(values.get("augmentation"), Mapping):
        values["augmentation"] = _changed(options.augmentation, values["augmentation"], "augmentation option")
    return replace(options, **values)
