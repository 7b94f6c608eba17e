"""Metrics of lesions (or other separate parts of an organ) instead of voxels; matching: `autoseg.evaluation.components`."""

from __future__ import annotations

from .counts import ratio
from .masks import MaskPair


def lesion_recall(pair: MaskPair) -> float:
    """Share of the reference's components that were found, 0..1; NaN where the reference has none."""
    return ratio(len(pair.lesions.dice), pair.lesions.n_reference)


def lesion_precision(pair: MaskPair) -> float:
    """Share of the predicted components that match one of the reference, 0..1; NaN where nothing was predicted."""
    return ratio(len(pair.lesions.dice), pair.lesions.n_prediction)


def lesion_f1(pair: MaskPair) -> float:
    """Twice the matches over the components of both, 0..1: the Dice coefficient of lesions; NaN where absent from both."""
    return ratio(2 * len(pair.lesions.dice), pair.lesions.n_prediction + pair.lesions.n_reference)


def lesion_false_positives(pair: MaskPair) -> float:
    """Predicted components that match none of the reference; 0, not NaN, where the organ is absent from both."""
    return float(pair.lesions.n_prediction - len(pair.lesions.dice))


def lesion_dice(pair: MaskPair) -> float:
    """Mean Dice of the components that match; NaN where none does."""
    return ratio(sum(pair.lesions.dice), len(pair.lesions.dice))
