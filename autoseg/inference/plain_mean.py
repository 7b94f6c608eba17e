"""Plain means of probabilities: of tiles, mirrored copies and folds (Roth et al., Comput. Med. Imaging Graph. 66, 2018, equation 5)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..schema import Labels

SMALLEST = 1e-10
"""Lower bound of a mean probability whose logarithm is taken."""


@dataclass(frozen=True)
class Probabilities:
    """Logits to probabilities and back: a softmax over the channels, or a sigmoid for each where organs overlap (`regions`)."""

    regions: bool

    def of(self, logits: torch.Tensor) -> torch.Tensor:
        """Probabilities of logits ``(B, K, *patch)``, float32."""
        return logits.float().sigmoid() if self.regions else logits.float().softmax(1)

    def logits(self, mean: torch.Tensor) -> torch.Tensor:
        """Logits ``(K, *spatial)`` that have the probabilities `mean`; NaN stays NaN."""
        mean = mean.clamp(min=SMALLEST)
        return mean.logit(eps=SMALLEST) if self.regions else mean.log()


def probabilities_of(labels: Labels) -> Probabilities:
    """Those of a network's outputs for these labels."""
    return Probabilities(labels.regions)


def mean_of_folds(mean: torch.Tensor, logits: torch.Tensor, fold: int, probable: Probabilities) -> torch.Tensor:
    """The logits of the mean probability after another fold: of `fold` folds `mean`, and of the next one `logits`; both one volume.

    ``(K, *spatial)``, of which the channels' probabilities add up to one where organs exclude each other.
    """
    first, second = (probable.of(one[None])[0] for one in (mean, logits))
    return probable.logits(torch.lerp(first, second, 1 / (fold + 1)))
