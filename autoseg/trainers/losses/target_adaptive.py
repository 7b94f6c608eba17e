"""The target adaptive loss, for cases in which only some organs were annotated."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...schema import Labels, Mirroring
from .deep_supervision import resize_labels
from .targets import make_target

Annotated = tuple[tuple[int, ...] | None, ...]
"""Of each sample the annotated organs as indices into `Labels.names`, or None where all were."""

NEVER = -1e4
"""A logit whose probability is zero in float32 and bfloat16."""


class TargetAdaptive:
    """The target adaptive loss around any loss (Fang & Yan, IEEE TMI 39, 2020, equation 8).

    In a sample where only some organs were annotated, what looks like background may be any of the others: their probabilities are added
    to background's, so that the network is neither punished nor rewarded for finding them. Where organs overlap (regions) the channels
    of the others are made right everywhere, which costs nothing and gives no gradient. A batch in which every organ is annotated has
    exactly the loss that it has without this.

    The effect on the losses: cross entropy becomes the paper's. In a soft Dice that is averaged over organs and samples, an organ
    without annotation counts as agreement, 1: a constant, so that every annotated organ of every sample keeps the weight that it has
    elsewhere, and the value of the loss is lower the less is annotated. Summed over the batch (`batch_dice`) such a sample adds nothing to
    the organ's sums (of a region only what other, annotated regions inside it imply), and the organ is judged on the samples that have it.
    In the generalised Dice it adds nothing either, while background's volume, and with it its weight, is that of all that is not
    annotated. Class weights are counted from the label map as it is.

    Args:
        loss: ``loss(outputs, segmentation) -> scalar``; outputs are one tensor ``(B, K, *spatial)`` or several.
    """

    def __init__(self, loss: Callable[..., Tensor], labels: Labels) -> None:
        self.loss, self.labels = loss, labels

    def __call__(
        self, outputs: Tensor | Sequence[Tensor], segmentation: Tensor, annotated: Annotated = (), weight: Tensor | None = None
    ) -> Tensor:
        """Scalar loss.

        Args:
            outputs: Logits ``(B, K, *spatial)``, or a sequence of them.
            segmentation: ``(B, *spatial)`` internal values; what was not annotated is background there.
            annotated: Of each sample; empty means every organ in all of them.
            weight: ``(B, *spatial)`` 0 to 1, how much each voxel counts; None means fully.

        Raises:
            ValueError: `annotated` has another number of entries than the batch has samples.
        """
        if not all(organs is None for organs in annotated):
            if isinstance(outputs, Tensor):
                outputs = merge_unlabelled(outputs, annotated, self.labels, segmentation)
            else:
                outputs = tuple(merge_unlabelled(one, annotated, self.labels, segmentation) for one in outputs)
        # A loss of somebody else's need not know of weights.
        return self.loss(outputs, segmentation) if weight is None else self.loss(outputs, segmentation, weight=weight)


def after_flip(organs: tuple[int, ...] | None, mirroring: Mirroring) -> tuple[int, ...] | None:
    """The annotated organs of a sample after a flip that exchanges left and right: the partners of those before."""
    partner = {left: right for pair in mirroring.pairs for left, right in (pair, pair[::-1])}
    return None if organs is None else tuple(sorted(partner.get(organ, organ) for organ in organs))


def unknown_organs(organs: tuple[int, ...] | None, labels: Labels) -> list[int]:
    """Indices into `Labels.names` of the organs that were not annotated in a sample."""
    return [] if organs is None else [index for index in range(len(labels.names)) if index not in organs]


def merge_unlabelled(logits: Tensor, annotated: Annotated, labels: Labels, segmentation: Tensor) -> Tensor:
    """Logits whose probabilities of unannotated organs are part of background's (softmax), or equal to the label map (regions).

    Args:
        logits: ``(B, K, *spatial)``.
        segmentation: ``(B, *spatial)`` internal values, of this or a finer resolution; of regions it says which others they imply.

    Returns:
        ``(B, K, *spatial)`` float32.

    Raises:
        ValueError: `annotated` has another number of entries than the batch has samples.
    """
    if len(annotated) != len(logits):
        raise ValueError(f"annotated organs: expected one entry for each of {len(logits)} samples, got {len(annotated)}")
    unknown = [unknown_organs(organs, labels) for organs in annotated]
    if not labels.regions:
        return torch.stack([_merged(row.float(), organs) if organs else row.float() for row, organs in zip(logits, unknown, strict=True)])
    truth = make_target(resize_labels(segmentation, logits.shape[2:]), labels).channels(logits.shape[1]) > 0
    settled = torch.zeros(logits.shape[:2], dtype=torch.bool, device=logits.device)
    for sample, organs in enumerate(unknown):
        settled[sample, organs] = True
    certain = torch.where(truth, -NEVER, NEVER)
    return torch.where(settled.view(*settled.shape, *[1] * (logits.ndim - 2)), certain, logits.float())


def _merged(row: Tensor, unknown: list[int]) -> Tensor:
    """One sample's logits ``(K, *spatial)``, background first."""
    channels = list(row)
    channels[0] = torch.logsumexp(torch.stack([row[0], *(row[index + 1] for index in unknown)]), 0)
    for index in unknown:
        channels[index + 1] = torch.full_like(row[0], NEVER)
    return torch.stack(channels)
