"""Voxel counts of agreement between two label maps, and the scores that follow from them.

The costly part, one pass over the voxels, is done once for all organs; every metric is a pure function of three counts.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..model import Labels, Score
from .metrics import DEFAULT_METRICS, find_metric, function_of

SLAB_VOXELS = 2_000_000
"""Voxels compared at a time: bounds the memory for intermediate 64-bit arrays to some 50 MB whatever the size of the volume."""


@dataclass(frozen=True)
class Overlap:
    """Agreement of one organ in voxels.

    Attributes:
        true_positive: In prediction and reference.
        false_positive: In the prediction only.
        false_negative: In the reference only.
    """

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


def dice(overlap: Overlap) -> float:
    """``2 TP / (2 TP + FP + FN)`` (Dice, Ecology 1945); 0 where only one of both has the organ, NaN where neither has."""
    return _ratio(2 * overlap.true_positive, overlap.n_prediction + overlap.n_reference)


def iou(overlap: Overlap) -> float:
    """``TP / (TP + FP + FN)`` (Jaccard, 1912); 0 where only one of both has the organ, NaN where neither has."""
    return _ratio(overlap.true_positive, overlap.true_positive + overlap.false_positive + overlap.false_negative)


def sensitivity(overlap: Overlap) -> float:
    """Share of the reference that was found, ``TP / (TP + FN)``; NaN where the reference has no such organ."""
    return _ratio(overlap.true_positive, overlap.n_reference)


def precision(overlap: Overlap) -> float:
    """Share of the prediction that is right, ``TP / (TP + FP)``; NaN where nothing was predicted."""
    return _ratio(overlap.true_positive, overlap.n_prediction)


def ravd(overlap: Overlap) -> float:
    """Relative absolute volume difference ``100 * | |S| - |G| | / |G|`` in percent (CHAOS challenge, Kavur et al., MedIA 2021).

    NaN where neither has the organ; 100 where only one of both has it, be it a miss or a false alarm.
    """
    if not overlap.n_reference:
        return 100.0 if overlap.n_prediction else math.nan
    return 100 * abs(overlap.n_prediction - overlap.n_reference) / overlap.n_reference


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def mean_of_known(values: Iterable[float]) -> float:
    """Mean of the values that are not NaN; NaN where there is none."""
    known = [value for value in values if not math.isnan(value)]
    return float(sum(known) / len(known)) if known else math.nan


def score_case(
    case: str,
    prediction: np.ndarray,
    reference: np.ndarray,
    labels: Labels,
    *,
    ignore: int | None = None,
    metrics: Sequence[str] = DEFAULT_METRICS,
    organs: Collection[str] | None = None,
) -> list[Score]:
    """Scores every organ of a case.

    Args:
        case: Its name, for the scores and for messages.
        prediction: ``(Z, Y, X)`` or ``(Y, X)``, *internal* values (`autoseg.conventions`); `OUTSIDE` counts as background.
        reference: Same shape, internal values.
        labels: The organs; of regions each is the union of its members.
        ignore: Internal value of reference voxels to leave out; None means the dataset's own, `Labels.internal_ignore`.
        metrics: Names in `METRICS` or ``module:function``. Dice and IoU are always there.
        organs: Names of those that were annotated in the case; None means all. The others have no score.

    Returns:
        One score an organ, in the order of `Labels.names`.

    Raises:
        ValueError: Shapes differ, a map is not of integers or holds a value that the labels do not have, or a metric is unknown.
    """
    ignore = labels.internal_ignore if ignore is None else ignore
    n_values = max(len(labels.base_values), ignore or 0) + 1
    _check(case, prediction, reference, n_values)
    counts = confusion(prediction, reference, n_values, ignore=ignore)
    functions = {name: function_of(find_metric(name)) for name in metrics if name not in ("dice", "iou")}
    scores = []
    for organ, members in zip(labels.names, labels.internal_members, strict=True):
        if organs is not None and organ not in organs:
            continue
        overlap = organ_overlap(counts, members)
        other = {name: float(function(overlap)) for name, function in functions.items()}
        scores.append(Score(case, organ, dice(overlap), iou(overlap), overlap.n_prediction, overlap.n_reference, other))
    return scores


def confusion(prediction: np.ndarray, reference: np.ndarray, n_values: int, *, ignore: int | None = None) -> np.ndarray:
    """Counts every combination of reference and predicted value.

    Args:
        prediction: Integers below `n_values`; negative ones count as 0.
        reference: Same shape.
        n_values: Number of distinct values.
        ignore: Reference value whose voxels are left out.

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


def organ_overlap(counts: np.ndarray, members: Sequence[int]) -> Overlap:
    """The counts of one organ.

    Args:
        counts: From `confusion`.
        members: Internal values that belong to the organ.
    """
    inside = list(members)
    both = int(counts[np.ix_(inside, inside)].sum())
    return Overlap(both, int(counts[:, inside].sum()) - both, int(counts[inside].sum()) - both)


def _check(case: str, prediction: np.ndarray, reference: np.ndarray, n_values: int) -> None:
    if prediction.shape != reference.shape:
        raise ValueError(f"case {case}: the prediction has shape {prediction.shape}, the reference {reference.shape}; expected the same")
    for what, array in (("prediction", prediction), ("reference", reference)):
        if array.dtype.kind not in "iu":
            raise ValueError(f"case {case}: the {what} has type {array.dtype}, expected integers")
        if array.size and array.max() >= n_values:
            raise ValueError(f"case {case}: the {what} holds the internal value {array.max()}, expected at most {n_values - 1}")
