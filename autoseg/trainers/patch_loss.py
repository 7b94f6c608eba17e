"""The validation loss while a network trains: on patches of held-out cases that are drawn as those of training, to compare the two."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn

from ..runtime.hardware import autocast
from .batches import Batch
from .losses.target_adaptive import Annotated


def patch_loss(
    network: nn.Module, batches: Iterable[Batch], loss: Callable[[Tensor, Tensor, Annotated], Tensor], device: torch.device
) -> float:
    """Mean loss of a network in evaluation mode over all batches."""
    losses: list[float] = []
    with torch.inference_mode():
        for batch in batches:
            with autocast(device):
                logits = network(batch.image)
            losses.append(float(loss(logits, batch.segmentation, batch.annotated)))
    return float(np.mean(losses))
