"""Predictions kept for later averaging: probabilities in eight bits, a quarter of the size of float32 logits, and far better compressible."""

from __future__ import annotations

import numpy as np
import torch

from ..model import Labels

SLAB = 2**22
"""Values converted at once."""


def quantise(logits: torch.Tensor | np.ndarray, labels: Labels) -> np.ndarray:
    """Softmax (regions: sigmoid) times 255, rounded.

    Args:
        logits: ``(K, Z, Y, X)``.
        labels: Say whether organs overlap.

    Returns:
        ``(K, Z, Y, X)`` uint8; half a unit is the largest error, one part in 510.
    """
    values = torch.as_tensor(logits)
    result = np.empty(tuple(values.shape), np.uint8)
    rows = max(1, SLAB // max(1, values[:, 0].numel()))
    for start in range(0, values.shape[1], rows):
        slab = values[:, start : start + rows].float()
        shares = slab.sigmoid() if labels.regions else slab.softmax(0)
        result[:, start : start + rows] = (shares * 255).round().to(torch.uint8).numpy()
    return result
