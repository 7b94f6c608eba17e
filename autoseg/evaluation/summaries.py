"""Means of each organ over the scores of many cases."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..schema import Score
from .counts import nan_mean
from .metrics import METRICS, has_value, value_of

POOLED = tuple(name for name, metric in METRICS.items() if metric.pooled)
"""Metrics of all cases' voxels together."""


@dataclass(frozen=True)
class OrganSummary:
    """One organ over all cases.

    Attributes:
        means: Metric -> mean over the cases where it has a value; NaN where it has none. The global Dice is that of all cases' voxels.
        worst: Lowest Dice of a case, that of `worst_case`; NaN where there is none.
        cases: Cases that count: the organ is in the reference, in the prediction, or in both.
        absent: Cases without the organ in both, which have no Dice and are left out; those in which it is not annotated are in neither.
    """

    means: dict[str, float]
    worst: float
    worst_case: str
    cases: int
    absent: int

    @property
    def dice(self) -> float:
        """Mean Dice."""
        return self.means["dice"]


def summary(scores: Iterable[Score]) -> dict[str, OrganSummary]:
    """The scores of each organ, averaged over cases.

    A case in which neither prediction nor reference has the organ has no Dice (NaN) and is left out; a missed organ and a false alarm
    count as 0. Other metrics leave out the cases in which they are NaN.

    Returns:
        Organ -> means, in the order in which organs first occur.
    """
    by_organ: dict[str, list[Score]] = {}
    for score in scores:
        by_organ.setdefault(score.organ, []).append(score)
    return {organ: _summarise(group) for organ, group in by_organ.items()}


def mean_dice(scores: Iterable[Score]) -> float:
    """Mean over the organs of their mean Dice; organs that no case has are left out, and without any the result is NaN."""
    return nan_mean(one.dice for one in summary(scores).values())


def _summarise(group: list[Score]) -> OrganSummary:
    names = dict.fromkeys(["dice", "iou", *(name for score in group for name in score.other)])
    means = {
        name: pooled_dice(group) if name in POOLED else nan_mean(value_of(score, name) for score in group if has_value(score, name))
        for name in names
    }
    counted = [score for score in group if not math.isnan(score.dice)]
    worst = min(counted, key=lambda score: score.dice, default=None)
    lowest = (worst.dice, worst.case) if worst else (math.nan, "")
    return OrganSummary(means, *lowest, cases=len(counted), absent=len(group) - len(counted))


def pooled_dice(group: Sequence[Score]) -> float:
    """``2 sum TP / sum (2 TP + FP + FN)`` over the cases (LiTS challenge: Bilic et al., Medical Image Analysis 84, 2023)."""
    sizes = [(score.dice, score.n_prediction + score.n_reference) for score in group if not math.isnan(score.dice)]
    total = sum(size for _, size in sizes)
    return sum(dice * size for dice, size in sizes) / total if total else math.nan
