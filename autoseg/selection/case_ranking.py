"""Which of the predicted cases are most likely wrong, so that a user knows what to check first."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..inference.ensemble import Ensemble
from ..inference.manifest import Manifest, models_key
from ..inference.uncertainty import OrganUncertainty
from ..runtime.serialization import atomic_write, from_jsonable
from ..schema import Case, Choice
from .dice_regression import estimated_dice

RANKED_CASES = "autoseg_uncertainty.csv"

COLUMNS = ("case", "organ", "estimated_dice", "volume_ml", "mean_entropy", "mean_disagreement", "expected_dice")


@dataclass(frozen=True)
class RankedCase:
    """An organ of a case, and the Dice that is to be expected of it; NaN where nothing hints at the organ."""

    finding: OrganUncertainty
    dice: float


def ranked(findings: Sequence[OrganUncertainty], choice: Choice) -> list[RankedCase]:
    """The findings with the Dice to expect, the lowest first; organs that nothing hints at last."""
    doubts = [RankedCase(one, estimated_dice(choice.dice_regression.get(one.organ), one.expected_dice)) for one in findings]
    return sorted(doubts, key=lambda one: (math.isnan(one.dice), one.dice, one.finding.case, one.finding.organ))


def write_ranked_cases(out: Path, cases: Sequence[Case], ensemble: Ensemble) -> Path:
    """Writes ``autoseg_uncertainty.csv``: a row for each organ of each case that was predicted, the most doubtful first.

    Args:
        out: Folder of the predictions, with their manifest.
        cases: That were asked for; those that failed have no row.
        ensemble: That predicted them.

    Returns:
        The file.
    """
    rows = Manifest(out, models_key(ensemble.choice, ensemble.models)).findings(cases)
    with atomic_write(out / RANKED_CASES) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for doubt in ranked([from_jsonable(row, OrganUncertainty) for row in rows], ensemble.choice):
            one = doubt.finding
            numbers = (doubt.dice, one.volume_ml, one.entropy, one.disagreement, one.expected_dice)
            writer.writerow([one.case, one.organ, *("" if math.isnan(number) else f"{number:.4f}" for number in numbers)])
    return out / RANKED_CASES
