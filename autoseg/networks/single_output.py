"""Networks with one output for one organ, whose sigmoid is the organ's probability, among networks with an output a class.

Background's logit is then the constant 0: the softmax of ``(0, z)`` is ``(1 - sigmoid(z), sigmoid(z))``. So losses, predictions and
ensembles treat the network like any other, and its weights are those of the network with one output.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def with_background(network: nn.Module) -> nn.Module:
    """Makes a network of one map ``(B, 1, *spatial)`` return ``(B, 2, *spatial)``, background's zeros first; its weights stay the same."""
    network.register_forward_hook(_beside_background)
    return network


def has_single_output(network: nn.Module) -> bool:
    """Whether `with_background` was applied to it."""
    return _beside_background in network._forward_hooks.values()


def _beside_background(module: nn.Module, arguments: Any, output: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    if isinstance(output, Tensor):
        return torch.cat((torch.zeros_like(output), output), dim=1)
    return tuple(torch.cat((torch.zeros_like(one), one), dim=1) for one in output)
