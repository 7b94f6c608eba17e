"""The table of predicted cases by estimated Dice, so that a user knows what to check first."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..inference.ensemble import Ensemble
from ..inference.manifest import Manifest, models_key
from ..inference.prediction_files import Destination
from ..inference.uncertainty import OrganUncertainty
from ..runtime.serialization import Writer, atomic_write, from_jsonable
from ..schema import Case, Choice
from .quality_estimation import estimated_dice

RANKED_CASES = "autoseg_uncertainty.csv"

COLUMNS = ("case", "organ", "estimated_dice", "volume_ml", "mean_entropy", "mean_disagreement", "expected_dice")


@dataclass(frozen=True)
class RankedCase:
    """An organ of a predicted case with its estimated Dice; NaN where no probability hints at the organ."""

    uncertainty: OrganUncertainty
    dice: float


def ranked(uncertainties: Sequence[OrganUncertainty], choice: Choice) -> list[RankedCase]:
    """Sorts organs of cases by estimated Dice, the lowest first; organs that no probability hints at come last."""
    rows = [RankedCase(one, estimated_dice(choice.dice_regression.get(one.organ), one.expected_dice)) for one in uncertainties]
    return sorted(rows, key=lambda row: (math.isnan(row.dice), row.dice, row.uncertainty.case, row.uncertainty.organ))


def write_ranked_cases(destination: Destination, cases: Sequence[Case], ensemble: Ensemble, *, write: Writer = atomic_write) -> Path:
    """Writes ``autoseg_uncertainty.csv``: a row for each organ of each case that was predicted, the lowest estimated Dice first.

    Cases that failed have no row. Returns the file.
    """
    stored = Manifest(destination.manifest, models_key(ensemble.choice, ensemble.models, ensemble.labels)).findings(cases)
    with write(destination.folder / RANKED_CASES) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in ranked([from_jsonable(one, OrganUncertainty) for one in stored], ensemble.choice):
            one = row.uncertainty
            numbers = (row.dice, one.volume_ml, one.entropy, one.disagreement, one.expected_dice)
            writer.writerow([one.case, one.organ, *("" if math.isnan(number) else f"{number:.4f}" for number in numbers)])
    return destination.folder / RANKED_CASES
