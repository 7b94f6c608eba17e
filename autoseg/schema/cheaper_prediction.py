"""What cheaper ways of predicting than the full one cost in Dice, as measured on held-out cases of a model."""

from __future__ import annotations

from dataclasses import dataclass, field

from .names import check_name
from .values import check_least, expect

NO_MIRRORING, LARGER_STEPS, COARSE_TO_FINE = "no mirroring", "larger steps", "coarse to fine"
WAYS = (NO_MIRRORING, LARGER_STEPS, COARSE_TO_FINE)
"""Ways of predicting, each cheaper than the one before: without mirrored copies; with tiles further apart too; and only where a look at the
volume at half the resolution finds organs."""


@dataclass(frozen=True)
class CheaperCase:
    """A held-out case that was predicted in a cheaper way beside the full one.

    Attributes:
        way: One of `WAYS`.
        patient: Whose case it is.
        dice: Organ to Dice of the cheaper way; NaN where the organ is in neither label map.
        full: The same of the full way.
        seconds: Of prediction, on the computer that validated; `full_seconds` likewise, 0 where that was not measured.
        voxels: Of the case on the model's grid.
    """

    case: str
    way: str
    patient: str
    dice: dict[str, float]
    full: dict[str, float]
    seconds: float = 0.0
    full_seconds: float = 0.0
    voxels: int = 0

    def __post_init__(self) -> None:
        check_name(self.case, "case")
        expect(self.way in WAYS, "way", " or ".join(WAYS), self.way)
        for name in ("seconds", "full_seconds", "voxels"):
            check_least(name, getattr(self, name))


@dataclass(frozen=True)
class CheaperValidation:
    """Cheaper ways beside the full one, of the held-out cases of one fold.

    Attributes:
        network: `autoseg.runtime.case_contents.checkpoint_id` of the network.
        waiting: Cases that are to be predicted yet; some remain only where that was interrupted.
    """

    network: str
    cases: list[CheaperCase] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class DiceLoss:
    """What a model loses in Dice when it predicts in a cheaper way; below 0 where the cheaper way is the better one.

    Attributes:
        mean: Over patients, of the mean over organs. Its 95 % bootstrap interval over patients is `low` to `high`, NaN for one patient.
        organs: Organ to its mean over patients.
        seconds: Mean of a case; `full_seconds` in the full way, 0 where that was not measured.
        voxels: Mean of a case, on the model's grid.
    """

    mean: float
    low: float
    high: float
    patients: int
    organs: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    full_seconds: float = 0.0
    voxels: float = 0.0
