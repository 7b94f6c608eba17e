"""Losses on logits and internal label maps.

Every loss is a callable ``loss(logits (B, K, *spatial), target (B, *spatial) internal values) -> scalar tensor``, built from the dataset's
labels by a factory in `LOSSES`. Voxels with the ignore label count nowhere; `OUTSIDE` counts as background. All of it is computed in
float32, also from logits in half precision, and has a finite gradient where organs are absent. The terms are pure functions in
`overlap` and `entropy`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from ...runtime.registry import lookup
from ...schema import Labels
from .entropy import cross_entropy, weighted_cross_entropy
from .overlap import generalised_dice_loss, soft_dice_loss
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

    def __call__(self, logits: Tensor, segmentation: Tensor) -> Tensor:
        """Scalar loss of ``(B, K, *spatial)`` logits against a ``(B, *spatial)`` internal label map."""
        logits = logits.float()
        target = make_target(segmentation, self.labels)
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
    """Cross entropy with weights that balance the classes (`weighted_cross_entropy`), without Dice unless `dice_weight` is set."""

    def __init__(self, labels: Labels, *, batch_dice: bool, dice_weight: float = 0.0, entropy_weight: float = 1.0) -> None:
        super().__init__(labels, batch_dice=batch_dice, dice_weight=dice_weight, entropy_weight=entropy_weight)

    def entropy(self, logits: Tensor, target: Target) -> Tensor:
        """The cross entropy."""
        return weighted_cross_entropy(logits, target)


LOSSES: dict[str, Callable[..., Callable[[Tensor, Tensor], Tensor]]] = {
    "dice_ce": DiceCrossEntropy,
    "dice": partial(DiceCrossEntropy, entropy_weight=0.0),
    "ce": partial(DiceCrossEntropy, dice_weight=0.0),
    "generalised_dice": partial(GeneralisedDiceCrossEntropy, entropy_weight=0.0),
    "generalised_dice_ce": GeneralisedDiceCrossEntropy,
    "weighted_ce": WeightedCrossEntropy,
}
"""Name to factory ``(labels, *, batch_dice) -> loss``."""

CLASS_WEIGHTED = ("ce", "dice_ce", "generalised_dice_ce")
"""Losses with a cross entropy whose classes may be weighted: their factories also take ``class_weights``."""


def build_loss(name: str, labels: Labels, *, batch_dice: bool, class_weights: Sequence[float] = ()) -> Callable[[Tensor, Tensor], Tensor]:
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


def _one_a_class(weights: Sequence[float], labels: Labels) -> list[float]:
    """The weights of background and each organ, of which one may stand for all organs."""
    organs = len(labels.names)
    if len(weights) not in (2, organs + 1) or not sum(weights) > 0:
        raise ValueError(f"class_weights: expected background's and 1 or {organs} of organs, not all 0, got {list(weights)}")
    return [*weights] if len(weights) == organs + 1 else [weights[0], *[weights[1]] * organs]
