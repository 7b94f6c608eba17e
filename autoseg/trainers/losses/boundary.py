"""The boundary loss: how far from the organ's border is what was segmented wrongly."""

from __future__ import annotations

import torch
from torch import Tensor

from .targets import Target

FAR = 1e8
"""Squared distance, in voxels, to a border that is not there."""


def boundary_loss(probabilities: Tensor, target: Target, *, skip_background: bool) -> Tensor:
    """Mean over voxels and channels of ``phi (p - truth)``, phi being the signed distance to the organ's border in voxels.

    Kervadec et al., MIDL 2019 (Medical Image Analysis 67, 2021): half the distance between the two borders, as an integral over the voxels
    between them. The paper drops the term of the truth alone, which is constant; it is kept here, so that the loss is 0 where all is right
    and positive elsewhere. Distances are to the faces between voxels (the authors' code takes the centres of the outermost voxels inside);
    of an organ that is absent, or fills the patch, they are 0.

    Args:
        probabilities: ``(B, K, *spatial)``.
        skip_background: Leave channel 0 out.
    """
    first = 1 if skip_background else 0
    truth = target.channels(probabilities.shape[1])[:, first:]
    voxelwise = (signed_distance(truth) * (probabilities[:, first:] - truth)).mean(1, keepdim=True)
    if target.valid is None:
        return voxelwise.mean()
    return (voxelwise * target.valid).sum() / target.valid.sum().clamp(min=1)


@torch.no_grad()
def signed_distance(mask: Tensor) -> Tensor:
    """Euclidean distance in voxels from the voxels' centres to the nearest face of a mask ``(B, K, *spatial)`` 0/1, negative inside.

    Where a mask is empty or full there is no border, and it is 0.
    """
    inside = mask > 0
    axes = tuple(range(2, mask.ndim))
    both = torch.stack([torch.where(inside, 0.0, FAR), torch.where(inside, FAR, 0.0)])
    for axis in range(3, both.ndim):
        both = _nearest_along(both, axis)
    outer, inner = both.sqrt() - 0.5
    count = inside.sum(axes, keepdim=True)
    has_border = (count > 0) & (count < inside[0, 0].numel())
    return torch.where(inside, -inner, outer) * has_border


def _nearest_along(squares: Tensor, axis: int) -> Tensor:
    """The smallest ``squares + (distance along an axis)^2`` over the lines of that axis: one pass of an exact distance transform.

    Felzenszwalb and Huttenlocher (Theory of Computing 8, 2012) do it in linear time, line by line; here it is a shift at a time, all
    lines at once, which suits a GPU.
    """
    nearest = squares.clone()
    for shift in range(1, squares.shape[axis]):
        length = squares.shape[axis] - shift
        low, high = nearest.narrow(axis, 0, length), nearest.narrow(axis, shift, length)
        torch.minimum(low, squares.narrow(axis, shift, length) + shift**2, out=low)
        torch.minimum(high, squares.narrow(axis, 0, length) + shift**2, out=high)
    return nearest
