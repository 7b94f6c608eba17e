"""Losses on logits and internal label maps.

Every loss is a callable ``loss(logits (B, K, *spatial), target (B, *spatial) internal values) -> scalar tensor``, built from the dataset's
labels by a factory in `LOSSES`. Voxels with the ignore label count nowhere; `OUTSIDE` counts as background. All of it is computed in
float32, also from logits in half precision, and has a finite gradient where organs are absent. The terms are pure functions in
`overlap`, `entropy`, `boundary` and `centreline`. With ``weight=``, ``(B, *spatial)`` from 0 (as ignored) to 1, voxels count more or less,
as those of pseudo-labels do; means are then weighted means.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from ...runtime.registry import lookup
from ...schema import Labels
from .boundary import boundary_loss
from .centreline import soft_cldice_loss
from .entropy import cross_entropy, focal_loss, top_k_cross_entropy, weighted_cross_entropy
from .overlap import generalised_dice_loss, soft_dice_loss, tversky_loss
from .targets import Target, make_target


class DiceCrossEntropy:
    """Soft Dice plus cross entropy with weights 1:1; binary cross entropy over channels where organs overlap.

    Args:
        batch_dice: Overlap is summed over the batch, one volume made of all patches, instead of a sample (`overlap`).
        class_weights: `TrainingOptions.class_weights`.
    """

    def __init__(
        self,
        labels: Labels,
        *,
        batch_dice: bool,
        dice_weight: float = 1.0,
        entropy_weight: float = 1.0,
        class_weights: Sequence[float] = (),
    ) -> None:
        self.labels, self.batch_dice = labels, batch_dice
        self.class_weights = _one_a_class(class_weights, labels) if class_weights else None
        self.dice_weight, self.entropy_weight = dice_weight, entropy_weight

    def __call__(self, logits: Tensor, segmentation: Tensor, weight: Tensor | None = None) -> Tensor:
        """Scalar loss of ``(B, K, *spatial)`` logits against a ``(B, *spatial)`` internal label map, and weights of its voxels, 0 to 1."""
        logits = logits.float()
        target = make_target(segmentation, self.labels, weight)
        loss = logits.new_zeros(())
        if self.dice_weight:
            probabilities = logits.sigmoid() if self.labels.regions else logits.softmax(1)
            loss = loss + self.dice_weight * self.overlap(probabilities, target)
        if self.entropy_weight:
            loss = loss + self.entropy_weight * self.entropy(logits, target)
        return loss

    def overlap(self, probabilities: Tensor, target: Target) -> Tensor:
        """The Dice term."""
        return soft_dice_loss(probabilities, target, batch_dice=self.batch_dice, skip_background=not self.labels.regions)

    def entropy(self, logits: Tensor, target: Target) -> Tensor:
        """The cross entropy."""
        weights = None if self.class_weights is None else logits.new_tensor(self.class_weights)
        return cross_entropy(logits, target, weights)


class GeneralisedDiceCrossEntropy(DiceCrossEntropy):
    """Generalised Dice loss (`generalised_dice_loss`) plus cross entropy with weights 1:1."""

    def overlap(self, probabilities: Tensor, target: Target) -> Tensor:
        """The Dice term."""
        return generalised_dice_loss(probabilities, target, batch_dice=self.batch_dice)


class WeightedCrossEntropy(DiceCrossEntropy):
    """Cross entropy with weights that balance the classes, without Dice unless `dice_weight` is set.

    The classes are counted in each batch (`weighted_cross_entropy`); `class_weights` are weights that were counted before, as the
    `CascadeTrainer` does in the candidate regions.
    """

    def __init__(
        self,
        labels: Labels,
        *,
        batch_dice: bool,
        dice_weight: float = 0.0,
        entropy_weight: float = 1.0,
        class_weights: Sequence[float] = (),
    ) -> None:
        weights = {"dice_weight": dice_weight, "entropy_weight": entropy_weight}
        super().__init__(labels, batch_dice=batch_dice, class_weights=class_weights, **weights)

    def entropy(self, logits: Tensor, target: Target) -> Tensor:
        """The cross entropy."""
        return weighted_cross_entropy(logits, target) if self.class_weights is None else super().entropy(logits, target)


class DiceTopK(DiceCrossEntropy):
    """Soft Dice plus the cross entropy of the worst tenth of the voxels (`top_k_cross_entropy`)."""

    def entropy(self, logits: Tensor, target: Target) -> Tensor:
        """The cross entropy of the worst voxels."""
        return top_k_cross_entropy(logits, target)


class DiceFocal(DiceCrossEntropy):
    """Soft Dice plus the focal loss (`focal_loss`)."""

    def entropy(self, logits: Tensor, target: Target) -> Tensor:
        """The focal loss."""
        return focal_loss(logits, target)


class Tversky(DiceCrossEntropy):
    """Tversky loss (`tversky_loss`) in place of the Dice, with the exponent of the focal Tversky loss or without, plus cross entropy."""

    def __init__(self, labels: Labels, *, batch_dice: bool, exponent: float = 1.0, entropy_weight: float = 1.0) -> None:
        super().__init__(labels, batch_dice=batch_dice, entropy_weight=entropy_weight)
        self.exponent = exponent

    def overlap(self, probabilities: Tensor, target: Target) -> Tensor:
        """The Tversky term."""
        skip = not self.labels.regions
        return tversky_loss(probabilities, target, batch_dice=self.batch_dice, skip_background=skip, exponent=self.exponent)


class DiceCentreline(DiceCrossEntropy):
    """Half soft Dice and half soft clDice (`soft_cldice_loss`), the largest share of it that the paper takes, plus cross entropy."""

    def overlap(self, probabilities: Tensor, target: Target) -> Tensor:
        """Both Dice terms."""
        centreline = soft_cldice_loss(probabilities, target, batch_dice=self.batch_dice, skip_background=not self.labels.regions)
        return 0.5 * super().overlap(probabilities, target) + 0.5 * centreline


class DiceBoundary(DiceCrossEntropy):
    """Soft Dice plus a hundredth of the boundary loss (`boundary_loss`), plus cross entropy.

    A hundredth is what the paper begins with; it may be kept throughout, or (which is not done here) grow from epoch to epoch.
    """

    def overlap(self, probabilities: Tensor, target: Target) -> Tensor:
        """The Dice term and that of the boundary."""
        return super().overlap(probabilities, target) + 0.01 * boundary_loss(probabilities, target, skip_background=not self.labels.regions)


LOSSES: dict[str, Callable[..., Callable[..., Tensor]]] = {
    "dice_ce": DiceCrossEntropy,
    "dice": partial(DiceCrossEntropy, entropy_weight=0.0),
    "ce": partial(DiceCrossEntropy, dice_weight=0.0),
    "generalised_dice": partial(GeneralisedDiceCrossEntropy, entropy_weight=0.0),
    "generalised_dice_ce": GeneralisedDiceCrossEntropy,
    "weighted_ce": WeightedCrossEntropy,
    "topk": partial(DiceTopK, dice_weight=0.0),
    "dice_topk": DiceTopK,
    "focal": partial(DiceFocal, dice_weight=0.0),
    "dice_focal": DiceFocal,
    "tversky": partial(Tversky, entropy_weight=0.0),
    "tversky_ce": Tversky,
    "focal_tversky": partial(Tversky, exponent=0.75, entropy_weight=0.0),
    "dice_cldice": partial(DiceCentreline, entropy_weight=0.0),
    "dice_cldice_ce": DiceCentreline,
    "dice_boundary": partial(DiceBoundary, entropy_weight=0.0),
    "dice_boundary_ce": DiceBoundary,
}
"""Name to factory ``(labels, *, batch_dice) -> loss``."""

CLASS_WEIGHTED = ("ce", "dice_ce", "generalised_dice_ce", "weighted_ce")
"""Losses with a cross entropy whose classes may be weighted: their factories also take ``class_weights``."""


def build_loss(name: str, labels: Labels, *, batch_dice: bool, class_weights: Sequence[float] = ()) -> Callable[..., Tensor]:
    """The loss called `name` (of `LOSSES`, or ``module:factory``) for these labels.

    Raises:
        ValueError: It has no class weights and some are given, or their number is wrong.
    """
    factory = lookup(LOSSES, name, "loss")
    if not class_weights:
        return factory(labels, batch_dice=batch_dice)
    if name not in CLASS_WEIGHTED:
        raise ValueError(f"class_weights: expected one of the losses {', '.join(CLASS_WEIGHTED)}, got {name!r}")
    return factory(labels, batch_dice=batch_dice, class_weights=class_weights)


def check_takes_weights(name: str, labels: Labels) -> None:
    """Refuses (ValueError) a loss, by its name, that cannot count some voxels more than others."""
    loss = build_loss(name, labels, batch_dice=False)
    if "weight" not in inspect.signature(loss).parameters:
        raise ValueError(
            f"loss {name}: expected one of (logits, segmentation, weight=None), as pseudo-labels need it, found none of weight"
        )


def _one_a_class(weights: Sequence[float], labels: Labels) -> list[float]:
    """The weights of background and each organ, of which one may stand for all organs."""
    organs = len(labels.names)
    if len(weights) not in (2, organs + 1) or not sum(weights) > 0:
        raise ValueError(f"class_weights: expected background's and 1 or {organs} of organs, not all 0, got {list(weights)}")
    return [*weights] if len(weights) == organs + 1 else [weights[0], *[weights[1]] * organs]
