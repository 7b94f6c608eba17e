"""The Dice of a mask that has no reference, estimated by a regression on held-out cases.

Where probabilities are calibrated, a voxel that is given an organ with probability p is right with probability p, which gives the expected
Dice of the whole mask. It is too optimistic where a model errs without knowing it, and then ranks cases badly, too. How doubtful the
mask's own voxels are, how ragged it is, whether it is in one piece, and how well neighbouring slices agree tell more together. A ridge
regression (Hoerl & Kennard, Technometrics 1970) on the logit of the Dice weighs them; where a line through the expected Dice alone does
better, that is taken.

Three things no regression on good masks can know: an empty mask of an organ that nearly every patient has is wrong, a mask much smaller
or larger than all references cannot agree with a reference of a usual volume, nor one that lies elsewhere with one in a usual place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy  # its `stats`, which takes half a second to load, when it is used first

from ..inference.organ_places import OrganPlace
from ..inference.organ_statistics import OrganStatistics
from ..schema import DiceRegression
from ..schema.scores import FeatureWeight
from .usual_places import possible_dice, usual_place

FEWEST = 4
"""Cases for a line: fewer leave nothing to judge it by."""

PENALTY = 0.3
"""Of the ridge regression, for each case: features in units of their standard deviation."""

CERTAIN = 0.02
"""Dice closer than this to 0 or 1 count as this close: their logits would outweigh all others."""

LIKELY_MISSED = 0.5
"""An empty mask counts as a missed organ from this probability on."""


def logit(share: float) -> float:
    """``log(p / (1 - p))`` of a number 0..1, kept off both ends by `CERTAIN`."""
    inside = min(1 - CERTAIN, max(CERTAIN, share))
    return math.log(inside / (1 - inside))


def _log(value: float) -> float:
    return math.log(max(value, 1e-4))


FEATURES: dict[str, Callable[[float], float]] = {
    "expected_dice": logit,
    "mean_probability": logit,
    "low_probability": logit,
    "border_share": _log,
    "slice_agreement": float,
    "largest_share": float,
}
"""Attribute of `OrganStatistics` to what it enters the regression as. Volume and place are not: another disease changes them
first, another field of view the place."""


@dataclass(frozen=True)
class QualityEstimate:
    """What is known of one organ in one held-out case.

    Attributes:
        expected_dice: By the calibrated probabilities; NaN where they do not show the organ.
        true_dice: After post-processing; NaN where the organ is absent from prediction and reference.
        statistics: Of its mask; None in files of version 0.1.0.
        reference_ml: Volume in the reference; NaN in files of version 0.1.0.
        patient: Empty where the case is a patient.
        reference_place: Where the reference has the organ; None where it does not, and in files of earlier versions.
    """

    case: str
    expected_dice: float
    true_dice: float
    statistics: OrganStatistics | None = None
    reference_ml: float = math.nan
    patient: str = ""
    reference_place: OrganPlace | None = None

    @property
    def known(self) -> bool:
        """Whether it has both an expected and a true Dice."""
        return not math.isnan(self.expected_dice + self.true_dice)

    @property
    def mask(self) -> OrganStatistics:
        """The statistics, of 0.1.0 without all but the expected Dice."""
        return self.statistics or OrganStatistics(self.expected_dice, math.nan)


def feature_values(statistics: OrganStatistics) -> np.ndarray:
    """The features of a mask, ``(features,)``; NaN where one is missing."""
    values = [(change, getattr(statistics, name)) for name, change in FEATURES.items()]
    return np.array([math.nan if math.isnan(value) else change(value) for change, value in values])


def fit_dice_regression(estimates: Sequence[QualityEstimate]) -> DiceRegression | None:
    """Fits the regression of one organ, and measures its error, each patient estimated by the others.

    The correlation is NaN where the estimates or the true Dice are constant. None where fewer than `FEWEST` cases have both an expected
    and a true Dice.
    """
    known = [one for one in estimates if one.known]
    if len(known) < FEWEST:
        return None
    true, fitted = np.array([one.true_dice for one in known]), _fitted(known)
    candidates = [replace(fitted, features={}), *([fitted] if fitted.features else [])]
    found = [_left_out(known, with_features=bool(one.features)) for one in candidates]
    errors = [float(np.abs(estimated - true).mean()) for estimated in found]
    best = int(np.argmin(errors))
    constant = np.ptp(found[best]) == 0 or np.ptp(true) == 0
    correlation = math.nan if constant else float(scipy.stats.spearmanr(found[best], true).statistic)
    return _with_limits(replace(candidates[best], error=errors[best], correlation=correlation), estimates)


def left_out_estimates(estimates: Sequence[QualityEstimate], regression: DiceRegression | None) -> np.ndarray:
    """The Dice of each case, ``(cases,)``, estimated by a regression like this one through the other patients' cases.

    NaN where nothing hints at the organ and it may be absent. Of too few cases it is the expected Dice.
    """
    known = [one for one in estimates if one.known]
    left_out = iter(_left_out(known, with_features=regression is not None and bool(regression.features)).tolist())
    found = [next(left_out) if one.known else estimated_dice(regression, one.mask) for one in estimates]
    return np.array([_limited(regression, dice, one.mask) for dice, one in zip(found, estimates, strict=True)])


def estimated_dice(regression: DiceRegression | None, mask: OrganStatistics) -> float:
    """Estimates the Dice of a mask, 0..1; NaN where nothing hints at an organ that may be absent.

    Without a regression it is the expected Dice.
    """
    expected = mask.expected_dice
    if regression is None or math.isnan(expected):
        return _limited(regression, expected, mask)
    if not regression.features:
        dice = regression.slope * expected + regression.intercept
    else:
        values = dict(zip(FEATURES, feature_values(mask).tolist(), strict=True))
        change = (_change(one, values.get(name, math.nan)) for name, one in regression.features.items())
        dice = 1 / (1 + math.exp(-regression.offset - sum(change)))
    return _limited(regression, dice, mask)


def _change(one: FeatureWeight, value: float) -> float:
    return 0.0 if math.isnan(value) else one.weight * (min(one.high, max(one.low, value)) - one.typical)


def _limited(regression: DiceRegression | None, dice: float, mask: OrganStatistics) -> float:
    """An estimate with what no mask can exceed: 0 where it is empty, and what its volume and its place allow."""
    if math.isnan(mask.expected_dice):
        return 0.0 if regression is not None and regression.missed >= LIKELY_MISSED else math.nan
    if mask.expected_dice == 0:  # an empty mask, though some voxels may be the organ
        return 0.0
    volume, largest = mask.volume_ml, 1.0
    if regression is not None and volume > 0 and regression.largest_ml > 0:
        usual = min(regression.largest_ml, max(regression.smallest_ml, volume))
        largest = 2 * min(volume, usual) / (volume + usual)
    if regression is not None and regression.place is not None and mask.place is not None:
        largest = min(largest, possible_dice(mask.place, regression.place))
    return float(min(largest, max(0.0, dice)))


def _fitted(known: Sequence[QualityEstimate]) -> DiceRegression:
    """The line and, where there are features, the ridge regression through cases with an expected and a true Dice."""
    expected, true = (np.array([getattr(one, name) for one in known], np.float64) for name in ("expected_dice", "true_dice"))
    slope, intercept = _line(expected, true)
    line = DiceRegression(slope, intercept, math.nan, math.nan, len(known))
    filled = [one for one in known if one.expected_dice > 0]  # the Dice of an empty mask is no matter of regression
    if len(filled) < FEWEST:
        return line
    table = np.stack([feature_values(one.mask) for one in filled])
    usable = np.flatnonzero(~np.isnan(table).all(axis=0))
    names, table = [list(FEATURES)[column] for column in usable], table[:, usable]
    typical = np.nanmean(table, axis=0)
    centred = np.where(np.isnan(table), 0.0, table - typical)
    scale = np.maximum(centred.std(axis=0), 1e-9)
    target = np.array([logit(one.true_dice) for one in filled])
    normal = (centred / scale).T @ (centred / scale) + PENALTY * len(filled) * np.eye(len(names))
    weights = np.linalg.solve(normal, (centred / scale).T @ (target - target.mean())) / scale
    low, high = np.nanmin(table, axis=0), np.nanmax(table, axis=0)
    columns = zip(names, weights.tolist(), typical.tolist(), low.tolist(), high.tolist(), strict=True)
    return replace(line, features={name: FeatureWeight(*numbers) for name, *numbers in columns}, offset=float(target.mean()))


def _left_out(known: Sequence[QualityEstimate], *, with_features: bool) -> np.ndarray:
    """Estimates the Dice of each case, ``(cases,)``, by the regression through all other patients' cases."""
    patients = [one.patient or one.case for one in known]
    fitted: dict[str, DiceRegression | None] = {}
    for patient in dict.fromkeys(patients):
        others = [one for one, name in zip(known, patients, strict=True) if name != patient]
        one = _fitted(others) if len(known) >= FEWEST and others else None
        fitted[patient] = one if one is None or with_features else replace(one, features={})
    return np.array([estimated_dice(fitted[name], one.mask) for one, name in zip(known, patients, strict=True)])


def _with_limits(regression: DiceRegression, estimates: Sequence[QualityEstimate]) -> DiceRegression:
    """Adds the volumes and places of the references that have the organ, and how probable it is to be there where the mask is empty."""
    regression = replace(regression, place=usual_place([one.reference_place for one in estimates if one.reference_place is not None]))
    volumes = [one.reference_ml for one in estimates if not math.isnan(one.reference_ml)]
    present = [volume for volume in volumes if volume > 0]
    if not present:
        return regression
    empty = [one.reference_ml for one in estimates if not one.mask.volume_ml > 0 and not math.isnan(one.reference_ml)]
    # One empty mask more, in which the organ is as often as in all cases: what is known where the model left none empty.
    missed = (sum(volume > 0 for volume in empty) + len(present) / len(volumes)) / (len(empty) + 1)
    return replace(regression, smallest_ml=min(present), largest_ml=max(present), missed=missed)


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of least squares; a falling line is taken for chance, and the mean takes its place."""
    spread = x - x.mean()
    slope = max(0.0, float(spread @ y / (spread @ spread))) if np.ptp(x) > 0 else 0.0
    return slope, float(y.mean() - slope * x.mean())
