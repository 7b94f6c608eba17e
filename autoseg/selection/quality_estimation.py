"""Estimates of the Dice of held-out cases, as if they had no reference, beside the true ones: what `dice_regression` is fitted on."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ..inference.apply_selection import calibrated
from ..inference.organ_places import OrganPlace
from ..inference.organ_statistics import OrganStatistics, organ_statistics
from ..runtime.migrate.names import existing_file
from ..runtime.provenance import Stamp, file_id, recorded_stamp, stamp_path
from ..runtime.serialization import read_json, write_json_if_allowed
from ..schema import Case, Choice
from .cross_validation import CrossValidation, for_each_case
from .dice_regression import QualityEstimate, left_out_estimates
from .held_out import HeldOut

log = logging.getLogger(__name__)

QUALITY_ESTIMATES = "quality_estimates.json"
"""In ``results/<dataset>``: organ to its `QualityEstimate`."""


OF = "estimates"
"""In the note beside it: the content that the note is about."""


@dataclass(frozen=True)
class TrueDice:
    """Dice of one organ of a held-out case after post-processing, and what its mask and its reference say of volume and place.

    Attributes:
        dice: NaN where prediction and reference lack it.
        place: Of the mask; None where it is empty. `reference_place` likewise.
    """

    dice: float
    reference_ml: float
    place: OrganPlace | None = None
    reference_place: OrganPlace | None = None


@dataclass(frozen=True)
class EstimatedDice:
    """Dice of an organ in one held-out case: estimated by the regression through the other patients' cases, and true."""

    case: str
    estimated: float
    true: float


def estimate_quality(
    held_out: HeldOut, cross_validation: CrossValidation, true: Mapping[str, Mapping[str, TrueDice]]
) -> dict[str, list[QualityEstimate]]:
    """Organ to what its mask in each held-out case leads to expect, beside the true Dice.

    Args:
        held_out: The choice with its temperatures and its post-processing.
        true: Organ to case to its true Dice; other cases are left out.
    """
    models = len(held_out.member_labels)
    found = for_each_case(partial(statistics_of, held_out), cross_validation, what="Estimating the Dice", models=models)
    return {
        organ: [_estimate(case, organ, one, of_cases[case.name]) for (_, case), one in found.items() if case.name in of_cases]
        for organ, of_cases in true.items()
    }


def _estimate(case: Case, organ: str, statistics: Mapping[str, OrganStatistics], true: TrueDice) -> QualityEstimate:
    mask = replace(statistics.get(organ, OrganStatistics(math.nan)), place=true.place)
    return QualityEstimate(case.name, mask.expected_dice, true.dice, mask, true.reference_ml, case.group or "", true.reference_place)


def statistics_of(held_out: HeldOut, fold: str, case: Case) -> dict[str, OrganStatistics]:
    """Organ to its statistics by the calibrated probabilities of its members; organs with a missing member are left out.

    Runs in a process of its own where there is much to do.
    """
    choice, labels = held_out.choice, held_out.member_labels
    predictions = calibrated(held_out.logits(fold, case.name), choice, labels)
    found: dict[str, OrganStatistics] = {}
    for members in dict.fromkeys(choice.organs.values()):
        if all(name in predictions for name in members):
            organs = [organ for organ, chosen in choice.organs.items() if chosen == members]
            steps = {organ: choice.postprocessing[organ] for organ in organs if organ in choice.postprocessing}
            found |= organ_statistics([predictions[name] for name in members], labels[members[0]], steps, organs=organs)
    return found


def write_quality_estimates(
    results: Path, estimates: Mapping[str, Sequence[QualityEstimate]], made_from: Mapping[str, str] | None = None
) -> None:
    """Writes the estimates beside the choice, with what that choice was made from (`Choice.made_from`)."""
    path = results / QUALITY_ESTIMATES
    write_json_if_allowed(path, estimates)
    if path.is_file():
        write_json_if_allowed(stamp_path(path), Stamp(dict(made_from or {}), {OF: file_id(path)}))


def _are_of_another_choice(path: Path, choice: Choice) -> bool:
    """Whether estimates belong to a choice that was made from other scores: this one is kept in memory, as the user may not write here."""
    stamp = recorded_stamp(path)
    if stamp is None or not stamp.inputs or not choice.made_from or stamp.settings.get(OF) != file_id(path):
        return False  # of an earlier version; nothing is known
    return stamp.inputs != choice.made_from


def read_estimated_dice(results: Path, choice: Choice) -> dict[str, tuple[EstimatedDice, ...]]:
    """Organ to the estimated and the true Dice of its held-out cases; each is estimated by the regression through the others.

    Cases without the organ, in which nothing hints at it either, are left out.
    """
    path = existing_file(results / QUALITY_ESTIMATES)
    if not path.is_file():
        return {}
    if _are_of_another_choice(path, choice):
        log.info("%s: is of another choice, so nothing is said of the cross-validation of this one.", path)
        return {}
    stored = read_json(path, dict[str, list[QualityEstimate]])
    found = {}
    for organ, estimates in stored.items():
        estimated = left_out_estimates(estimates, choice.dice_regression.get(organ)).tolist()
        points = [EstimatedDice(one.case, dice, one.true_dice) for one, dice in zip(estimates, estimated, strict=True)]
        if known := tuple(one for one in points if not math.isnan(one.estimated + one.true)):
            found[organ] = known
    return found


def read_final_dice(results: Path, choice: Choice) -> dict[str, dict[str, float]]:
    """Organ to held-out case to the Dice of what the choice makes of it: merged and post-processed, as a new image would be segmented.

    Cases without the organ in prediction and reference are left out; empty where nobody computed it, or for another choice.
    """
    path = existing_file(results / QUALITY_ESTIMATES)
    if not path.is_file() or _are_of_another_choice(path, choice):
        return {}
    stored = read_json(path, dict[str, list[QualityEstimate]])
    found = {organ: {one.case: one.true_dice for one in estimates if not math.isnan(one.true_dice)} for organ, estimates in stored.items()}
    return {organ: of_cases for organ, of_cases in found.items() if of_cases and organ in choice.organs}
