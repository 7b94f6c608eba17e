"""Cross entropies, as pure functions of logits in float32; ignored voxels count nowhere."""

from __future__ import annotations

import math

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
    each = _entropies(logits, target)
    if weights is not None:
        inside = weights[1:].view(1, -1, *[1] * (logits.ndim - 2))
        regions = target.regions
        each = each * (weights[target.classes][:, None] if regions is None else torch.where(regions > 0, inside, weights[0]))
    return _mean(each if target.regions is None else each.mean(1, keepdim=True), target.valid)


def top_k_cross_entropy(logits: Tensor, target: Target, *, share: float = 0.1) -> Tensor:
    """Mean cross entropy of the worst voxels of the batch: this share of those that count, at least one.

    Wu, Shen and van den Hengel, arXiv:1605.06885, who call it online bootstrapping. What is easy, as most of the background, adds nothing,
    so that a lesion of a few voxels is not outvoted. Where organs overlap each channel of a voxel is an entry of its own. With voxel
    weights the worst are those of the largest weighted cross entropy, as many as have this share of the sum of weights.

    Args:
        logits: ``(B, K, *spatial)``.
    """
    entropies = _entropies(logits, target)
    flat = entropies.flatten()
    if target.valid is None:
        return flat.topk(math.ceil(share * len(flat)), sorted=False).values.mean()
    weight = target.valid.expand_as(entropies).flatten()
    order = (flat * weight).argsort(descending=True)
    worst, counts = flat[order], weight[order]
    before = counts.cumsum(0) - counts
    counts = counts * (before < share * weight.sum())
    return (worst * counts).sum() / counts.sum().clamp(min=1e-6)


def focal_loss(logits: Tensor, target: Target, *, gamma: float = 2.0) -> Tensor:
    """Mean of ``(1 - p)^gamma`` times the cross entropy ``-log p``, p being the probability of what is right.

    Lin, Goyal, Girshick, He and Dollar, ICCV 2017 (equation 4, gamma 2), without the weights of classes: voxels that the network is sure
    of count less and less. Binary and averaged over channels where organs overlap.

    Args:
        logits: ``(B, K, *spatial)``.
    """
    entropies = _entropies(logits, target)
    return _mean(((1 - (-entropies).exp()) ** gamma * entropies).mean(1, keepdim=True), target.valid)


def _entropies(logits: Tensor, target: Target) -> Tensor:
    """Cross entropy of each voxel ``(B, 1, *spatial)``, or of each of its channels ``(B, K, *spatial)`` where organs overlap."""
    if target.regions is None:
        return F.cross_entropy(logits, target.classes, reduction="none")[:, None]
    return F.binary_cross_entropy_with_logits(logits, target.regions, reduction="none")


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
