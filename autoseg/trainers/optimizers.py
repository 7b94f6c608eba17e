"""Optimisers by name; parameters come from `TrainingOptions`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from ..runtime.registry import lookup
from ..schema.training_options import TrainingOptions


def _fused(parameters: Sequence[nn.Parameter]) -> bool | None:
    """Whether the formula is computed in one pass over memory: on a processor, where that is 2.5 to 4 times as fast."""
    return True if parameters and all(one.device.type == "cpu" and one.is_floating_point() for one in parameters) else None


def sgd(parameters: Iterable[nn.Parameter], options: TrainingOptions) -> torch.optim.Optimizer:
    """Stochastic gradient descent with Nesterov momentum: the reference's choice for long schedules."""
    momentum, every = options.momentum, list(parameters)
    optimizer = torch.optim.SGD(
        every, options.learning_rate, momentum=momentum, weight_decay=options.weight_decay, nesterov=momentum > 0, fused=_fused(every)
    )
    if momentum and _fused(every):
        # torch cannot do with some that are there and some that are not, as where a part of the network learns in some steps only.
        optimizer.state.update((one, {"momentum_buffer": torch.zeros_like(one)}) for one in every)
    return optimizer


def adamw(parameters: Iterable[nn.Parameter], options: TrainingOptions) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019): learns faster when only some thousand steps are affordable."""
    every = list(parameters)
    return torch.optim.AdamW(every, options.learning_rate, weight_decay=options.weight_decay, fused=_fused(every))


def adam(parameters: Iterable[nn.Parameter], options: TrainingOptions) -> torch.optim.Optimizer:
    """Adam (Kingma & Ba, ICLR 2015); `weight_decay` is an L2 penalty here."""
    every = list(parameters)
    return torch.optim.Adam(every, options.learning_rate, weight_decay=options.weight_decay, fused=_fused(every))


def rmsprop(parameters: Iterable[nn.Parameter], options: TrainingOptions) -> torch.optim.Optimizer:
    """Gradients over the root of their mean square (Tieleman & Hinton 2012), with heavy-ball momentum; `weight_decay` is an L2 penalty."""
    return torch.optim.RMSprop(parameters, options.learning_rate, momentum=options.momentum, weight_decay=options.weight_decay)


OPTIMIZERS = {"sgd": sgd, "adamw": adamw, "adam": adam, "rmsprop": rmsprop}

WITHOUT_MOMENTUM = ("adamw", "adam")
"""Optimisers that have no use for `TrainingOptions.momentum`."""


def build_optimizer(parameters: Iterable[nn.Parameter], options: TrainingOptions) -> torch.optim.Optimizer:
    """The optimiser that `options.optimizer` names."""
    return lookup(OPTIMIZERS, options.optimizer, "optimizer")(parameters, options)
