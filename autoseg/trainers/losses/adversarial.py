"""Losses of generator and discriminator of a conditional adversarial network, from the discriminator's logits.

Conze et al., Artificial Intelligence in Medicine 117 (2021), after Isola et al., CVPR 2017. The discriminator's output is a map, one logit
for each patch of the image; all of them count alike. Computed in float32 from logits, so that a very confident discriminator still gives
a gradient.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ...schema import Labels
from .target_adaptive import Annotated, merge_unlabelled, merge_values
from .targets import make_target


def generator_loss(fake: Tensor) -> Tensor:
    """Mean of ``-log D(x, G(x))``: the non-saturating form, whose gradient is largest where the discriminator recognises the prediction."""
    return F.softplus(-fake.float()).mean()


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Binary cross entropy of real against generated: mean of ``-log D(x, y)`` plus mean of ``-log(1 - D(x, G(x)))``.

    Args:
        fake: Logits for what the generator made, detached from it.
    """
    return F.softplus(-real.float()).mean() + F.softplus(fake.float()).mean()


def discriminator_maps(logits: Tensor, segmentation: Tensor, annotated: Annotated, labels: Labels) -> tuple[Tensor, Tensor]:
    """Predicted and real maps for the discriminator, made equal wherever the truth is not known.

    Args:
        logits: ``(B, K, *spatial)``.
        segmentation: ``(B, *spatial)`` internal values.
        annotated: Of each sample; empty means every organ in all of them.

    Returns:
        Predicted probabilities and the real 0/1 maps, both ``(B, K, *spatial)`` float32.
    """
    if any(organs is not None for organs in annotated):
        segmentation = merge_values(segmentation, annotated, labels)
        logits = merge_unlabelled(logits, annotated, labels, segmentation)
    fake = logits.float().sigmoid() if labels.regions else logits.float().softmax(1)
    target = make_target(segmentation, labels)
    real = target.channels(labels.n_outputs)
    return (fake, real) if target.valid is None else (fake * target.valid, real * target.valid)
