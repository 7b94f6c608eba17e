"""Which of the predicted cases are most likely wrong, so that a user knows what to check first."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..inference.manifest import Manifest, models_key
from ..inference.prediction import Ensemble
from ..inference.uncertainty import Finding
from ..runtime.serialization import atomic, from_plain
from ..schema import Case, Choice
from .dice_regression import predicted_dice

CHECK_LIST = "autoseg_uncertainty.csv"

COLUMNS = ("case", "organ", "predicted_dice", "volume_ml", "mean_entropy", "mean_disagreement", "promised_dice")


@dataclass(frozen=True)
class Doubt:
    """An organ of a case, and the Dice that is to be expected of it; NaN where nothing hints at the organ."""

    finding: Finding
    dice: float


def ranked(findings: Sequence[Finding], choice: Choice) -> list[Doubt]:
    """The findings with the Dice to expect, the lowest first; organs that nothing hints at last."""
    doubts = [Doubt(one, predicted_dice(choice.reliability.get(one.organ), one.promised_dice)) for one in findings]
    return sorted(doubts, key=lambda one: (math.isnan(one.dice), one.dice, one.finding.case, one.finding.organ))


def write_check_list(out: Path, cases: Sequence[Case], ensemble: Ensemble) -> Path:
    """Writes ``autoseg_uncertainty.csv``: a row for each organ of each case that was predicted, the most doubtful first.

    Args:
        out: Folder of the predictions, with their manifest.
        cases: That were asked for; those that failed have no row.
        ensemble: That predicted them.

    Returns:
        The file.
    """
    rows = Manifest(out, models_key(ensemble.choice, ensemble.models)).findings(cases)
    with atomic(out / CHECK_LIST) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for doubt in ranked([from_plain(row, Finding) for row in rows], ensemble.choice):
            one = doubt.finding
            numbers = (doubt.dice, one.volume_ml, one.entropy, one.disagreement, one.promised_dice)
            writer.writerow([one.case, one.organ, *("" if math.isnan(number) else f"{number:.4f}" for number in numbers)])
    return out / CHECK_LIST
