"""Optimisers by name; parameters come from `TrainingOptions`."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from ..runtime.registry import lookup
from ..schema.training_options import TrainingOptions


def sgd(parameters: Iterable[torch.nn.Parameter], options: TrainingOptions) -> torch.optim.Optimizer:
    """Stochastic gradient descent with Nesterov momentum: the reference's choice for long schedules."""
    return torch.optim.SGD(
        parameters, options.learning_rate, momentum=options.momentum, weight_decay=options.weight_decay, nesterov=options.momentum > 0
    )


def adamw(parameters: Iterable[torch.nn.Parameter], options: TrainingOptions) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019): learns faster when only some thousand steps are affordable."""
    return torch.optim.AdamW(parameters, options.learning_rate, weight_decay=options.weight_decay)


def adam(parameters: Iterable[torch.nn.Parameter], options: TrainingOptions) -> torch.optim.Optimizer:
    """Adam (Kingma & Ba, ICLR 2015); `weight_decay` is an L2 penalty here."""
    return torch.optim.Adam(parameters, options.learning_rate, weight_decay=options.weight_decay)


def rmsprop(parameters: Iterable[torch.nn.Parameter], options: TrainingOptions) -> torch.optim.Optimizer:
    """Gradients over the root of their mean square (Tieleman & Hinton 2012), with heavy-ball momentum; `weight_decay` is an L2 penalty."""
    return torch.optim.RMSprop(parameters, options.learning_rate, momentum=options.momentum, weight_decay=options.weight_decay)


OPTIMIZERS = {"sgd": sgd, "adamw": adamw, "adam": adam, "rmsprop": rmsprop}

WITHOUT_MOMENTUM = ("adamw", "adam")
"""Optimisers that have no use for `TrainingOptions.momentum`."""


def build_optimizer(parameters: Iterable[torch.nn.Parameter], options: TrainingOptions) -> torch.optim.Optimizer:
    """The optimiser that `options.optimizer` names."""
    return lookup(OPTIMIZERS, options.optimizer, "optimizer")(parameters, options)
