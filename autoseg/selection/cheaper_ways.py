"""What a model loses when it predicts in a cheaper way, over its held-out patients, and whether mirrored copies are worth their time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..evaluation.counts import nan_mean
from ..evaluation.statistics import bootstrap_interval
from ..runtime.runs import ModelFolder
from ..schema import Choice
from ..schema.cheaper_prediction import NO_MIRRORING, WAYS, CheaperCase, DiceLoss
from ..trainers.cheaper_validation import read_cheaper

WORTH = 0.005
"""Mean gain in Dice that mirrored copies must have ..."""
SURELY_WORTH = 0.02
"""... with an interval above 0, or this much, which counts also where few patients make the interval wide."""
FEWEST = 3
"""Patients below which nothing is concluded."""


def losses(results: Path, model: str, folds: Iterable[str]) -> dict[str, DiceLoss]:
    """Way to what a model loses by it, over the held-out patients of some folds; ways that were not measured are missing."""
    cases = [one for fold in folds for one in read_cheaper(ModelFolder(results / model).run(fold))]
    of_ways = {way: [one for one in cases if one.way == way] for way in WAYS}
    return {way: dice_loss(some) for way, some in of_ways.items() if some}


def dice_loss(cases: Sequence[CheaperCase]) -> DiceLoss:
    """The mean loss over patients and its bootstrap interval.

    An organ that is in neither label map of one of the two ways was a false alarm of the other: there the former counts as 1.
    """
    organs = dict.fromkeys(name for one in cases for name in one.dice)
    by_organ = {organ: np.array([_loss(one, organ) for one in cases]) for organ in organs}
    of_cases = [nan_mean([values[place] for values in by_organ.values()]) for place in range(len(cases))]
    patients = [one.patient for one in cases]
    low, high = bootstrap_interval(of_cases, rng=np.random.default_rng(0), groups=patients)
    full_seconds = [one.full_seconds for one in cases]
    return DiceLoss(
        float(nan_mean(of_cases)),
        low,
        high,
        len(set(patients)),
        {organ: float(nan_mean(values)) for organ, values in by_organ.items()},
        seconds=float(np.mean([one.seconds for one in cases])),
        full_seconds=float(np.mean(full_seconds)) if all(full_seconds) else 0.0,
        voxels=float(np.mean([one.voxels for one in cases])),
    )


def _loss(case: CheaperCase, organ: str) -> float:
    full, cheaper = case.full.get(organ, math.nan), case.dice.get(organ, math.nan)
    if math.isnan(full) and math.isnan(cheaper):
        return math.nan
    return (1.0 if math.isnan(full) else full) - (1.0 if math.isnan(cheaper) else cheaper)


def known_losses(choice: Choice, results: Path, model: str, folds: Iterable[str]) -> Mapping[str, DiceLoss]:
    """As `losses`: what the choice recorded of a model, else what lies in its folder."""
    return choice.cheaper[model] if model in choice.cheaper else losses(results, model, folds)


def is_mirroring_worth_it(known: Mapping[str, DiceLoss]) -> bool:
    """Whether mirrored copies are averaged by default: where their gain on held-out patients is worth it, or nobody knows.

    That is a mean gain in Dice of at least 0.005 with a 95 % interval above 0, or of at least 0.02. 0.02 of one organ
    alone do, too. Below three patients nothing is concluded.
    """
    gain = known.get(NO_MIRRORING)
    if gain is None or gain.patients < FEWEST or math.isnan(gain.mean):
        return True
    if max(gain.mean, *(value for value in gain.organs.values() if not math.isnan(value)), -1.0) >= SURELY_WORTH:
        return True
    return gain.mean >= WORTH and gain.low > 0


def describe_mirroring(known: Mapping[str, DiceLoss], *, mirror: bool, asked: bool | None) -> str:
    """Whether mirrored copies are averaged and why, in a sentence without a full stop; empty where nothing was measured."""
    gain = known.get(NO_MIRRORING)
    what = "with mirrored copies" if mirror else "without mirrored copies"
    if gain is None:
        return ""
    interval = "" if math.isnan(gain.low) else f", 95 % interval {gain.low:+.4f} to {gain.high:+.4f}"
    people = f"{gain.patients} held-out patient{'' if gain.patients == 1 else 's'}"
    times = f" for {gain.full_seconds / gain.seconds:.1f} times the seconds" if gain.seconds and gain.full_seconds else ""
    measured = f"they gain {gain.mean:+.4f} Dice{times} ({people}{interval})"
    if asked is not None:
        return f"{what}, as asked: {measured}"
    return f"{what}: {measured}; --{'no-' if mirror else ''}tta predicts {'without' if mirror else 'with'} them"
