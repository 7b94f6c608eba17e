"""Losses on logits and internal label maps.

Every loss is a callable ``loss(logits (B, K, *spatial), target (B, *spatial) internal values) -> scalar tensor``, built from the dataset's
labels by a factory in `LOSSES`. Voxels with the ignore label count nowhere; `OUTSIDE` counts as background.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..model import Labels
from ..naming import lookup

SMOOTH = 1e-5


@dataclass(frozen=True)
class Target:
    """What the logits are compared with.

    Attributes:
        classes: ``(B, *spatial)`` int64 class of each voxel; softmax labels only.
        regions: ``(B, K, *spatial)`` float 0/1; overlapping regions only.
        valid: ``(B, 1, *spatial)`` float 0/1 of voxels that count, or None where all do.
    """

    classes: Tensor | None
    regions: Tensor | None
    valid: Tensor | None


def make_target(segmentation: Tensor, labels: Labels) -> Target:
    """Turns an internal label map ``(B, *spatial)`` into what the losses need; ignored voxels are marked invalid."""
    valid = None
    if labels.internal_ignore is not None:
        annotated = segmentation != labels.internal_ignore
        valid = annotated[:, None].float()
        segmentation = segmentation * annotated
    segmentation = segmentation.clamp(min=0)
    if not labels.regions:
        return Target(segmentation.long(), None, valid)
    channels = [sum(segmentation == value for value in member).float() for member in labels.internal_members]
    return Target(None, torch.stack(channels, 1), valid)


def soft_dice_loss(probabilities: Tensor, target: Target, *, batch_dice: bool, skip_background: bool) -> Tensor:
    """One minus the mean soft Dice over channels (and samples, unless `batch_dice`), with smooth 1e-5 in the denominator's favour.

    Milletari et al. 2016, in the form with plain sums in the denominator (Drozdzal et al. 2016).

    Args:
        probabilities: ``(B, K, *spatial)``.
        target: Of the same size.
        batch_dice: Sum over the batch first: one volume made of all patches.
        skip_background: Leave channel 0 out.
    """
    axes = tuple(range(2, probabilities.ndim))
    first = 1 if skip_background else 0
    truth = target.regions if target.regions is not None else _one_hot(target.classes, probabilities.shape[1])
    probabilities, truth = probabilities[:, first:], truth[:, first:]
    if target.valid is not None:
        probabilities, truth = probabilities * target.valid, truth * target.valid
    overlap = (probabilities * truth).sum(axes)
    total = probabilities.sum(axes) + truth.sum(axes)
    if batch_dice:
        overlap, total = overlap.sum(0), total.sum(0)
    return 1 - ((2 * overlap + SMOOTH) / (total + SMOOTH).clamp(min=1e-8)).mean()


def _one_hot(classes: Tensor, n_classes: int) -> Tensor:
    shape = (classes.shape[0], n_classes, *classes.shape[1:])
    return torch.zeros(shape, device=classes.device).scatter_(1, classes[:, None], 1.0)


class DiceCrossEntropy:
    """Soft Dice plus cross entropy with weights 1:1; binary cross entropy over channels where organs overlap.

    Args:
        labels: Of the dataset.
        batch_dice: See `soft_dice_loss`.
        dice_weight: Factor of the Dice term.
        entropy_weight: Factor of the cross entropy.
    """

    def __init__(self, labels: Labels, *, batch_dice: bool, dice_weight: float = 1.0, entropy_weight: float = 1.0) -> None:
        self.labels, self.batch_dice = labels, batch_dice
        self.dice_weight, self.entropy_weight = dice_weight, entropy_weight

    def __call__(self, logits: Tensor, segmentation: Tensor) -> Tensor:
        """Scalar loss of ``(B, K, *spatial)`` logits against a ``(B, *spatial)`` internal label map."""
        logits = logits.float()
        target = make_target(segmentation, self.labels)
        loss = logits.new_zeros(())
        if self.dice_weight:
            probabilities = logits.sigmoid() if self.labels.regions else logits.softmax(1)
            dice = soft_dice_loss(probabilities, target, batch_dice=self.batch_dice, skip_background=not self.labels.regions)
            loss = loss + self.dice_weight * dice
        if self.entropy_weight:
            loss = loss + self.entropy_weight * self._entropy(logits, target)
        return loss

    def _entropy(self, logits: Tensor, target: Target) -> Tensor:
        if target.regions is None:
            voxelwise = F.cross_entropy(logits, target.classes, reduction="none")[:, None]
        else:
            voxelwise = F.binary_cross_entropy_with_logits(logits, target.regions, reduction="none").mean(1, keepdim=True)
        if target.valid is None:
            return voxelwise.mean()
        return (voxelwise * target.valid).sum() / target.valid.sum().clamp(min=1)


class DeepSupervision:
    """A loss applied to outputs of several resolutions, finest first, with weights 1, 1/2, 1/4 ... of which the last is dropped.

    The label map is brought to each output's size by nearest neighbour. A single tensor is passed straight to `loss`.
    """

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.loss = loss

    def __call__(self, outputs: Tensor | Sequence[Tensor], segmentation: Tensor) -> Tensor:
        """Weighted sum over `outputs`, weights normalised to one."""
        if isinstance(outputs, Tensor):
            return self.loss(outputs, segmentation)
        weights = [0.5**i for i in range(len(outputs))]
        if len(weights) > 1:
            weights[-1] = 0.0
        total = sum(weights)
        return sum(
            weight / total * self.loss(output, _resize(segmentation, output.shape[2:]))
            for weight, output in zip(weights, outputs, strict=True)
            if weight
        )


def _resize(segmentation: Tensor, size: torch.Size) -> Tensor:
    if segmentation.shape[1:] == size:
        return segmentation
    return F.interpolate(segmentation[:, None].float(), size=size, mode="nearest-exact")[:, 0].to(segmentation.dtype)


def _dice(labels: Labels, *, batch_dice: bool) -> DiceCrossEntropy:
    return DiceCrossEntropy(labels, batch_dice=batch_dice, entropy_weight=0.0)


def _cross_entropy(labels: Labels, *, batch_dice: bool) -> DiceCrossEntropy:
    return DiceCrossEntropy(labels, batch_dice=batch_dice, dice_weight=0.0)


LOSSES = {"dice_ce": DiceCrossEntropy, "dice": _dice, "ce": _cross_entropy}
"""Name to factory ``(labels, *, batch_dice) -> loss``."""


def build_loss(name: str, labels: Labels, *, batch_dice: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss called `name` (of `LOSSES`, or ``module:factory``) for these labels."""
    return lookup(LOSSES, name, "loss")(labels, batch_dice=batch_dice)
