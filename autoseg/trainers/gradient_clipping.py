"""Gradient clipping at a fixed norm, or at a multiple of the norm's moving average."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

MEMORY = 0.99
"""Share of the moving average that a step keeps."""


class GradientClip:
    """Clips the norm of a gradient at a fixed value and, if wanted, at a multiple of its moving average.

    The second limit follows Thaler et al. (FLARE challenge at MICCAI 2021), who clip at five times the average.

    Args:
        largest: Norm that is never exceeded.
        relative: Multiple of the moving average that is not exceeded; 0 switches this off.
    """

    def __init__(self, largest: float, relative: float) -> None:
        self.largest, self.relative = largest, relative
        self.average: float | None = None

    def __call__(self, parameters: Iterable[nn.Parameter]) -> Tensor:
        """Clips the gradients in place and returns their norm before; one that is zero or not finite does not enter the average."""
        if not self.relative:
            return nn.utils.clip_grad_norm_(parameters, self.largest)
        limit = self.largest if self.average is None else min(self.largest, self.relative * self.average)
        norm = nn.utils.clip_grad_norm_(parameters, limit)
        if torch.isfinite(norm) and norm > 0:  # an average of 0 would clip everything away for ever
            # A clipped step counts as what it was clipped to: one outlier must not raise the limit for the next.
            size = min(float(norm), limit)
            self.average = size if self.average is None else MEMORY * self.average + (1 - MEMORY) * size
        return norm
