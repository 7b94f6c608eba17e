"""Metrics of lesions (or other separate parts of an organ) instead of voxels; matching: `autoseg.evaluation.components`."""

from __future__ import annotations

import math

from .masks import MaskPair


def lesion_recall(pair: MaskPair) -> float:
    """Share of the reference's components that were found, 0..1; NaN where the reference has none."""
    lesions = pair.lesions
    return len(lesions.dice) / lesions.n_reference if lesions.n_reference else math.nan


def lesion_precision(pair: MaskPair) -> float:
    """Share of the predicted components that match one of the reference, 0..1; NaN where nothing was predicted."""
    lesions = pair.lesions
    return len(lesions.dice) / lesions.n_prediction if lesions.n_prediction else math.nan


def lesion_f1(pair: MaskPair) -> float:
    """Twice the matches over the components of both, 0..1: the Dice coefficient of lesions; NaN where absent from both."""
    lesions = pair.lesions
    total = lesions.n_prediction + lesions.n_reference
    return 2 * len(lesions.dice) / total if total else math.nan


def lesion_false_positives(pair: MaskPair) -> float:
    """Predicted components that match none of the reference; 0, not NaN, where the organ is absent from both."""
    lesions = pair.lesions
    return float(lesions.n_prediction - len(lesions.dice))


def lesion_dice(pair: MaskPair) -> float:
    """Mean Dice of the components that match; NaN where none does."""
    lesions = pair.lesions
    return sum(lesions.dice) / len(lesions.dice) if lesions.dice else math.nan
