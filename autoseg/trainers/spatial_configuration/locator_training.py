"""Training of the small network that locates the organs in whole, coarse volumes: one volume a step."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...inference.localisation import build_locator, locator_of
from ...preprocessing.storage import open_arrays
from ...runtime.hardware import autocast, autocast_dtype, memory_format
from ...schema import Configuration
from ...schema.run_record import RunRecord
from ...schema.training_options import AugmentationOptions
from ..augmentation.augment import apply, draw
from ..case_sampling import CaseDraw, case_draw
from ..gradient_clipping import GradientClip
from ..losses import build_loss
from ..optimized_network import OptimizedNetwork, on_device
from ..optimizers import build_optimizer
from .coarse_cases import FOREGROUND

LOCALISATION = 2
"""Stream of random numbers, beside `TRAINING` and `VALIDATION` of patches."""


MOST_TRANSLATION = 0.1
"""Share of the volume's shortest axis that a translation reaches at the most: small volumes have their organs near the border."""


def locator_augmentation(options: AugmentationOptions, configuration: Configuration, *, translation: float) -> AugmentationOptions:
    """The augmentation of whole volumes on the locator's grid: deformations as large, in mm, as those of the patches, and a translation.

    Other than patches, whole volumes would always show the organs in the same place.

    Args:
        options: Of the patches.
        translation: Largest along each axis, mm; 0 for none.
    """
    locator = locator_of(configuration)
    fine, coarse = (math.prod(spacing) ** (1 / len(spacing)) for spacing in (configuration.spacing, locator.spacing))
    voxels = min(translation / coarse, MOST_TRANSLATION * min(locator.shape))
    return replace(
        options.on_grid(fine / coarse), translation_probability=float(voxels > 0), translation_voxels=voxels, translation_share=0.0
    )


class LocatorTraining:
    """The locator that is trained, and the whole volumes that it learns from.

    Args:
        loss: Name in `LOSSES`, of two classes.
        translation: Of the volumes: the largest along each axis, mm.

    Raises:
        ValueError: The configuration has no locator.
    """

    def __init__(self, job: RunRecord, device: torch.device, *, loss: str, translation: float) -> None:
        if job.configuration.locator is None:
            raise ValueError(f"{job.configuration.name}: expected a configuration with a locator, got none")
        self.job, self.device, self.shape = job, device, job.configuration.locator.shape
        self.network = on_device(build_locator(job.configuration, len(job.plan.channels)), device, job.configuration.dim)
        clip = GradientClip(job.options.gradient_clip, job.options.relative_clip)
        optimizer = build_optimizer(self.network.parameters(), job.options)
        # No scaler: see `step`.
        self.optimized = OptimizedNetwork(self.network, optimizer, clip=clip, average_decay=job.options.average_decay)
        self.criterion = build_loss(loss, FOREGROUND, batch_dice=False)
        self.loss = torch.zeros((), device=device)
        self._augmentation = locator_augmentation(job.options.augmentation, job.configuration, translation=translation)
        self.steps = 0
        self.cases: dict[str, Path] = {}
        self._draw_case: CaseDraw

    def learn_from(self, folder: Path, names: Sequence[str]) -> None:
        """Takes those of the cases that have a coarse volume in `folder`; they are drawn as the options draw the cases of patches."""
        self.cases = {name: path for name in names if (path := folder / f"{name}.npz").is_file()}
        one_a_step = replace(self.job, configuration=replace(self.job.configuration, batch_size=1))
        self._draw_case = case_draw(self.cases, one_a_step, training=True)

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
        # Turns are counted in steps of the locator, of which most iterations have none.
        with open_arrays(self.cases[self._draw_case(rng, self.steps, 0)]) as case:
            image, labels = (torch.from_numpy(case[key]).to(self.device) for key in ("image", "labels"))
        augmentation = draw(
            rng,
            self._augmentation,
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
        progress = {"loss": self.loss.cpu(), "steps": torch.tensor(self.steps), "clip": self.optimized.clip.average}
        return self.optimized.states("locator") | {"locator_progress": progress}

    def load(self, states: Mapping[str, Any]) -> None:
        """Takes over what `states` gave."""
        self.optimized.load(states, "locator")
        self.loss = states["locator_progress"]["loss"].to(self.device)
        self.steps = int(states["locator_progress"]["steps"])
        self.optimized.clip.average = states["locator_progress"].get("clip")  # of which earlier versions knew nothing
