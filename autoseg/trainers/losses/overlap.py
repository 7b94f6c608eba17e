"""Overlap losses, as pure functions of probabilities in float32.

Sums are taken a sample, or with `batch_dice` over the whole batch, as if its patches were one volume: an organ then needs to be in one of
the patches only, and in a patch without it a faint false positive does not cost the full loss of the organ.
"""

from __future__ import annotations

from torch import Tensor

from .targets import Target

SMOOTH = 1e-5

STEEPEST = 1e-6
"""Loss below which the focal Tversky loss has no slope any more."""


def soft_dice_loss(probabilities: Tensor, target: Target, *, batch_dice: bool, skip_background: bool) -> Tensor:
    """One minus the mean soft Dice over channels (and samples, unless `batch_dice`), with smooth 1e-5 in the denominator's favour.

    Milletari et al. 2016, in the form with plain sums in the denominator (Drozdzal et al. 2016). Also known as the fuzzy Dice loss
    (Conze et al., Artificial Intelligence in Medicine 117, 2021).

    Args:
        probabilities: ``(B, K, *spatial)``.
        skip_background: Leave channel 0 out.
    """
    overlap, total, _ = _sums(probabilities, target, batch_dice=batch_dice, first=1 if skip_background else 0)
    return 1 - ((2 * overlap + SMOOTH) / (total + SMOOTH).clamp(min=1e-8)).mean()


def generalised_dice_loss(probabilities: Tensor, target: Target, *, batch_dice: bool) -> Tensor:
    """Generalised Dice loss: all channels, background too, in one ratio, each weighted by 1 / (its volume)^2.

    Sudre et al., DLMIA 2017. A class that is absent has the weight of the smallest one that is present instead of an infinite one, so that
    false positives of it count and nothing overflows. Weights are relative to the largest, which leaves the ratio as it is.

    Args:
        probabilities: ``(B, K, *spatial)``.
        batch_dice: One ratio over the whole batch; else the mean of one a sample.
    """
    overlap, total, volume = _sums(probabilities, target, batch_dice=batch_dice, first=0)
    smallest = volume.masked_fill(volume < 1, float("inf")).amin(-1, keepdim=True)
    smallest = smallest.where(smallest.isfinite(), 1.0)
    weights = (smallest / volume.where(volume >= 1, smallest)) ** 2
    return 1 - ((2 * (weights * overlap).sum(-1) + SMOOTH) / ((weights * total).sum(-1) + SMOOTH)).mean()


def tversky_loss(
    probabilities: Tensor,
    target: Target,
    *,
    batch_dice: bool,
    skip_background: bool,
    false_negatives: float = 0.7,
    exponent: float = 1.0,
) -> Tensor:
    """One minus the Tversky index, averaged as `soft_dice_loss`: overlap / (overlap + a false positives + b false negatives), a = 1 - b.

    With b above one half a missed voxel costs more than a wrong one, so that small lesions are not given up (Salehi, Erdogmus and
    Gholipour, MLMI 2017: b = 0.7); with one half each it is the soft Dice loss. With `exponent` 0.75, which is 1 / gamma at the paper's
    best gamma of 4/3, it is the focal Tversky loss, which weighs organs that are segmented badly (Abraham and Khan, ISBI 2019).

    Args:
        probabilities: ``(B, K, *spatial)``.
        skip_background: Leave channel 0 out.
        false_negatives: b.
        exponent: Power of one minus the index.
    """
    overlap, total, volume = _sums(probabilities, target, batch_dice=batch_dice, first=1 if skip_background else 0)
    wrong, missed = total - volume - overlap, volume - overlap
    cost = (1 - false_negatives) * wrong + false_negatives * missed
    loss = 1 - (overlap + SMOOTH) / (overlap + cost + SMOOTH)
    if exponent == 1:
        return loss.mean()
    # Where nothing is wrong the slope of the power is infinite: below `STEEPEST` it is taken for flat.
    return (loss.clamp(min=STEEPEST) ** exponent - STEEPEST**exponent).mean()


def _sums(probabilities: Tensor, target: Target, *, batch_dice: bool, first: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of each channel from `first` on: overlap, sum of both, and volume of the truth; ``(B, K)``, or ``(K,)`` with `batch_dice`."""
    axes = tuple(range(2, probabilities.ndim))
    truth = target.channels(probabilities.shape[1])
    probabilities, truth = probabilities[:, first:], truth[:, first:]
    if target.valid is not None:
        probabilities, counted = probabilities * target.valid, truth * target.valid
    else:
        counted = truth
    overlap = (probabilities * truth).sum(axes)
    volume = counted.sum(axes)
    total = probabilities.sum(axes) + volume
    return (overlap.sum(0), total.sum(0), volume.sum(0)) if batch_dice else (overlap, total, volume)
