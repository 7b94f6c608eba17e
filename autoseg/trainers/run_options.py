"""Folders of a training run, and the options that it begins with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..preprocessing.pseudo_labelled_cases import PseudoLabelledCase
from ..preprocessing.storage import Store, StoredCase
from ..runtime.registry import unknown_name_error
from ..runtime.runs import Run
from ..schema import Budget, Configuration
from ..schema.settings import FINE_TUNING_RATE
from ..schema.training_options import AUGMENTATION, TrainingOptions, nested
from .optimizers import WITHOUT_MOMENTUM

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


@dataclass(frozen=True)
class RunFolders:
    """Where a run reads and writes.

    Attributes:
        run: Checkpoints, history and validation of this fold.
        data: Preprocessed cases.
        previous: Segmentations of the previous stage on the grid of `data`; cascades only.
        region: Candidate regions on that grid (`cascade.region_masks`); None where patches are drawn, and losses counted, everywhere.
        unlabelled: Preprocessed images without label maps; None where the run learns from none.
        pseudo_labels: Their pseudo-labels.
        unlabelled_previous: As `previous`, of these images.
        unlabelled_region: As `region`, of these images.
    """

    run: Path
    data: Path
    previous: Path | None = None
    region: Path | None = None
    unlabelled: Path | None = None
    pseudo_labels: Path | None = None
    unlabelled_previous: Path | None = None
    unlabelled_region: Path | None = None

    @property
    def files(self) -> Run:
        """The files of the run."""
        return Run(self.run)

    def previous_of(self, case: str) -> Path:
        """File of the previous stage's segmentation of a case.

        Raises:
            ValueError: The run has no previous stage.
        """
        if self.previous is None:
            raise ValueError(f"{self.run}: expected segmentations of a previous stage, got none")
        return self.previous / f"{case}.b2nd"

    def of_unlabelled(self) -> RunFolders:
        """As a run on the images without label maps would have them, their pseudo-labels in place of label maps."""
        if self.pseudo_labels is None or self.unlabelled is None:
            raise ValueError(f"{self.run}: expected the folders of the pseudo-labels that it learns from, got none")
        return replace(self, data=self.pseudo_labels, previous=self.unlabelled_previous, region=self.unlabelled_region)

    def load(self, name: str, organs: Sequence[int] | None) -> StoredCase:
        """A case of `data` as `Store.load` gives it; of pseudo-labels with its image."""
        if self.unlabelled is not None and self.data == self.pseudo_labels:
            return PseudoLabelledCase(self.data, name, images=self.unlabelled, organs=organs)
        return Store(self.data).load(name, organs=organs)

    def has_previous_of(self, case: str) -> bool:
        """Whether the previous stage segmented a case, or there is no previous stage."""
        return self.previous is None or self.previous_of(case).is_file()


def checked_options(kind: type[T], options: Mapping[str, Any]) -> T:
    """The `RunRecord.trainer_options` of a ``<Name>Trainer`` as their frozen value, a ``<Name>Options``.

    Raises:
        ValueError: One is unknown or its value makes no sense.
    """
    known = {item.name for item in fields(kind)}
    for name, value in options.items():
        if name not in known:
            raise unknown_name_error(f"option of {kind.__name__.removesuffix('Options')}Trainer", name, known)
        try:
            kind(**{name: value})
        except TypeError as error:  # a word where a number is compared
            raise ValueError(f"{name}: expected a value as the default {getattr(kind(), name)!r}, got {value!r}") from error
    return kind(**options)


def sibling_configuration(run: Run) -> Configuration | None:
    """The configuration of another fold of a run's model, which votes together with it; None for the first fold."""
    siblings = run.siblings()
    return siblings[0].record().configuration if siblings else None


CPU_VALIDATION_PATCHES = 8
SCORED_SHARE = 0.05
"""Share of a training's time for the Dice of whole held-out cases; as much again after the last step."""
TRAINED_TILE = 3.0
"""Times of a tile that is only segmented that one takes in a training step: forward, backward to inputs and weights."""
LEAST_TILES = 4
SHORT_AVERAGE = 0.99
"""Decay of the average of the weights over some hundred steps."""
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
    steps: float | None = None,
    is_scored_early: bool = False,
) -> TrainingOptions:
    """The default training options for a run of this length, with the user's changes.

    A run of the reference's length gets the reference's optimisation. A short one gets Adam with a one-percent warm-up and an average of
    the weights; benchmarks/README.md says what that reaches in twenty minutes, benchmarks/short_training.py compares.

    Args:
        device_type: ``cuda``, ``mps`` or ``cpu``; a time budget on a GPU counts as long from two hours on.
        fine_tunes: The weights were trained before: a tenth of the default learning rate; `changes` are taken as they are
            (`TrainSettings.changed_options`).
        changes: The user's, by the names of `TrainingOptions` and `AugmentationOptions`; the latter may be together in ``augmentation``.
        suited: ``suited(options, long_run=...)``: the trainer's defaults from these, before the user's changes.
        steps: Of the whole training, as far as it can be foreseen.
        is_scored_early: A first part is scored before the learning rate has fallen: a long run has an average of the weights, too.

    Raises:
        ValueError: An option is unknown or its value makes no sense.
    """
    long_run = budget.amount >= LONG_RUN if budget.kind == "iterations" else device_type != "cpu" and budget.amount >= 7200
    options = TrainingOptions()
    if not long_run:
        options = replace(
            options, optimizer="adamw", learning_rate=1e-3, weight_decay=1e-2, schedule="cosine", warmup=0.01, average_decay=SHORT_AVERAGE
        )
    elif is_scored_early:
        options = replace(options, average_decay=SHORT_AVERAGE)
    if suited is not None:
        options = suited(options, long_run=long_run)
    if device_type == "cpu":
        options = replace(options, validation_batches=max(1, CPU_VALIDATION_PATCHES // batch))
    steps = budget.amount if budget.kind == "iterations" else steps
    if steps is not None:
        affordable = SCORED_SHARE * TRAINED_TILE * batch * steps / budget.validation_intervals
        options = replace(options, validation_tiles=max(LEAST_TILES, int(affordable)))
    if fine_tunes:
        options = replace(options, learning_rate=options.learning_rate * FINE_TUNING_RATE)
    values = nested(changes or {})
    if isinstance(values.get("augmentation"), Mapping):
        values["augmentation"] = _changed(options.augmentation, values["augmentation"], "augmentation option")
    if values.get("optimizer") == "rmsprop":
        values.setdefault("momentum", 0.0)  # the default belongs to stochastic gradient descent
    changed = _changed(options, values, "training option")
    if "momentum" in (changes or {}) and changed.momentum and changed.optimizer in WITHOUT_MOMENTUM:
        remedy = "add --training-option optimizer=sgd or optimizer=rmsprop, or leave momentum out"
        raise ValueError(f"momentum: {changed.optimizer}, the optimiser of this run, has none, got {changed.momentum}; {remedy}")
    return changed


def _changed(options: T, changes: Mapping[str, Any], kind: str) -> T:
    known = {item.name for item in fields(options)}
    for name in changes:
        if name not in known:
            raise unknown_name_error(kind, name, known | AUGMENTATION)
    return replace(options, **changes)
