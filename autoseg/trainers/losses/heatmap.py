"""The loss on the heatmaps of a SpatialConfiguration-Net's parts (Thaler et al., FLARE challenge at MICCAI 2021)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...schema import Labels
from .target_adaptive import Annotated, merge_values, unions_of, unknown_organs
from .targets import make_target


def sigmoid_cross_entropy(logits: Tensor, segmentation: Tensor, labels: Labels, annotated: Annotated = ()) -> Tensor:
    """Mean binary cross entropy over labels and voxels, background among the labels.

    Ignored voxels do not count. In a sample where only some organs were annotated the channels of the others do not count, and
    background's counts where an annotated organ is (where none is, it may be one of the others). Channels of organs that were annotated
    only together count where their union is not, as none of them is there.

    Args:
        logits: ``(B, K, *spatial)``, each a sigmoid of its own.
        segmentation: ``(B, *spatial)`` internal values.
        labels: That exclude each other.
        annotated: Of each sample; empty means every organ in all of them.
    """
    logits = logits.float()
    if any(organs is not None for organs in annotated):
        segmentation = merge_values(segmentation, annotated, labels)
    target = make_target(segmentation, labels)
    truth = target.channels(logits.shape[1])
    weight = torch.ones_like(truth) if target.valid is None else target.valid.expand_as(truth).clone()
    for sample, organs in enumerate(annotated):
        unknown = unknown_organs(organs, labels)
        if unknown:
            weight[sample, [organ + 1 for organ in unknown]] = 0
            weight[sample, 0] *= 1 - truth[sample, 0]
        for union in unions_of(organs):
            outside = 1 - truth[sample, union[0] + 1]
            weight[sample, [organ + 1 for organ in union]] = outside if target.valid is None else outside * target.valid[sample, 0]
    voxelwise = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return (voxelwise * weight).sum() / weight.sum().clamp(min=1)
