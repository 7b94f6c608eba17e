"""Cross entropies, as pure functions of logits in float32; ignored voxels count nowhere."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .targets import Target


def cross_entropy(logits: Tensor, target: Target, weights: Tensor | None = None) -> Tensor:
    """Mean over the valid voxels; binary and averaged over channels where organs overlap.

    Args:
        logits: ``(B, K, *spatial)``.
        weights: Factor of a voxel by its class, background's first, ``(1 + organs,)``; the sum is still divided by the number of voxels
            (Fang & Yan, IEEE TMI 39, 2020, equation 1). Of an organ that may overlap, background's is that of the voxels outside of it.
    """
    if target.regions is None:
        voxelwise = F.cross_entropy(logits, target.classes, reduction="none")[:, None]
        if weights is not None:
            voxelwise = voxelwise * weights[target.classes][:, None]
    else:
        each = F.binary_cross_entropy_with_logits(logits, target.regions, reduction="none")
        if weights is not None:
            each = each * torch.where(target.regions > 0, weights[1:].view(1, -1, *[1] * (logits.ndim - 2)), weights[0])
        voxelwise = each.mean(1, keepdim=True)
    return _mean(voxelwise, target.valid)


def weighted_cross_entropy(logits: Tensor, target: Target) -> Tensor:
    """Cross entropy with the weight ``(1 - N_k / N) / (K - 1)`` on the voxels of class k, divided by N.

    Roth et al., Computerized Medical Imaging and Graphics 66 (2018), equations 3 and 4. ``N_k`` of the N valid voxels of the batch have
    class k, so the K weights sum to one: rare classes weigh more, and a class that fills the batch weighs nothing. Outside a candidate
    region voxels carry the ignore label, hence N is the size of the region. Where organs overlap, every channel is a problem of two
    classes of its own, and the mean over channels is taken.

    Args:
        logits: ``(B, K, *spatial)``.
    """
    if target.regions is None:
        weights = class_weights(_shares(target.channels(logits.shape[1]), target.valid))
        voxelwise = F.cross_entropy(logits, target.classes, reduction="none") * weights[target.classes]
        return _mean(voxelwise[:, None], target.valid)
    share = _shares(target.regions, target.valid).view(1, -1, *[1] * (logits.ndim - 2))
    # Of two classes, K = 2, each weighs as much as the other is large.
    weights = torch.where(target.regions > 0, 1 - share, share)
    voxelwise = F.binary_cross_entropy_with_logits(logits, target.regions, reduction="none") * weights
    return _mean(voxelwise.mean(1, keepdim=True), target.valid)


def class_weights(shares: Tensor) -> Tensor:
    """``(1 - share) / (K - 1)`` of the ``(K,)`` shares of the classes; they sum to one if the shares do."""
    return (1 - shares) / (len(shares) - 1)


def _shares(truth: Tensor, valid: Tensor | None) -> Tensor:
    """Share of the valid voxels of the batch in each channel of ``(B, K, *spatial)`` 0/1; all of them 0 where no voxel is valid."""
    axes = (0, *range(2, truth.ndim))
    if valid is None:
        return truth.sum(axes) / max(1, truth[:, 0].numel())
    return (truth * valid).sum(axes) / valid.sum().clamp(min=1)


def _mean(voxelwise: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of ``(B, 1, *spatial)`` over the valid voxels; 0 where there is none."""
    if valid is None:
        return voxelwise.mean()
    return (voxelwise * valid).sum() / valid.sum().clamp(min=1)
