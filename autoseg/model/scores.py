"""How good a model is, and which one segments which organ."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Score:
    """Agreement of one organ in one case; `dice` and `iou` are NaN where the organ is absent from both.

    Attributes:
        case: Its name.
        organ: A name of `Labels.names`.
        dice: Dice coefficient, 0..1.
        iou: Intersection over union, 0..1.
        n_prediction: Voxels predicted.
        n_reference: Voxels in the reference.
        other: Further metrics by their name in `autoseg.evaluation.metrics.METRICS`.
    """

    case: str
    organ: str
    dice: float
    iou: float
    n_prediction: int
    n_reference: int
    other: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """A model, or several whose probabilities are averaged; members are folder names like ``3d_fullres__Trainer``.

    Attributes:
        members: Names.
        organs: That they segment, all of them the same; empty means every organ of the dataset.
    """

    members: tuple[str, ...]
    organs: tuple[str, ...] = ()

    def covers(self, organ: str) -> bool:
        """Whether it segments this organ."""
        return not self.organs or organ in self.organs

    @property
    def name(self) -> str:
        """Readable name, also its key in tables."""
        return " + ".join(self.members)


@dataclass(frozen=True)
class Choice:
    """Which candidate segments which organ, and the evidence.

    Attributes:
        organs: Organ to the chosen candidate's members; organs that no model covers are missing.
        folds: Names of the folds the evidence comes from.
        table: Candidate name -> organ -> mean Dice over the cross-validation, of the organs that it covers.
        cases: Number of cases the table rests on.
        reasons: Organ to one sentence.
        by: Name of the rule that chose.
        voters: Member to the folds whose networks vote, all that it was trained on; `folds` for a member that is not named.
    """

    organs: dict[str, tuple[str, ...]]
    folds: tuple[str, ...]
    table: dict[str, dict[str, float]]
    cases: int
    reasons: dict[str, str] = field(default_factory=dict)
    by: str = "best_mean_dice"
    voters: dict[str, tuple[str, ...]] = field(default_factory=dict)
