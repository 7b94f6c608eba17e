"""The target adaptive loss, for cases in which only some organs were annotated."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...data.annotations import Known
from ...schema import Labels, Mirroring
from .deep_supervision import resize_labels
from .targets import make_target

Annotated = tuple[tuple[Known, ...] | None, ...]
"""Of each sample what was annotated: organs as indices into `Labels.names`, unions of organs as tuples of them; None where all were."""

NEVER = -1e4
"""A logit whose probability is zero in float32 and bfloat16."""


class TargetAdaptive:
    """The target adaptive loss around any loss (Fang & Yan, IEEE TMI 39, 2020, equation 8).

    In a sample where only some organs were annotated, what looks like background may be any of the others: their probabilities are added
    to background's, so that the network is neither punished nor rewarded for finding them. Where organs overlap (regions) the channels
    of the others are made right everywhere, which costs nothing and gives no gradient. A batch in which every organ is annotated has
    exactly the loss that it has without this.

    Organs that were annotated only together (both kidneys as one) are one class in that sample, with the sum of their probabilities: the
    network learns where the union is, and is neither punished nor rewarded for the organ that it takes it for (the marginal loss of Shi
    et al., Medical Image Analysis 70, 2021). In the losses it stands for the first of them, and the others count as not annotated.

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
            segmentation = merge_values(segmentation, annotated, self.labels)
            if isinstance(outputs, Tensor):
                outputs = merge_unlabelled(outputs, annotated, self.labels, segmentation)
            else:
                outputs = tuple(merge_unlabelled(one, annotated, self.labels, segmentation) for one in outputs)
        # A loss of somebody else's need not know of weights.
        return self.loss(outputs, segmentation) if weight is None else self.loss(outputs, segmentation, weight=weight)


def after_flip(organs: tuple[Known, ...] | None, mirroring: Mirroring) -> tuple[Known, ...] | None:
    """What was annotated in a sample after a flip that exchanges left and right: the partners of the organs before."""
    if organs is None:
        return None
    partner = {left: right for pair in mirroring.pairs for left, right in (pair, pair[::-1])}
    unions = (tuple(sorted(partner.get(organ, organ) for organ in union)) for union in unions_of(organs))
    return *sorted(partner.get(organ, organ) for organ in organs if isinstance(organ, int)), *sorted(unions)


def unknown_organs(organs: tuple[Known, ...] | None, labels: Labels) -> list[int]:
    """Indices into `Labels.names` of the organs that were not annotated by themselves in a sample, those of unions among them."""
    return [] if organs is None else [index for index in range(len(labels.names)) if index not in organs]


def unions_of(organs: tuple[Known, ...] | None) -> list[tuple[int, ...]]:
    """The unions of organs that were annotated in a sample only together."""
    return [one for one in organs or () if isinstance(one, tuple)]


def merge_values(segmentation: Tensor, annotated: Annotated, labels: Labels) -> Tensor:
    """The label maps ``(B, *spatial)`` of internal values with the first organ of a union in place of all of it.

    Organs that nobody annotated become background, of which their probabilities are part: values of unions of which a model learns only
    some organs. Regions, which have no unions, stay.
    """
    _check_one_each(annotated, segmentation)
    if labels.regions:
        return segmentation
    rows = []
    for row, organs in zip(segmentation, annotated, strict=True):
        moves = {} if organs is None else dict.fromkeys(unknown_organs(organs, labels), 0)
        moves |= {organ: labels.internal_members[union[0]][0] for union in unions_of(organs) for organ in union}
        merged = row
        for organ, value in moves.items():
            merged = merged.masked_fill(row == labels.internal_members[organ][0], value)
        rows.append(merged)
    return torch.stack(rows)


def merge_unlabelled(logits: Tensor, annotated: Annotated, labels: Labels, segmentation: Tensor) -> Tensor:
    """Logits whose probabilities of unannotated organs are part of background's (softmax), or equal to the label map (regions).

    Those of a union's organs are part of its first organ's.

    Args:
        logits: ``(B, K, *spatial)``.
        segmentation: ``(B, *spatial)`` internal values, of this or a finer resolution; of regions it says which others they imply.

    Returns:
        ``(B, K, *spatial)`` float32.

    Raises:
        ValueError: `annotated` has another number of entries than the batch has samples.
    """
    _check_one_each(annotated, logits)
    unknown = [unknown_organs(organs, labels) for organs in annotated]
    if not labels.regions:
        rows = zip(logits, unknown, map(unions_of, annotated), strict=True)
        return torch.stack([_merged(row.float(), organs, unions) if organs else row.float() for row, organs, unions in rows])
    truth = make_target(resize_labels(segmentation, logits.shape[2:]), labels).channels(logits.shape[1]) > 0
    settled = torch.zeros(logits.shape[:2], dtype=torch.bool, device=logits.device)
    for sample, organs in enumerate(unknown):
        settled[sample, organs] = True
    certain = torch.where(truth, -NEVER, NEVER)
    return torch.where(settled.view(*settled.shape, *[1] * (logits.ndim - 2)), certain, logits.float())


def _check_one_each(annotated: Annotated, batch: Tensor) -> None:
    if len(annotated) != len(batch):
        raise ValueError(f"annotated organs: expected one entry for each of {len(batch)} samples, got {len(annotated)}")


def _merged(row: Tensor, unknown: list[int], unions: list[tuple[int, ...]]) -> Tensor:
    """One sample's logits ``(K, *spatial)``, background first; the organs of `unions` are among the `unknown`."""
    channels = list(row)
    together = {organ for union in unions for organ in union}
    apart = [organ for organ in unknown if organ not in together]
    if apart:
        channels[0] = torch.logsumexp(torch.stack([row[0], *(row[organ + 1] for organ in apart)]), 0)
    for organ in unknown:
        channels[organ + 1] = torch.full_like(row[0], NEVER)
    for union in unions:
        channels[union[0] + 1] = torch.logsumexp(torch.stack([row[organ + 1] for organ in union]), 0)
    return torch.stack(channels)
