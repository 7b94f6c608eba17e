"""Deep supervision: one loss over outputs of several resolutions, with weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[..., Tensor]
"""``loss(logits, segmentation)``, and where voxels have weights ``loss(logits, segmentation, weight=weight)``."""


class DeepSupervision:
    """A loss applied to outputs of several resolutions, finest first, with weights 1, 1/2, 1/4 ... of which the last is dropped.

    The label map is brought to each output's size by nearest neighbour. A single tensor is passed straight to `loss`.

    Args:
        drop_last: False counts the coarsest output too, for networks that predict with it.
    """

    def __init__(self, loss: Loss, *, drop_last: bool = True) -> None:
        self.loss, self.drop_last = loss, drop_last

    def __call__(self, outputs: Tensor | Sequence[Tensor], segmentation: Tensor, weight: Tensor | None = None) -> Tensor:
        """Weighted sum over `outputs`, weights normalised to one; `weight` of the voxels follows the label map."""
        if isinstance(outputs, Tensor):
            return at_scale(self.loss, outputs, segmentation, weight)
        weights = [0.5**i for i in range(len(outputs))]
        if self.drop_last and len(weights) > 1:
            weights[-1] = 0.0
        total = sum(weights)
        terms = [
            share / total * at_scale(self.loss, output, segmentation, weight)
            for share, output in zip(weights, outputs, strict=True)
            if share
        ]
        return sum(terms[1:], terms[0])


class PyramidSupervision:
    """Deep pyramid supervision (Fang & Yan, IEEE TMI 39, 2020): the mean of a loss over all output scales, each counted alike.

    The paper pools the label map to every scale and takes cross entropy (the loss ``ce``). Pooling is by nearest neighbour here: the
    maximum of label values, which suits a single organ, would let the organ with the larger number win, and swell it at every scale; so
    all keep their share of voxels. A single tensor (the fused score map) is passed straight to `loss`.
    """

    def __init__(self, loss: Loss) -> None:
        self.loss = loss

    def __call__(self, outputs: Tensor | Sequence[Tensor], segmentation: Tensor, weight: Tensor | None = None) -> Tensor:
        """Mean over `outputs`; `weight` of the voxels follows the label map."""
        if isinstance(outputs, Tensor):
            return at_scale(self.loss, outputs, segmentation, weight)
        return torch.stack([at_scale(self.loss, output, segmentation, weight) for output in outputs]).mean()


SUPERVISIONS = {"deep": DeepSupervision, "pyramid": PyramidSupervision}
"""Name to factory ``(loss) -> loss over one or several outputs``."""


def at_scale(loss: Loss, output: Tensor, segmentation: Tensor, weight: Tensor | None) -> Tensor:
    """A loss of one output against label map and voxel weights ``(B, *spatial)`` of this or a finer resolution."""
    segmentation = resize_labels(segmentation, output.shape[2:])
    if weight is None:
        return loss(output, segmentation)
    return loss(output, segmentation, weight=resize_labels(weight, output.shape[2:]))


def resize_labels(segmentation: Tensor, size: torch.Size) -> Tensor:
    """A label map ``(B, *spatial)`` at the size of a coarser output, by nearest neighbour."""
    if segmentation.shape[1:] == size:
        return segmentation
    return F.interpolate(segmentation[:, None].float(), size=size, mode="nearest-exact")[:, 0].to(segmentation.dtype)
