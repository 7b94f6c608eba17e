"""What the probabilities of held-out cases promised their Dice to be, beside what it was: kept with the choice, for the report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..runtime.migrate.names import existing_file
from ..runtime.serialization import read_json, write_json
from .dice_regression import leave_one_out_estimates

QUALITY_ESTIMATES = "quality_estimates.json"
"""In ``results/<dataset>``: organ to its `QualityEstimate`."""


@dataclass(frozen=True)
class QualityEstimate:
    """One organ of one held-out case.

    Attributes:
        case: Its name.
        expected: Dice that the calibrated probabilities promise; NaN where they know nothing of the organ.
        true: Dice after post-processing; NaN where the organ is absent from prediction and reference.
    """

    case: str
    expected: float
    true: float


def write_quality_estimates(results: Path, found: dict[str, list[QualityEstimate]]) -> None:
    """Writes what was foretold beside the choice."""
    write_json(results / QUALITY_ESTIMATES, found)


def read_estimated_dice(results: Path) -> dict[str, tuple[EstimatedDice, ...]]:
    """Organ to the predicted and the true Dice of its held-out cases; each is predicted by a line through the others."""
    path = existing_file(results / QUALITY_ESTIMATES)
    if not path.is_file():
        return {}
    found = read_json(path, dict[str, list[QualityEstimate]])
    return {organ: estimated_dice for organ, some in found.items() if (estimated_dice := _estimated(some))}


def _estimated(some: list[QualityEstimate]) -> tuple[EstimatedDice, ...]:
    expected, true = (np.array([getattr(one, name) for one in some], float) for name in ("expected", "true"))
    known = np.flatnonzero(~(np.isnan(expected) | np.isnan(true)))
    expected = leave_one_out_estimates(expected[known], true[known]).tolist()
    return tuple(EstimatedDice(some[place].case, dice, float(true[place])) for place, dice in zip(known, expected, strict=True))


@dataclass(frozen=True)
class EstimatedDice:
    """What an organ's Dice in one held-out case was predicted to be without its reference, and what it was."""

    case: str
    predicted: float
    true: float
