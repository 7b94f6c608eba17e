"""What is known of predicted cases without a reference: the table of what to check first, and whether they look like the training set."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..inference.ensemble import Ensemble
from ..inference.manifest import Manifest, models_key
from ..inference.organ_statistics import OrganStatistics
from ..inference.prediction_files import Destination
from ..inference.uncertainty import OrganUncertainty
from ..runtime.serialization import Writer, atomic_write, from_jsonable
from ..runtime.shown_text import spreadsheet_cell
from ..schema import Case, Choice
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


def conclude_prediction(
    destination: Destination, cases: Sequence[Case], ensemble: Ensemble, results: Path, *, write: Writer = atomic_write
) -> None:
    """Tells how good a prediction looks without references, and where there is much to check, writes the table of what to check first:
    all cases that these models predicted into the folder, also in earlier calls.

    Args:
        cases: That were predicted; those that failed have no estimate.
        results: ``results/<dataset>``, with the cross-validation that the choice comes from.
    """
    manifest = Manifest(destination.manifest, models_key(ensemble.choice, ensemble.models, ensemble.labels))
    found = compare_with_training(_uncertainties(manifest.findings(cases)), ensemble.choice, results)
    if destination.has_table(len(cases)):
        path = destination.folder / RANKED_CASES
        with manifest.locked():  # or, of two calls that end together, the table of one would lack the other's cases
            everything = _uncertainties(manifest.all_findings())
            of_all = compare_with_training(everything, ensemble.choice, results)
            write_ranked_cases(path, everything, ensemble.choice, of_all, write=write)
        log.info("What to check first: %s", path)
    tell_likeness(found)


def _uncertainties(findings: Sequence[Any]) -> list[OrganUncertainty]:
    return [from_jsonable(one, OrganUncertainty) for one in findings]


def is_table(path: Path) -> bool:
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
