"""Layer fusion: the last feature maps of several trained networks, side by side, under one 1x1 convolution.

Crespi et al., *Ensemble methods for multi-organ segmentation in CT series*, 2023.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .blocks import convolution
from .feature_taps import FeatureTap


@dataclass(frozen=True)
class Branch:
    """One network of a fusion.

    Attributes:
        tap: The network, cut before its head.
        inputs: First of its channels of the fusion's input, and the one after the last.
        organs: What its outputs are, by their place among the fusion's organs, background left out; None for one that the fusion lacks.
        background: Its first output is background's; False where each output is a region's.
    """

    tap: FeatureTap
    inputs: tuple[int, int]
    organs: tuple[int | None, ...]
    background: bool


class Fusion(nn.Module):
    """Frozen networks and one 1x1 convolution over their concatenated features, the only part that is learnt and saved.

    It begins as the average of the networks' own logits: each organ's row holds the rows of that organ in the heads (less background's,
    whose own row is 0, as only differences count), divided by how many networks know the organ.

    Args:
        branches: At least one.
        dim: Spatial axes.
        organs: How many there are.

    Raises:
        ValueError: An organ is known to none of the networks, or only some of them have an output for background.
    """

    def __init__(self, branches: Sequence[Branch], *, dim: int, organs: int) -> None:
        super().__init__()
        self.branches = tuple(branches)  # in a tuple, which torch does not look into: neither trained nor saved, always in evaluation mode
        if len({branch.background for branch in branches}) != 1:
            raise ValueError("fusion: expected networks of regions only, or of none, got both")
        self.first = int(branches[0].background)
        known = [sum(organ in branch.organs for branch in branches) for organ in range(organs)]
        if not all(known):
            raise ValueError(f"fusion: expected a network for each of {organs} organs, got {known}")
        widths = [branch.tap.weight.shape[1] for branch in branches]
        self.head = convolution(dim)(sum(widths), organs + self.first, 1)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.bias.zero_()
            start = 0
            for branch, width in zip(branches, widths, strict=True):
                self._begin_as(branch, slice(start, start + width), known)
                start += width

    def _begin_as(self, branch: Branch, columns: slice, known: Sequence[int]) -> None:
        weight, bias = branch.tap.weight.cpu(), branch.tap.bias.cpu()
        for output, organ in enumerate(branch.organs, start=self.first):
            if organ is not None:
                row, rest = (weight[output], bias[output]) if not self.first else (weight[output] - weight[0], bias[output] - bias[0])
                shape = (-1, *self.head.weight.shape[2:])
                self.head.weight[organ + self.first, columns] += rest.new_tensor(1 / known[organ]) * row.reshape(shape)
                self.head.bias[organ + self.first] += rest / known[organ]

    @property
    def key(self) -> str:
        """Tells the networks from others, by their heads: to the features of others the fusion's own head means nothing."""
        weights = [branch.tap.weight.cpu().contiguous().numpy().tobytes() for branch in self.branches]
        return hashlib.sha256(b"".join(weights)).hexdigest()[:12]

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *spatial)``, the inputs of all networks one after the other, to logits ``(B, K, *spatial)``."""
        return self.head(torch.cat([branch.tap.features(x[:, slice(*branch.inputs)]) for branch in self.branches], 1))
