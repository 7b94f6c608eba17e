"""Learning from cases in which only some organs were annotated."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..model import Labels

Annotated = tuple[tuple[int, ...] | None, ...]
"""Of each sample the annotated organs as indices into `Labels.names`, or None where all were."""

NEVER = -1e4
"""A logit whose probability is zero in float32 and bfloat16."""


class TargetAdaptive:
    """The target adaptive loss around any loss (Fang & Yan, IEEE TMI 39, 2020).

    In a sample where only some organs were annotated, what looks like background may be any of the others: their probabilities are added
    to background's, so that the network is neither punished nor rewarded for finding them. Where organs overlap (regions) the channels
    of the others do not count. Samples with every organ annotated are handed on untouched.

    Args:
        loss: ``loss(outputs, segmentation) -> scalar``; outputs are one tensor ``(B, K, *spatial)`` or several.
        labels: Of the network's outputs.
    """

    def __init__(self, loss: Callable[[Tensor | Sequence[Tensor], Tensor], Tensor], labels: Labels) -> None:
        self.loss, self.labels = loss, labels

    def __call__(self, outputs: Tensor | Sequence[Tensor], segmentation: Tensor, annotated: Annotated = ()) -> Tensor:
        """Scalar loss.

        Args:
            outputs: Logits ``(B, K, *spatial)``, or a sequence of them.
            segmentation: ``(B, *spatial)`` internal values; what was not annotated is background there.
            annotated: Of each sample; empty means every organ in all of them.
        """
        if all(organs is None for organs in annotated):
            return self.loss(outputs, segmentation)
        if isinstance(outputs, Tensor):
            return self.loss(merge_unlabelled(outputs, annotated, self.labels), segmentation)
        return self.loss(tuple(merge_unlabelled(one, annotated, self.labels) for one in outputs), segmentation)


def merge_unlabelled(logits: Tensor, annotated: Annotated, labels: Labels) -> Tensor:
    """Logits whose probabilities of unannotated organs are part of background's (softmax), or zero (regions).

    Args:
        logits: ``(B, K, *spatial)``.
        annotated: One entry a sample.
        labels: Of the K outputs.
    """
    rows = []
    for row, organs in zip(logits, annotated, strict=True):
        unknown = [] if organs is None else [index for index in range(len(labels.names)) if index not in organs]
        rows.append(_merged(row.float(), unknown, labels) if unknown else row.float())
    return torch.stack(rows)


def _merged(row: Tensor, unknown: list[int], labels: Labels) -> Tensor:
    """One sample's logits ``(K, *spatial)``."""
    channels = list(row)
    if not labels.regions:
        channels[0] = torch.logsumexp(torch.stack([row[0], *(row[index + 1] for index in unknown)]), 0)
    for index in unknown:
        channels[index if labels.regions else index + 1] = torch.full_like(row[0], NEVER)
    return torch.stack(channels)
