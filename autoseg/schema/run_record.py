"""What a training was started with, and what it ran on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from .conventions import FORMAT
from .names import check_name
from .plan import ENSEMBLE, Configuration, Plan
from .run import Budget, Split
from .scores import Choice
from .settings import EnsembleSettings, TrainSettings
from .training_options import TrainingOptions
from .values import check_axes, check_fold, check_least, expect

EIGHT_BITS, LOG_ODDS = "probability8", "log_odds16"
"""Forms of a member's prediction that an ensemble reads: as validation of earlier versions stored it, and as it is stored now."""


@dataclass(frozen=True)
class EnsembleRecord:
    """What a learned ensemble is made of.

    Attributes:
        kind: ``argmax``, ``logits``, ``meta``, ``fusion``, ``multi`` or ``vote``.
        members: Names of its models, in the order of its input channels.
        reference: The member whose grid, plan and preprocessed cases it works with.
        settings: What the user asked for; None in records of version 0.1.0.
        stored: Form of the predictions that it combines, in validation as in prediction; `EIGHT_BITS` in records of earlier versions.
        trains_last: Of a fusion: the last layers of its members are trained on in it.
    """

    kind: str
    members: tuple[str, ...]
    reference: str
    settings: EnsembleSettings | None = None
    stored: str = EIGHT_BITS
    trains_last: bool = False

    def __post_init__(self) -> None:
        expect(self.kind in ("argmax", "logits", "meta", "fusion", "multi", "vote"), "kind", "a kind of ensemble", self.kind)
        expect(bool(self.members), "members", "at least one model", self.members)
        expect(len(set(self.members)) == len(self.members), "members", "each model once", self.members)
        expect(self.reference in self.members, "reference", "one of the members", self.reference)
        expect(self.stored in (EIGHT_BITS, LOG_ODDS), "stored", "a form of stored predictions", self.stored)

    @property
    def reads_predictions(self) -> bool:
        """Whether its members predict before it does; a fusion holds their networks itself."""
        return self.kind != "fusion"


@dataclass(frozen=True)
class PseudoLabels:
    """The images without label maps that a run learns from, and the models whose predictions it takes for their label maps.

    Attributes:
        models: Identity of these models, their weights included.
        choice: Which they are: their members, folds, temperatures and post-processing.
        cases: Case to the identity of its images.
    """

    models: str
    choice: Choice
    cases: dict[str, str]

    def __post_init__(self) -> None:
        for case in self.cases:
            check_name(case, "case")
        expect(bool(self.cases), "pseudo-labels: cases", "at least one", self.cases)


@dataclass(frozen=True)
class ValidationSettings:
    """How held-out cases are predicted where full validation would take too long (`trainers.validation_plan`).

    Attributes:
        mirror_axes: Spatial axes of the patch that are flipped: some of those that prediction flips, or none.
        step: Distance of neighbouring tiles as a share of the patch.
    """

    mirror_axes: tuple[int, ...] = ()
    step: float = 0.5

    def __post_init__(self) -> None:
        check_axes("validation: mirror_axes", self.mirror_axes, 3)
        expect(0 < self.step <= 1, "validation: step", "a share of the patch in (0, 1]", self.step)


@dataclass(frozen=True)
class RunRecord:
    """One fold of one configuration, completely described: the same record gives the same weights on a CPU. Written to ``run.json``.

    Attributes:
        configuration: The planned one, with the batch (and if need be the patch) that fits the device.
        fold: ``0`` .. ``4`` or ``all``.
        seed: Of every random choice.
        trainer: Name in `autoseg.trainers.TRAINERS`.
        pretrained: Checkpoint whose fitting weights are the start, or None.
        previous_model: Model folder of a cascade's first stage, or None.
        trainer_options: What only this trainer knows; its `Options` say which there are.
        settings: What the user asked for; None for an ensemble, and in records of version 0.1.0.
        ensemble: Of a learned ensemble: what it is made of.
        sources: Training case to the dataset that it was merged from; empty where cases are drawn alike (`trainers.case_sampling`).
        scored: Held-out cases whose patches are scored while training; empty means all.
        case_weights: Training case to how often it is drawn, relative to others; empty likewise.
        pseudo_labels: Images without label maps that it learns from as well; None where it learns from labelled cases only.
        earlier_budgets: Seconds at which the training had ended before it was trained on (`trainers.longer`), in order.
        validation: How its held-out cases are predicted where that is not as in prediction; None where it is.
    """

    file_format: ClassVar[int] = FORMAT

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
    settings: TrainSettings | None = None
    ensemble: EnsembleRecord | None = None
    sources: dict[str, str] = field(default_factory=dict)
    scored: tuple[str, ...] = ()
    case_weights: dict[str, float] = field(default_factory=dict)
    pseudo_labels: PseudoLabels | None = None
    earlier_budgets: tuple[float, ...] = ()
    validation: ValidationSettings | None = None

    @property
    def scheduled_share(self) -> float:
        """How far the learning rate's schedule gets, 0..1: less than 1 in the first part of a longer training (`TrainSettings`)."""
        whole = None if self.settings is None else self.settings.fitted_seconds
        return 1.0 if whole is None or self.budget.kind != "time" else min(1.0, self.budget.amount / whole)

    def __post_init__(self) -> None:
        check_name(self.fold, "fold")
        for model in (*([] if self.previous_model is None else [self.previous_model]), *(self.ensemble.members if self.ensemble else ())):
            check_name(model, "model")
        check_fold(self.fold)
        check_least("seed", self.seed)
        expect(all(weight > 0 for weight in self.case_weights.values()), "case_weights", "weights above 0", self.case_weights)
        expect(bool(self.split.train) or self.configuration.name == ENSEMBLE, "split: train", "at least one case", self.split.train)
        both = set(self.split.train) & set(self.split.val)
        expect(self.fold == "all" or not both, "split", "cases that are either trained on or held out", sorted(both))
        labelled = {*self.split.train, *self.split.val} & set(() if self.pseudo_labels is None else self.pseudo_labels.cases)
        expect(not labelled, "pseudo-labels", "cases without label maps", sorted(labelled))


@dataclass(frozen=True)
class RunEnvironment:
    """Device and software of a training run, or of the part of it since it was last resumed on another device.

    Attributes:
        device: Name of the GPU or processor.
        kind: ``cpu``, ``cuda`` or ``mps``.
        peak_bytes: Most memory held: by tensors on a CUDA GPU, elsewhere by the whole process.
    """

    device: str
    kind: str
    torch: str
    peak_bytes: int
