"""Scores of predictions, and the choice of a model for each organ with its evidence."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from .cheaper_prediction import DiceLoss
from .conventions import FORMAT
from .names import check_name
from .values import check_fold, check_least, check_share, expect


@dataclass(frozen=True)
class Score:
    """Agreement of one organ in one case; Dice and intersection over union are 0..1, NaN where the organ is absent from both.

    Attributes:
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

    def __post_init__(self) -> None:
        check_name(self.case, "case")
        for name, value in (("dice", self.dice), ("iou", self.iou)):
            if not math.isnan(value):
                check_share(name, value)
        check_least("n_prediction", self.n_prediction)
        check_least("n_reference", self.n_reference)


UNRELIABLE_DICE = 0.5
"""A mean Dice below this is warned of: more than half of what is drawn, or of what is there, is wrong."""

Members = tuple[str, ...]
"""Names of the models of a candidate; several are averaged."""


def candidate_name(members: Members) -> str:
    """Joins the members of a candidate to its readable name, which is also its key in files."""
    return " + ".join(members)


def candidate_members(name: str) -> Members:
    """Reads the members of a candidate from its name, as `candidate_name` writes it."""
    return tuple(name.split(" + "))


@dataclass(frozen=True)
class Candidate:
    """Candidate for an organ: a model, or several whose probabilities are averaged; members are folder names like ``3d_fullres__Trainer``.

    All members segment the same `organs`; empty means every organ of the dataset.
    """

    members: Members
    organs: tuple[str, ...] = ()

    def covers(self, organ: str) -> bool:
        """Whether it segments this organ."""
        return not self.organs or organ in self.organs

    @property
    def name(self) -> str:
        """Readable name, also its key in tables."""
        return candidate_name(self.members)


@dataclass(frozen=True)
class CandidateComparison:
    """Scores of another candidate on the cases by which an organ's candidate was chosen.

    Attributes:
        mean: Of its score over the cases; NaN where it has none. Its 95 % bootstrap interval is `low` to `high`.
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


IMAGES_LIKE_TRAINING = "images like the training images: of the same scanners, protocols and mix of diseases"
"""For which images a cross-validation says what to expect."""


@dataclass(frozen=True)
class NestedEstimate:
    """Nested cross-validation estimate for new images: chosen on the other folds, scored on this one, for every fold.

    Attributes:
        mean: Mean over the cases, the figure to report. Its 95 % bootstrap interval is `low` to `high`.
        naive: Mean score of the chosen candidate on the cases that it was chosen by, biased upwards by the choice.
        chosen: Fold to the candidate that the other folds chose.
        holds_for: For which images mean and interval hold; of others, no cross-validation says anything.
    """

    mean: float
    low: float
    high: float
    naive: float
    cases: int
    chosen: dict[str, str] = field(default_factory=dict)
    holds_for: str = IMAGES_LIKE_TRAINING


@dataclass(frozen=True)
class Evidence:
    """Evidence for the candidate that was chosen for an organ.

    Attributes:
        candidate: Name of the chosen one.
        cases: Number of cases that all candidates were compared on.
        compared: Candidate name, the chosen one's included, to its scores.
        expected: The nested estimate; None where a single fold was validated.
    """

    candidate: str
    cases: int
    compared: dict[str, CandidateComparison]
    expected: NestedEstimate | None = None


@dataclass(frozen=True)
class PostProcessing:
    """Post-processing of an organ's mask; steps in the order of the attributes.

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

    def __post_init__(self) -> None:
        check_least("min_volume_mm3", self.min_volume_mm3)
        expect(self.components is None or self.components > 0, "components", "a number from 1 on", self.components)


@dataclass(frozen=True)
class Calibration:
    """Calibration of a candidate's probabilities on the cross-validation (temperature scaling).

    Attributes:
        temperature: Logits are divided by it before the softmax or sigmoid; 1 leaves them.
        error_before: Expected calibration error without the temperature, 0..1.
        error_after: With the temperature; of each fold with the one fitted on the others.
    """

    temperature: float = 1.0
    error_before: float = float("nan")
    error_after: float = float("nan")

    def __post_init__(self) -> None:
        check_least("temperature", self.temperature, above=True)


@dataclass(frozen=True)
class FeatureWeight:
    """How one feature of a mask changes the logit of its estimated Dice: by ``weight * (value - typical)``.

    Attributes:
        typical: Mean over the held-out cases; stands for a value that is missing.
        low: Smallest value of the held-out cases, for which smaller ones count; `high` is the largest.
    """

    weight: float
    typical: float
    low: float
    high: float


@dataclass(frozen=True)
class UsualPlace:
    """Where an organ lies in the held-out references, in mm along the patient's axes (`autoseg.inference.organ_places.OrganPlace`).

    Attributes:
        low_mm: Smallest coordinates of its centre from the middle of the image; `high_mm` the largest.
        others_low_mm: The same from the centre of all other organs; empty where some references have no other.
        smallest_image_mm: Smallest size of an image along each axis; `largest_image_mm` the largest.
        cases: Number of references.
    """

    low_mm: tuple[float, ...]
    high_mm: tuple[float, ...]
    others_low_mm: tuple[float, ...]
    others_high_mm: tuple[float, ...]
    smallest_image_mm: tuple[float, ...]
    largest_image_mm: tuple[float, ...]
    cases: int


@dataclass(frozen=True)
class DiceRegression:
    """Regression that estimates an organ's Dice without a reference, fitted on the cross-validation.

    Attributes:
        slope: Of the line from the expected Dice of the probabilities, which counts where there are no `features`.
        intercept: Of that line.
        error: Mean absolute difference between estimated and true Dice, leaving out one patient at a time.
        correlation: Spearman's, between the two.
        features: Feature (`autoseg.selection.dice_regression.FEATURES`) to its weight in the logit of the estimate; empty where the line
            estimates better.
        offset: Logit of the estimate of a mask whose features are typical.
        smallest_ml: Smallest volume of the organ in a held-out reference, `largest_ml` the largest; 0 where they are not known.
        missed: Probability that the organ is there where the mask is empty.
        place: Where the organ usually lies; None where it is not known, as in files of earlier versions.
    """

    slope: float
    intercept: float
    error: float
    correlation: float
    cases: int
    features: dict[str, FeatureWeight] = field(default_factory=dict)
    offset: float = 0.0
    smallest_ml: float = 0.0
    largest_ml: float = 0.0
    missed: float = 0.0
    place: UsualPlace | None = None


@dataclass(frozen=True)
class OrganMerging:
    """Effect of merging organs of different candidates into one label map, on the cross-validation.

    Attributes:
        conflicts: Mean number of voxels per case that several organs claim.
        most: Largest number in a case.
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
    """Choice of a candidate for each organ, and the evidence.

    Attributes:
        organs: Organ to the chosen candidate's members; organs that no model covers are missing.
        folds: Names of the folds the evidence comes from.
        table: Candidate name -> organ -> mean Dice over the cross-validation, of the organs that it covers.
        cases: Number of cases the table rests on.
        reasons: Organ to one sentence.
        member_folds: Member to the folds whose networks predict, all that it was trained on; `folds` for a member that is not named.
        evidence: Organ to intervals, tests and the nested estimate.
        seconds: Candidate name to seconds of computation a case, as measured in validation; those that were not measured are missing.
        postprocessing: Organ to its post-processing; organs that none improves are missing.
        calibration: Member to its calibration.
        dice_regression: Organ to the regression that estimates its Dice without a reference.
        merged: Effect of merging; None where all organs come from one candidate, or overlap.
        max_members: Largest number of models that were averaged.
        max_seconds: Limit in seconds a case above which candidates are left out; None means no limit.
        vote: Members, and their folds in prediction, vote instead of being averaged.
        postprocess: Post-processing that was asked for instead of tried.
        validated: Model to how its held-out cases were predicted, of all that were compared, where that was not in full for each of them.
        cheaper: Model to way of predicting (`autoseg.schema.cheaper_prediction.WAYS`) to what it loses in Dice on held-out patients, of the
            chosen models and all others that were measured.
        made_from: ``model/fold`` of everything that was validated then, to the content id of its scores; empty in choices of 0.1.0.
    """

    file_format: ClassVar[int] = FORMAT

    organs: dict[str, Members]
    folds: tuple[str, ...]
    table: dict[str, dict[str, float]]
    cases: int
    reasons: dict[str, str] = field(default_factory=dict)
    rule: str = "supported"
    member_folds: dict[str, tuple[str, ...]] = field(default_factory=dict)
    metric: str = "dice"
    evidence: dict[str, Evidence] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    postprocessing: dict[str, PostProcessing] = field(default_factory=dict)
    calibration: dict[str, Calibration] = field(default_factory=dict)
    dice_regression: dict[str, DiceRegression] = field(default_factory=dict)
    merged: OrganMerging | None = None
    max_members: int = 3
    max_seconds: float | None = None
    vote: bool = False
    postprocess: tuple[str, ...] = ()
    validated: dict[str, str] = field(default_factory=dict)
    cheaper: dict[str, dict[str, DiceLoss]] = field(default_factory=dict)
    made_from: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for member in (*(name for members in self.organs.values() for name in members), *self.member_folds):
            check_name(member, "model")
        for fold in (*self.folds, *(fold for folds in self.member_folds.values() for fold in folds)):
            check_fold(fold)
        for name, folds in (("folds", self.folds), *self.member_folds.items()):
            expect(len(set(folds)) == len(folds), name, "each fold once", folds)
        for organ, members in self.organs.items():
            expect(len(set(members)) == len(members), f"organs: {organ}", "each model once", members)
        check_least("max_members", self.max_members, 1)
        check_least("cases", self.cases)
