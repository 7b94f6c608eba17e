"""Targets of losses: an internal label map as classes or regions, and the voxels that count."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...schema import Labels


@dataclass(frozen=True)
class Target:
    """The truth that logits are compared with.

    Attributes:
        classes: ``(B, *spatial)`` class of each voxel, int64 for softmax; with regions the internal value, ignored voxels as background.
        regions: ``(B, K, *spatial)`` float 0/1; overlapping regions only.
        valid: ``(B, 1, *spatial)`` float, how much each voxel counts: 0 not at all, 1 fully; None where all count fully.
    """

    classes: Tensor
    regions: Tensor | None
    valid: Tensor | None

    def channels(self, n_outputs: int) -> Tensor:
        """The truth ``(B, n_outputs, *spatial)`` as float 0/1, one channel an output; ignored voxels are background."""
        return self.regions if self.regions is not None else one_hot(self.classes, n_outputs)


def make_target(segmentation: Tensor, labels: Labels, weight: Tensor | None = None) -> Target:
    """Turns an internal label map ``(B, *spatial)`` into what the losses need; ignored voxels are marked invalid.

    Args:
        weight: ``(B, *spatial)`` 0 to 1, how much each voxel counts; a voxel of weight 0 is as one with the ignore label.
    """
    valid = None
    if labels.internal_ignore is not None:
        annotated = segmentation != labels.internal_ignore
        valid = annotated[:, None].float()
        segmentation = segmentation * annotated
    if weight is not None:
        valid = weight[:, None].float() if valid is None else valid * weight[:, None].float()
        segmentation = segmentation * (weight > 0)
    segmentation = segmentation.clamp(min=0)
    if not labels.regions:
        return Target(segmentation.long(), None, valid)
    channels = [torch.stack([segmentation == value for value in member]).any(0).float() for member in labels.internal_members]
    return Target(segmentation, torch.stack(channels, 1), valid)


def one_hot(classes: Tensor, n_classes: int) -> Tensor:
    """``(B, *spatial)`` int64 as ``(B, n_classes, *spatial)`` float 0/1."""
    shape = (classes.shape[0], n_classes, *classes.shape[1:])
    return torch.zeros(shape, device=classes.device).scatter_(1, classes[:, None], 1.0)
