"""Content of a report: values that the pipeline reads from a results folder."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..schema import Choice, Intensity, Labels, Plan, Split, candidate_name
from ..schema.run_record import RunEnvironment, RunRecord
from ..selection.quality_estimation import EstimatedDice

Row = dict[str, float]
"""The numbers of a validation interval: a line of ``history.csv``."""


@dataclass(frozen=True)
class DatasetFacts:
    """Measurements and names of a dataset; what is not known is empty.

    Attributes:
        patients: Number of groups of cases that stay together in a fold.
        shapes: Voxels per axis of each measured case, array order of its file, cropped to non-zero.
        spacings: mm, of the same cases, the same order.
        volumes: Organ to its size in each measured case, 0 where it is absent.
        volume_unit: ``ml``, or ``mm²`` of 2D images.
        annotated: Organ to number of cases in which it was annotated.
        intensities: Of the organs, one a channel.
    """

    name: str
    channels: tuple[str, ...]
    labels: Labels
    cases: int
    patients: int
    shapes: tuple[tuple[int, ...], ...] = ()
    spacings: tuple[tuple[float, ...], ...] = ()
    orientations: dict[str, int] = field(default_factory=dict)
    volumes: dict[str, tuple[float, ...]] = field(default_factory=dict)
    volume_unit: str = "ml"
    annotated: dict[str, int] = field(default_factory=dict)
    intensities: tuple[Intensity, ...] = ()


@dataclass(frozen=True)
class RunFacts:
    """The training of one fold of one model.

    Attributes:
        command: The command that trains it again, as far as it is recorded.
        facts: Name to value of further settings (seed, budget, loss ...).
        validation_seconds: Case to its seconds of computation in validation; empty where it was not measured.
        validated: Whether it has scores of its held-out cases.
        needs: Models that must be trained before.
        run_environment: Device, version of torch and peak memory; several where it was resumed elsewhere, empty where not recorded.
        record: What the run was started with; None where it cannot be read.
    """

    model: str
    fold: str
    history: tuple[Row, ...] = ()
    command: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    validation_seconds: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    validated: bool = False
    needs: tuple[str, ...] = ()
    run_environment: tuple[RunEnvironment, ...] = ()
    record: RunRecord | None = None


@dataclass(frozen=True)
class Plane:
    """A slice of an image with the masks that are drawn over it.

    Attributes:
        title: Which plane, and which slice of how many.
        grey: ``(rows, columns)`` uint8, or ``(rows, columns, 3)``.
        pixel: mm from row to row and from column to column.
        reference: Organ to bool mask of the same shape; organs that are not in the slice are missing.
        prediction: The same.
        edges: Letters of the patient's sides at the top, bottom, left and right; empty where nobody knows.
    """

    title: str
    grey: np.ndarray
    pixel: tuple[float, float]
    reference: dict[str, np.ndarray] = field(default_factory=dict)
    prediction: dict[str, np.ndarray] = field(default_factory=dict)
    edges: tuple[str, str, str, str] = ("", "", "", "")


@dataclass(frozen=True)
class CasePicture:
    """The picture of a case.

    Attributes:
        why: Reason for showing it: "worst", "median" ...
        fold: In which it was held out.
        planes: Three, or one of a 2D image.
        values: Organ to the Dice of the prediction.
        window: Intensities drawn black and white, as a sentence.
    """

    case: str
    why: str
    fold: str
    planes: tuple[Plane, ...]
    values: dict[str, float]
    window: str = ""


@dataclass(frozen=True)
class Missing:
    """A part that a report lacks, and the command that adds it."""

    what: str
    command: str = ""


@dataclass(frozen=True)
class Report:
    """The whole content of a report.

    Attributes:
        chosen: Time of the choice, as text; empty without one.
        plan: With its reasons; None where there is none.
        parameters: Model folder to parameters of its network, those that could be counted.
        choice: Of the best model for each organ; None where none was made yet.
        metric: Title and unit of the score that is compared.
        better: Its direction: ``higher``, ``lower``, or ``zero`` for a signed error.
        scores: Candidate to organ to case to the score; averages of models only where they are known case by case.
        final: Organ to case to the Dice of the final result, merged and post-processed, where it is what is compared; those that are known.
        folds_of: Case to the fold in which it was held out.
        estimated_dice: Organ to the estimated and the true Dice of held-out cases.
        files: Name to SHA-256 of the files that the results depend on.
    """

    dataset: DatasetFacts
    made: str
    chosen: str = ""
    plan: Plan | None = None
    parameters: dict[str, int] = field(default_factory=dict)
    choice: Choice | None = None
    metric: str = "Dice"
    better: str = "higher"
    scores: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    final: dict[str, dict[str, float]] = field(default_factory=dict)
    folds_of: dict[str, str] = field(default_factory=dict)
    runs: tuple[RunFacts, ...] = ()
    pictures: tuple[CasePicture, ...] = ()
    estimated_dice: dict[str, tuple[EstimatedDice, ...]] = field(default_factory=dict)
    splits: tuple[Split, ...] = ()
    commands: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    missing: tuple[Missing, ...] = ()

    @property
    def organs(self) -> tuple[str, ...]:
        """Names of all organs, in the order of the dataset."""
        return self.dataset.labels.names

    def higher_is_worse_score(self, value: float) -> float:
        """A score as a number that is higher where the score is worse."""
        return abs(value) if self.better == "zero" else value if self.better == "lower" else -value

    def chosen_name(self, organ: str) -> str:
        """The candidate that segments an organ; empty where there is none."""
        return candidate_name(self.choice.organs.get(organ, ())) if self.choice else ""
