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
class Compared:
    """How another candidate did on the cases by which an organ's candidate was chosen.

    Attributes:
        mean: Of its score over the cases; NaN where it has none.
        low: Lower end of the 95 % bootstrap interval of that mean.
        high: Upper end.
        difference: Mean over the cases of the chosen candidate's score minus this one's; above 0 where the chosen one is better,
            whether high or low values of the metric are good.
        p_value: Of the paired test; NaN where too few cases differ.
        corrected: The same, corrected for the number of candidates.
    """

    mean: float
    low: float
    high: float
    difference: float = float("nan")
    p_value: float = float("nan")
    corrected: float = float("nan")


@dataclass(frozen=True)
class NestedEstimate:
    """What to expect of a way of choosing on new images: chosen on the other folds, scored on this one, for every fold.

    Attributes:
        mean: Over the cases; what may be quoted.
        low: Lower end of its 95 % bootstrap interval.
        high: Upper end.
        naive: Mean score of the chosen candidate on the very cases that it was chosen by: too good by the luck of the draw.
        cases: That it rests on.
        chosen: Fold to the candidate that the other folds chose.
    """

    mean: float
    low: float
    high: float
    naive: float
    cases: int
    chosen: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """Why a candidate segments an organ.

    Attributes:
        candidate: Name of the chosen one.
        cases: That all candidates were compared on.
        compared: Candidate name, the chosen one's included, to how it did.
        expected: The nested estimate; None where a single fold was validated.
    """

    candidate: str
    cases: int
    compared: dict[str, Compared]
    expected: NestedEstimate | None = None


@dataclass(frozen=True)
class PostProcessing:
    """What is done to an organ's mask after prediction; the steps in the order of the attributes.

    Attributes:
        min_volume_mm3: Components that are smaller are removed; 0 keeps all.
        components: Number of the largest components that are kept; None keeps all.
        fill_holes: Fill background that the organ encloses.
        why: One sentence with the effect on the cross-validation.
    """

    min_volume_mm3: float = 0.0
    components: int | None = None
    fill_holes: bool = False
    why: str = ""


@dataclass(frozen=True)
class Calibration:
    """How far a candidate's probabilities can be believed, measured on the cross-validation.

    Attributes:
        temperature: Logits are divided by it before the softmax or sigmoid; 1 leaves them.
        error_before: Expected calibration error of the probabilities as they come, 0..1.
        error_after: With the temperature; of each fold with the one fitted on the others.
    """

    temperature: float = 1.0
    error_before: float = float("nan")
    error_after: float = float("nan")


@dataclass(frozen=True)
class DiceRegression:
    """How an organ's Dice is predicted without a reference: a line through the Dice that the probabilities promise.

    Attributes:
        slope: Of the line.
        intercept: Of the line.
        error: Mean absolute difference between predicted and true Dice, each case predicted by a line through the others.
        correlation: Spearman's, between the two.
        cases: That the line rests on.
    """

    slope: float
    intercept: float
    error: float
    correlation: float
    cases: int


@dataclass(frozen=True)
class OrganMerging:
    """What became of organs of different candidates when their label maps were made one, on the cross-validation.

    Attributes:
        conflicts: Voxels a case that more than one organ claimed, on average.
        most: The same of the case with the most.
        cases: That were merged.
        alone: Organ to its mean score in its own candidate's label map.
        together: Organ to its mean score on the same cases in the merged map.
    """

    conflicts: float
    most: int
    cases: int
    alone: dict[str, float]
    together: dict[str, float]


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
        metric: Name of the score that was compared.
        evidence: Organ to intervals, tests and the nested estimate.
        seconds: Candidate name to seconds of computation a case, as measured in validation; those that were not measured are missing.
        postprocessing: Organ to the post-processing that helps it; organs that it does not help are missing.
        calibration: Member to what its probabilities are worth.
        dice_regression: Organ to how its Dice is predicted where there is no reference.
        merged: What merging does to the organs; None where they come from one candidate, or overlap.
        max_members: Largest number of models that were averaged.
        max_seconds: Candidates that took longer a case were left out; None left out none.
        made_from: ``model/fold`` of everything that was validated then, to the content id of its scores; empty in choices of 0.1.0.
    """

    organs: dict[str, tuple[str, ...]]
    folds: tuple[str, ...]
    table: dict[str, dict[str, float]]
    cases: int
    reasons: dict[str, str] = field(default_factory=dict)
    by: str = "supported"
    voters: dict[str, tuple[str, ...]] = field(default_factory=dict)
    metric: str = "dice"
    evidence: dict[str, Evidence] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    postprocessing: dict[str, PostProcessing] = field(default_factory=dict)
    calibration: dict[str, Calibration] = field(default_factory=dict)
    dice_regression: dict[str, DiceRegression] = field(default_factory=dict)
    merged: OrganMerging | None = None
    max_members: int = 3
    max_seconds: float | None = None
    made_from: dict[str, str] = field(default_factory=dict)
