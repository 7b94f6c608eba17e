"""Optimisers by name; parameters come from `TrainingOptions`."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from ..naming import lookup
from .job import TrainingOptions


def sgd(parameters: Iterable[torch.nn.Parameter], options: TrainingOptions) -> torch.optim.Optimizer:
    """Stochastic gradient descent with Nesterov momentum: the reference's choice for long schedules."""
    return torch.optim.SGD(
        parameters, options.learning_rate, momentum=options.momentum, weight_decay=options.weight_decay, nesterov=options.momentum > 0
    )


def adamw(parameters: Iterable[torch.nn.Parameter], options: TrainingOptions) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019): learns faster when only some thousand steps are affordable."""
    return torch.optim.AdamW(parameters, options.learning_rate, weight_decay=options.weight_decay)


OPTIMIZERS = {"sgd": sgd, "adamw": adamw}


def build_optimizer(parameters: Iterable[torch.nn.Parameter], options: TrainingOptions) -> torch.optim.Optimizer:
    """The optimiser that `options.optimizer` names."""
    return lookup(OPTIMIZERS, options.optimizer, "optimizer")(parameters, options)
