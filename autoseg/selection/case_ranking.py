"""What is known of predicted cases without a reference: the table of what to check first, and whether they look like the training set."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..inference.organ_statistics import OrganStatistics
from ..inference.uncertainty import OrganUncertainty
from ..runtime.serialization import Writer, atomic_write
from ..runtime.shown_text import spreadsheet_cell
from ..schema import Choice
from .dice_regression import estimated_dice
from .likeness import Likeness, describe_likeness, likeness
from .quality_estimation import read_estimated_dice

log = logging.getLogger(__name__)

RANKED_CASES = "autoseg_uncertainty.csv"

COLUMNS = ("case", "organ", "estimated_dice", "volume_ml", "mean_entropy", "mean_disagreement", "expected_dice", "likeness")


@dataclass(frozen=True)
class RankedCase:
    """An organ of a predicted case with its estimated Dice; NaN where nothing hints at an organ that may be absent."""

    uncertainty: OrganUncertainty
    dice: float


def ranked(uncertainties: Sequence[OrganUncertainty], choice: Choice) -> list[RankedCase]:
    """Sorts organs of cases by estimated Dice, the lowest first; absent organs come last."""
    rows = [RankedCase(one, estimated_dice(choice.dice_regression.get(one.organ), _statistics(one))) for one in uncertainties]
    return sorted(rows, key=lambda row: (math.isnan(row.dice), row.dice, row.uncertainty.case, row.uncertainty.organ))


def _statistics(one: OrganUncertainty) -> OrganStatistics:
    return one.statistics or OrganStatistics(one.expected_dice, one.volume_ml)


def compare_with_training(uncertainties: Sequence[OrganUncertainty], choice: Choice, results: Path) -> Likeness:
    """Compares the estimated Dice of predicted cases with that of the cross-validation in ``results/<dataset>``.

    Without organs where the choice has no regression, as of a model that was asked for by name.
    """
    estimated: dict[str, dict[str, float]] = {}
    for row in ranked(uncertainties, choice):
        estimated.setdefault(row.uncertainty.case, {})[row.uncertainty.organ] = row.dice
    held_out = read_estimated_dice(results, choice) if choice.dice_regression else {}
    return likeness(estimated, {organ: points for organ, points in held_out.items() if organ in choice.dice_regression})


def tell_likeness(found: Likeness) -> None:
    """Logs the estimated Dice of predicted cases beside the cross-validation's, and warns of what is unlike the training images."""
    facts, warnings = describe_likeness(found)
    for line in facts:
        log.info("%s", line)
    for line in warnings:
        log.warning("%s", line)


def is_ranking(path: Path) -> bool:
    """Whether a file is such a table, by its name and its first line."""
    if path.name != RANKED_CASES:
        return False
    with path.open("rb") as file:
        return file.readline(1000).decode(errors="replace").strip() == ",".join(COLUMNS)


def write_ranked_cases(
    path: Path, uncertainties: Sequence[OrganUncertainty], choice: Choice, found: Likeness, *, write: Writer = atomic_write
) -> None:
    """Writes the table of what to check first: a row for each organ of each case, the lowest estimated Dice first."""
    with write(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in ranked(uncertainties, choice):
            one = row.uncertainty
            numbers = (row.dice, one.volume_ml, one.entropy, one.disagreement, one.expected_dice, found.p_values.get(one.case, math.nan))
            names = map(spreadsheet_cell, (one.case, one.organ))
            writer.writerow([*names, *("" if math.isnan(number) else f"{number:.4f}" for number in numbers)])
