"""Adversarial training: a discriminator learns to tell predicted from reference maps, the segmentation network to deceive it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..networks.discriminator import Discriminator
from ..runtime.hardware import autocast
from ..schema import Configuration, Plan
from ..schema.run_record import RunRecord
from .batches import Batch
from .gradient_clipping import GradientClip
from .losses.adversarial import discriminator_loss, discriminator_maps, generator_loss
from .optimized_network import OptimizedNetwork, on_device
from .optimizers import build_optimizer
from .run_options import RunFolders, checked_options
from .trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class AdversarialOptions:
    """Options of adversarial training.

    Attributes:
        weight: Of the segmentation loss against the adversarial one, the paper's lambda.
        discriminator_learning_rate: At the start; None means that of the segmentation network.
        discriminator_features: Channels after the discriminator's first convolution; they double up to eight times that.
        label_smoothing: The discriminator's target for real maps is one minus this.
    """

    weight: float = 150.0
    discriminator_learning_rate: float | None = None
    discriminator_features: int = 64
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not self.weight >= 0:
            raise ValueError(f"weight: expected 0 or more, got {self.weight}")
        if self.discriminator_learning_rate is not None and not self.discriminator_learning_rate > 0:
            raise ValueError(f"discriminator_learning_rate: expected a positive number, got {self.discriminator_learning_rate}")
        if type(self.discriminator_features) is not int or self.discriminator_features < 1:
            raise ValueError(f"discriminator_features: expected a whole number of at least 1, got {self.discriminator_features!r}")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"label_smoothing: expected 0 up to below 0.5, got {self.label_smoothing}")


class AdversarialTrainer(Trainer):
    """Conditional adversarial training of any network (Conze et al., Artificial Intelligence in Medicine 117, 2021).

    On every batch the segmentation network G takes a step on ``-log D(x, G(x)) + weight * segmentation loss``, then the discriminator D one
    on the cross entropy of real against predicted maps. The former sum is divided by ``1 + weight``: so the learning rate (of SGD; Adam's
    steps do not see a factor) and the clipping, which is that of the whole gradient, mean what they mean without an adversary.

    Where the truth is not known the maps do not differ: ignored voxels are zero in the real and in the predicted ones, and organs that
    were not annotated in a sample are part of its background in both (`merge_unlabelled`).

    A sample with pseudo-labels counts in the segmentation loss by its weights, and in the adversarial one, which needs no truth. The
    discriminator learns from the others alone, as pseudo-labels are no real maps (Hung et al., BMVC 2018): a batch without any of them
    moves the segmentation network only.
    """

    sees_surroundings = False  # the discriminator sees image and map of one size

    def __init__(self, job: RunRecord, folders: RunFolders, *, device: torch.device, progress: bool = True) -> None:
        super().__init__(job, folders, device=device, progress=progress)
        self.options = checked_options(AdversarialOptions, job.trainer_options)
        configuration = job.configuration
        self._first_map = int(configuration.sigmoid)  # of a network with one output, the organ's alone: background's is its complement
        discriminator = Discriminator(
            dim=configuration.dim,
            in_channels=job.plan.in_channels(configuration),
            n_maps=self.labels.n_outputs - self._first_map,
            features=self.options.discriminator_features,
            patch_size=configuration.patch_size,
        )
        rate = self.options.discriminator_learning_rate or job.options.learning_rate
        self.discriminator = on_device(discriminator, device, configuration.dim)
        self.optimized_discriminator = OptimizedNetwork(
            self.discriminator,
            build_optimizer(self.discriminator.parameters(), replace(job.options, learning_rate=rate)),
            clip=GradientClip(job.options.gradient_clip, 0.0),
            scaler=self.scaler,
        )
        self._rate_ratio = rate / job.options.learning_rate

    @classmethod
    def configure(cls, configuration: Configuration, plan: Plan, options: Mapping[str, Any]) -> Configuration:
        """The configuration as it is, once the options are checked."""
        checked_options(AdversarialOptions, options)
        return configuration

    def step(self, batch: Batch) -> dict[str, Tensor | None]:
        """Takes a step of the segmentation network, then one of the discriminator."""
        with autocast(self.device):
            outputs = self.network(batch.image)
        logits = outputs if isinstance(outputs, Tensor) else outputs[0]
        maps = discriminator_maps(logits, batch.segmentation, batch.annotated, self.labels)
        fake, real = (one[:, self._first_map :] for one in maps)
        segmentation = self.loss(outputs, batch.segmentation, batch.annotated, batch.weight)
        self.discriminator.requires_grad_(False)
        with autocast(self.device):
            adversarial = generator_loss(self.discriminator(batch.image, fake))
        self.descend((adversarial + self.options.weight * segmentation) / (1 + self.options.weight))
        self.discriminator.requires_grad_(True)
        pseudo = () if self.job.pseudo_labels is None else self.job.pseudo_labels.cases
        true = [sample for sample, case in enumerate(batch.cases) if case not in pseudo]
        of_discriminator: dict[str, Tensor | None] = dict.fromkeys(("discriminator_loss", "score_real", "score_fake"))
        if true:
            image, real, fake = (one if len(true) == len(one) else one[true] for one in (batch.image, real, fake.detach()))
            of_discriminator |= self._train_discriminator(image, real, fake)
        return {"train_loss": segmentation.detach(), "adversarial_loss": adversarial.detach(), **of_discriminator}

    def _train_discriminator(self, image: Tensor, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        with autocast(self.device):
            score_real, score_fake = self.discriminator(image, real), self.discriminator(image, fake)
        loss = discriminator_loss(score_real, score_fake)
        if self.options.label_smoothing:
            loss = loss + self.options.label_smoothing * score_real.float().mean()
        self.optimized_discriminator.learning_rate = self._rate_ratio * self.optimized.learning_rate
        self.optimized_discriminator.descend(loss)
        scores = {"score_real": score_real, "score_fake": score_fake}
        means = {name: score.detach().float().sigmoid().mean() for name, score in scores.items()}
        return {"discriminator_loss": loss.detach(), **means}

    def extra_states(self) -> dict[str, dict[str, Any]]:
        return self.optimized_discriminator.states("discriminator")

    def load_extra_states(self, states: Mapping[str, Any]) -> None:
        self.optimized_discriminator.load(states, "discriminator")
