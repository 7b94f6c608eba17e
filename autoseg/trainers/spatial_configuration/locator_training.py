"""Training of the small network that locates the organs in whole, coarse volumes: one volume a step."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...inference.localisation import build_locator
from ...preprocessing.storage import open_arrays
from ...runtime.hardware import autocast, autocast_dtype, memory_format
from ...schema.run_record import RunRecord
from ..augmentation.augment import apply, draw
from ..gradient_clipping import GradientClip
from ..losses import build_loss
from ..optimized_network import OptimizedNetwork, on_device
from ..optimizers import build_optimizer
from .coarse_cases import FOREGROUND

LOCALISATION = 2
"""Stream of random numbers, beside `TRAINING` and `VALIDATION` of patches."""


class LocatorTraining:
    """The locator that is trained, and the whole volumes that it learns from.

    Args:
        loss: Name in `LOSSES`, of two classes.

    Raises:
        ValueError: The configuration has no locator.
    """

    def __init__(self, job: RunRecord, device: torch.device, *, loss: str) -> None:
        if job.configuration.locator is None:
            raise ValueError(f"{job.configuration.name}: expected a configuration with a locator, got none")
        self.job, self.device, self.shape = job, device, job.configuration.locator.shape
        self.network = on_device(build_locator(job.configuration, len(job.plan.channels)), device, job.configuration.dim)
        clip = GradientClip(job.options.gradient_clip, 0.0)
        optimizer = build_optimizer(self.network.parameters(), job.options)
        # No scaler: see `step`.
        self.optimized = OptimizedNetwork(self.network, optimizer, clip=clip, average_decay=job.options.average_decay)
        self.criterion = build_loss(loss, FOREGROUND, batch_dice=False)
        self.loss = torch.zeros((), device=device)
        self.steps = 0
        self.cases: list[Path] = []

    def step(self, number: int, learning_rate: float) -> None:
        """Takes a step on one whole volume; `loss` is that step's until the next one.

        Args:
            number: Of the iteration: it decides on the volume and its augmentation.
        """
        image, labels = self._sample(number)
        self.network.train()
        self.optimized.learning_rate = learning_rate
        # Without a scaler float16 would lose small gradients.
        with contextlib.nullcontext() if autocast_dtype(self.device) == torch.float16 else autocast(self.device):
            logits = self.network(image)
        loss = self.criterion(logits, labels)
        self.loss = loss.detach()
        self.steps += self.optimized.descend(loss, self.steps)

    def _sample(self, number: int) -> tuple[Tensor, Tensor]:
        """Image ``(1, C, z, y, x)`` and labels ``(1, z, y, x)``; random numbers of the largest size where no case is at hand (a trial)."""
        job, layout = self.job, memory_format(self.job.configuration.dim)
        if not self.cases:
            image = torch.randn((1, len(job.plan.channels), *self.shape), device=self.device)
            return image.to(memory_format=layout), torch.zeros((1, *self.shape), dtype=torch.int16, device=self.device)
        rng = np.random.default_rng([job.seed, LOCALISATION, number])
        with open_arrays(self.cases[int(rng.integers(len(self.cases)))]) as case:
            image, labels = (torch.from_numpy(case[key]).to(self.device) for key in ("image", "labels"))
        augmentation = draw(
            rng,
            job.options.augmentation,
            patch_size=tuple(labels.shape),
            channels=len(image),
            mirroring=job.configuration.mirroring,
            labels=job.plan.labels,
        )
        # All organs are one here: a flip exchanges none.
        augmentation = replace(augmentation, relabel=())
        image, labels = apply(augmentation, image, labels, masked=job.configuration.mask_normalization)
        return image[None].to(memory_format=layout), labels[None]

    def states(self) -> dict[str, Any]:
        """All that is needed to go on."""
        progress = {"loss": self.loss.cpu(), "steps": torch.tensor(self.steps)}
        return self.optimized.states("locator") | {"locator_progress": progress}

    def load(self, states: Mapping[str, Any]) -> None:
        """Takes over what `states` gave."""
        self.optimized.load(states, "locator")
        self.loss = states["locator_progress"]["loss"].to(self.device)
        self.steps = int(states["locator_progress"]["steps"])
