"""The centreline Dice (clDice) of thin structures: whether each skeleton lies in the other's mask."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .targets import Target

STEPS = 5
"""Erosions of the soft skeleton: it is thin where the structure's radius is at most so many voxels (the paper takes 5 to 25)."""

SMOOTH = 1.0
"""Added to sums of skeletons, which may be empty; as in the authors' code."""


def soft_cldice_loss(probabilities: Tensor, target: Target, *, batch_dice: bool, skip_background: bool, steps: int = STEPS) -> Tensor:
    """One minus the mean soft centreline Dice over channels (and samples, unless `batch_dice`).

    Shit et al., CVPR 2021: the harmonic mean of the share of the predicted skeleton that lies in the true mask and of the share of the true
    skeleton that lies in the predicted mask. A break of a vessel or a missed thin end costs as much as it is long.

    Args:
        probabilities: ``(B, K, *spatial)``.
        skip_background: Leave channel 0 out.
        steps: Erosions of the skeletons.
    """
    first = 1 if skip_background else 0
    truth, found = target.channels(probabilities.shape[1])[:, first:], probabilities[:, first:]
    if target.valid is not None:
        found = found * (target.valid > 0)  # as the truth: a skeleton must not know of what does not count
    precision = _share_inside(soft_skeleton(found, steps), truth, target.valid, batch_dice)
    sensitivity = _share_inside(soft_skeleton(truth, steps), found, target.valid, batch_dice)
    return 1 - (2 * precision * sensitivity / (precision + sensitivity)).mean()


def _share_inside(skeleton: Tensor, mask: Tensor, weight: Tensor | None, batch_dice: bool) -> Tensor:
    """Share of a skeleton that lies in a mask, both ``(B, K, *spatial)``: ``(B, K)``, or ``(K,)`` with `batch_dice`."""
    skeleton = skeleton if weight is None else skeleton * weight
    axes = (*([0] if batch_dice else []), *range(2, skeleton.ndim))
    return ((skeleton * mask).sum(axes) + SMOOTH) / (skeleton.sum(axes) + SMOOTH)


def soft_skeleton(mask: Tensor, steps: int) -> Tensor:
    """The soft skeleton of masks ``(B, K, *spatial)`` 0 to 1 (algorithm 1 of the paper): what an opening removes, erosion by erosion."""
    skeleton = F.relu(mask - _opened(mask))
    for _ in range(steps):
        mask = _eroded(mask)
        skeleton = skeleton + (1 - skeleton) * F.relu(mask - _opened(mask))
    return skeleton


def _opened(mask: Tensor) -> Tensor:
    pool = F.max_pool2d if mask.ndim == 4 else F.max_pool3d
    return pool(_eroded(mask), 3, stride=1, padding=1)


def _eroded(mask: Tensor) -> Tensor:
    """The smallest of a voxel and its neighbours over faces, as in the authors' code; beyond the border is nothing that erodes."""
    pool = F.max_pool2d if mask.ndim == 4 else F.max_pool3d
    axes = mask.ndim - 2
    smallest = mask
    for axis in range(axes):
        size = [3 if one == axis else 1 for one in range(axes)]
        along = -pool(-mask, size, stride=1, padding=[one // 2 for one in size])
        smallest = along.minimum(smallest)
    return smallest
