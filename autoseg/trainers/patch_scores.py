"""Quick scores of a network on patches while it trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn

from ..runtime.hardware import autocast
from ..schema import Labels
from .batches import Batch
from .losses import make_target
from .losses.target_adaptive import Annotated, unknown_organs


def score_patches(
    network: nn.Module, batches: Iterable[Batch], loss: Callable[[Tensor, Tensor, Annotated], Tensor], labels: Labels, device: torch.device
) -> dict[str, float]:
    """Loss and Dice of a network in evaluation mode over all batches, as `PatchScores.result`."""
    scores = PatchScores(labels)
    with torch.inference_mode():
        for batch in batches:
            with autocast(device):
                logits = network(batch.image)
            value = loss(logits, batch.segmentation, batch.annotated)
            scores.add(logits.float(), batch.segmentation, value, annotated=batch.annotated)
    return scores.result()


class PatchScores:
    """Dice of each organ over all patches taken together ("pseudo Dice"): cheap, and only good to compare validation intervals."""

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self._overlap = torch.zeros(len(labels.names), dtype=torch.float64)
        self._total = torch.zeros_like(self._overlap)
        self._losses: list[float] = []

    def add(self, logits: Tensor, segmentation: Tensor, loss: Tensor, *, annotated: Annotated = ()) -> None:
        """Counts a batch: ``(B, K, *spatial)`` logits, ``(B, *spatial)`` internal values.

        An organ that was not annotated in a sample counts there neither as true nor as false positive; empty means all were.
        """
        target = make_target(segmentation, self.labels)
        if target.regions is not None:
            predicted, truth = logits > 0, target.regions.bool()
        else:
            classes = torch.arange(1, logits.shape[1], device=logits.device).view(1, -1, *[1] * (logits.ndim - 2))
            predicted, truth = logits.argmax(1, keepdim=True) == classes, target.classes[:, None] == classes
        if target.valid is not None:
            predicted, truth = predicted & target.valid.bool(), truth & target.valid.bool()
        for sample, organs in enumerate(annotated):
            unknown = unknown_organs(organs, self.labels)
            predicted[sample, unknown], truth[sample, unknown] = False, False
        axes = (0, *range(2, logits.ndim))
        self._overlap = self._overlap + (predicted & truth).sum(axes).cpu().double()
        self._total = self._total + (predicted.sum(axes) + truth.sum(axes)).cpu().double()
        self._losses.append(float(loss))

    def result(self) -> dict[str, float]:
        """``validation_loss``, ``mean_dice`` and ``dice_<organ>`` (NaN where an organ was in no patch)."""
        dice = torch.where(self._total > 0, 2 * self._overlap / self._total, torch.nan)
        present = dice[~dice.isnan()]
        row = {"validation_loss": float(np.mean(self._losses)), "mean_dice": float(present.mean()) if len(present) else float("nan")}
        return {**row, **{f"dice_{organ}": float(value) for organ, value in zip(self.labels.names, dice, strict=True)}}
