"""Confusion counts of two label maps in voxels, and the metrics that follow from them.

The costly part, one pass over the voxels, is done once for all organs; every metric is a pure function of three counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

SLAB_VOXELS = 2_000_000
"""Voxels compared at a time: bounds the memory for intermediate 64-bit arrays to some 50 MB whatever the size of the volume."""


@dataclass(frozen=True)
class ConfusionCounts:
    """Confusion counts of one organ in voxels."""

    true_positive: int
    false_positive: int
    false_negative: int

    @property
    def n_prediction(self) -> int:
        """Voxels predicted."""
        return self.true_positive + self.false_positive

    @property
    def n_reference(self) -> int:
        """Voxels in the reference."""
        return self.true_positive + self.false_negative


def dice(overlap: ConfusionCounts) -> float:
    """``2 TP / (2 TP + FP + FN)`` (Dice, Ecology 1945); 0 where only one of both has the organ, NaN where neither has."""
    return ratio(2 * overlap.true_positive, overlap.n_prediction + overlap.n_reference)


def iou(overlap: ConfusionCounts) -> float:
    """``TP / (TP + FP + FN)`` (Jaccard, 1912); 0 where only one of both has the organ, NaN where neither has."""
    return ratio(overlap.true_positive, overlap.true_positive + overlap.false_positive + overlap.false_negative)


def sensitivity(overlap: ConfusionCounts) -> float:
    """Share of the reference that was found, ``TP / (TP + FN)``; NaN where the reference has no such organ."""
    return ratio(overlap.true_positive, overlap.n_reference)


def precision(overlap: ConfusionCounts) -> float:
    """Share of the prediction that is right, ``TP / (TP + FP)``; NaN where nothing was predicted."""
    return ratio(overlap.true_positive, overlap.n_prediction)


def ravd(overlap: ConfusionCounts) -> float:
    """Relative absolute volume difference ``100 * | |S| - |G| | / |G|`` in percent (CHAOS challenge, Kavur et al., MedIA 2021).

    NaN where neither has the organ; 100 where only one of both has it, be it a miss or a false alarm.
    """
    if not overlap.n_reference:
        return 100.0 if overlap.n_prediction else math.nan
    return 100 * abs(overlap.n_prediction - overlap.n_reference) / overlap.n_reference


def ratio(part: float, whole: int) -> float:
    """Their ratio; NaN of nothing."""
    return part / whole if whole else math.nan


def nan_mean(values: Iterable[float]) -> float:
    """Mean without NaN; NaN where there is no other value."""
    known = [value for value in values if not math.isnan(value)]
    return float(sum(known) / len(known)) if known else math.nan


def confusion(prediction: np.ndarray, reference: np.ndarray, n_values: int, *, ignore: int | None = None) -> np.ndarray:
    """Counts every combination of two maps' values below `n_values`; negative ones count as 0, voxels of reference `ignore` not at all.

    Returns:
        ``(n_values, n_values)`` int64: row the reference's value, column the prediction's.
    """
    counts = np.zeros(n_values * n_values, np.int64)
    rows = max(1, SLAB_VOXELS * len(reference) // max(1, reference.size))
    for start in range(0, len(reference), rows):
        true = reference[start : start + rows].astype(np.int64).ravel()
        guess = prediction[start : start + rows].astype(np.int64).ravel()
        if ignore is not None:
            keep = true != ignore
            true, guess = true[keep], guess[keep]
        joint = np.maximum(true, 0) * n_values + np.maximum(guess, 0)
        counts += np.bincount(joint, minlength=counts.size)
    return counts.reshape(n_values, n_values)


def organ_counts(counts: np.ndarray, members: Sequence[int]) -> ConfusionCounts:
    """The counts of one organ from those of `confusion`; `members` are the internal values that belong to it."""
    inside = list(members)
    both = int(counts[np.ix_(inside, inside)].sum())
    return ConfusionCounts(both, int(counts[:, inside].sum()) - both, int(counts[inside].sum()) - both)
