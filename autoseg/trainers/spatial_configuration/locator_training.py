"""Training of the small network that locates the organs in whole, coarse volumes: one volume a step."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...inference.localisation import build_locator
from ...runtime.checkpoints import load_matching
from ...runtime.hardware import autocast, half_type, memory_format
from ...schema.run_record import RunRecord
from ..augmentation.augment import apply, draw
from ..losses import build_loss
from ..optimizers import build_optimizer
from .coarse_cases import FOREGROUND

log = logging.getLogger(__name__)

LOCALISATION = 2
"""Stream of random numbers; those of patches are 0 and 1."""


class LocatorTraining:
    """The locator's network with its optimiser, and the average of its weights where the options ask for one.

    Args:
        job: Of the run, whose configuration has a locator.
        device: Where to compute.
        loss: Name in `LOSSES`, of two classes.
    """

    def __init__(self, job: RunRecord, device: torch.device, *, loss: str) -> None:
        self.job, self.device = job, device
        self.network = build_locator(job.configuration, len(job.plan.channels))
        self.network = self.network.to(device, memory_format=memory_format(job.configuration.dim))
        self.average = copy.deepcopy(self.network).requires_grad_(False) if job.options.average_decay else None
        self.optimizer = build_optimizer(self.network.parameters(), job.options)
        self.criterion = build_loss(loss, FOREGROUND, batch_dice=False)
        self.loss = torch.zeros((), device=device)
        self.steps = 0
        self.cases: list[Path] = []

    @property
    def final_network(self) -> nn.Module:
        """The network that predicts."""
        return self.network if self.average is None else self.average

    def step(self, number: int, learning_rate: float) -> None:
        """Learns from one whole volume; `loss` is that step's until the next one.

        Args:
            number: Of the iteration: it decides on the volume and its augmentation.
            learning_rate: Of this step.
        """
        image, labels = self._sample(number)
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        # Without a scaler float16 would lose small gradients.
        with contextlib.nullcontext() if half_type(self.device) == torch.float16 else autocast(self.device):
            logits = self.network(image)
        loss = self.criterion(logits, labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.job.options.gradient_clip)
        self.loss = loss.detach()
        if torch.isfinite(norm):
            self.optimizer.step()
            self._update_average()

    def _update_average(self) -> None:
        self.steps += 1
        if self.average is None:
            return
        decay = min(self.job.options.average_decay, self.steps / (9 + self.steps))
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(now, 1 - decay)

    def _sample(self, number: int) -> tuple[Tensor, Tensor]:
        """Image ``(1, C, z, y, x)`` and labels ``(1, z, y, x)``; random numbers of the largest size where no case is at hand (a trial)."""
        job, layout = self.job, memory_format(self.job.configuration.dim)
        if not self.cases:
            shape = job.configuration.locator.shape
            image = torch.randn((1, len(job.plan.channels), *shape), device=self.device)
            return image.to(memory_format=layout), torch.zeros((1, *shape), dtype=torch.int16, device=self.device)
        rng = np.random.default_rng([job.seed, LOCALISATION, number])
        with np.load(self.cases[int(rng.integers(len(self.cases)))], allow_pickle=False) as case:
            image, labels = (torch.from_numpy(case[what]).to(self.device) for what in ("image", "labels"))
        mirroring = job.configuration.mirroring
        options = {"channels": len(image), "mirroring": mirroring, "labels": job.plan.labels}
        augmentation = draw(rng, job.options.augmentation, patch_size=tuple(labels.shape), **options)
        # All organs are one here: what a flip exchanges is none of its business.
        augmentation = replace(augmentation, relabel=())
        image, labels = apply(augmentation, image, labels, masked=job.configuration.mask_normalization)
        return image[None].to(memory_format=layout), labels[None]

    # Going on where a run stopped

    def states(self) -> dict[str, Any]:
        """All that is needed to go on."""
        states = {"locator": self.network.state_dict(), "locator_optimizer": self.optimizer.state_dict()}
        if self.average is not None:
            states["locator_average"] = self.average.state_dict()
        return states | {"locator_progress": {"loss": self.loss.cpu(), "steps": torch.tensor(self.steps)}}

    def load(self, states: Mapping[str, Any]) -> None:
        """Takes over what `states` gave."""
        self.network.load_state_dict(states["locator"])
        self.optimizer.load_state_dict(states["locator_optimizer"])
        if self.average is not None:
            self.average.load_state_dict(states["locator_average"])
        self.loss = states["locator_progress"]["loss"].to(self.device)
        self.steps = int(states["locator_progress"]["steps"])

    def load_pretrained(self, weights: Mapping[str, Tensor]) -> None:
        """Starts from the weights of another locator that fit."""
        loaded, missing = load_matching(self.network, weights)
        if self.average is not None:
            self.average.load_state_dict(self.network.state_dict())
        log.info("Pretrained weights of the locator: %d tensors loaded; freshly initialised: %s", len(loaded), ", ".join(missing) or "none")
