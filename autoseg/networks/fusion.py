"""Feature fusion: one 1x1 convolution over the concatenated last feature maps of several trained networks.

Crespi et al., *Ensemble methods for multi-organ segmentation in CT series*, 2023 (there: layer fusion).
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
        tap: The network, as features and head.
        inputs: First of its channels of the fusion's input, and the one after the last.
        organs: For each of its outputs but background the index of the organ among the fusion's; None for one that the fusion lacks.
        background: Its first output is background; False where each output is a region.
    """

    tap: FeatureTap
    inputs: tuple[int, int]
    organs: tuple[int | None, ...]
    background: bool


class Fusion(nn.Module):
    """Networks and one 1x1 convolution over their concatenated features, which is trained and saved.

    With `last`, which holds for each network layers of it (`FeatureTap.last_layers`), these are trained on and saved too, as in the paper.
    All else stays as it is: other weights, and running statistics everywhere.

    It is initialised as the average of the networks' logits: the row of each organ holds the rows of that organ in the heads (minus that of
    background, whose row here is 0, as only differences count), divided by the number of networks with that organ.

    Raises:
        ValueError: No network has a certain organ, or only some of them have an output for background.
    """

    def __init__(self, branches: Sequence[Branch], *, dim: int, organs: int, last: Sequence[Sequence[nn.Module]] = ()) -> None:
        super().__init__()
        if last:
            self.last = nn.ModuleList(nn.ModuleList(layers) for layers in last).requires_grad_(True)
        self.branches = tuple(branches)  # in a tuple, which torch does not look into: neither trained nor saved, always in evaluation mode
        if len({branch.background for branch in branches}) != 1:
            raise ValueError("fusion: expected networks of regions only, or of none, got both")
        self.first = int(branches[0].background)
        counts = [sum(organ in branch.organs for branch in branches) for organ in range(organs)]
        if not all(counts):
            raise ValueError(f"fusion: expected a network for each of {organs} organs, got {counts}")
        widths = [branch.tap.weight.shape[1] for branch in branches]
        self.head = convolution(dim)(sum(widths), organs + self.first, 1)
        with torch.no_grad():
            for parameter in self.head.parameters():
                parameter.zero_()
            start = 0
            for branch, width in zip(branches, widths, strict=True):
                self._add_head(branch, slice(start, start + width), counts)
                start += width

    def _add_head(self, branch: Branch, columns: slice, counts: Sequence[int]) -> None:
        """Adds a branch's share of the average to the initial weights."""
        weight, bias = branch.tap.weight.cpu(), branch.tap.bias.cpu()
        own_weight, own_bias = self.head.weight, self.head.get_parameter("bias")
        for output, organ in enumerate(branch.organs, start=self.first):
            if organ is not None:
                row, rest = (weight[output], bias[output]) if not self.first else (weight[output] - weight[0], bias[output] - bias[0])
                own_weight[organ + self.first, columns] += rest.new_tensor(1 / counts[organ]) * row.reshape(-1, *own_weight.shape[2:])
                own_bias[organ + self.first] += rest / counts[organ]

    def train(self, mode: bool = True) -> Fusion:
        """As `nn.Module.train`, for the head alone: the networks' layers stay in evaluation mode."""
        super().train(mode)
        if hasattr(self, "last"):
            self.last.eval()
        return self

    @property
    def key(self) -> str:
        """Digest of the networks' heads: the fusion's head is of use with the features of these networks only."""
        weights = [branch.tap.weight.cpu().contiguous().numpy().tobytes() for branch in self.branches]
        return hashlib.sha256(b"".join(weights)).hexdigest()[:12]

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *spatial)``, the inputs of all networks concatenated, to logits ``(B, K, *spatial)``."""
        return self.head(torch.cat([branch.tap.features(x[:, slice(*branch.inputs)]) for branch in self.branches], 1))
