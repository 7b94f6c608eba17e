"""Where a trained network can be cut: its last feature maps before the logits, and the 1x1 convolution that makes logits of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .sizes import crop_to, pad_to_multiple


class FeatureTap:
    """A network in evaluation mode as features and head: the head's convolution of the features gives the network's logits.

    Of a network with a method ``features`` and a 1x1 convolution ``head`` these are taken. Of any other one a look at a patch tells which
    1x1 convolution is the last: the one whose result, without what was padded, is the network's.

    Args:
        network: In evaluation mode.
        example: A batch ``(B, C, *spatial)`` as the network takes it.

    Attributes:
        weight: Of the head, ``(K, F)``.
        bias: Of the head, ``(K,)``.

    Raises:
        ValueError: The logits are no 1x1 convolution of anything, as where several maps are fused.
    """

    def __init__(self, network: nn.Module, example: Tensor) -> None:
        self.network = network
        head = getattr(network, "head", None)
        self._direct = callable(getattr(network, "features", None)) and is_pointwise(head)
        self.head = head if self._direct else _last_convolution(network, example)
        self.weight = self.head.weight.detach().flatten(1)
        self.bias = torch.zeros(len(self.weight), device=self.weight.device) if self.head.bias is None else self.head.bias.detach()

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """``(B, C, *spatial)`` to the maps before the logits, ``(B, F, *spatial)``."""
        if self._direct:
            return self.network.features(x)
        seen: list[Tensor] = []
        # Networks that take only some sizes say which; padded like this by the others themselves.
        padded = pad_to_multiple(x, getattr(self.network, "divisors", (1,) * (x.dim() - 2)))
        handle = self.head.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
        try:
            self.network(padded)
        finally:
            handle.remove()
        return crop_to(seen[-1], x.shape[2:])


def is_pointwise(module: object) -> bool:
    """Whether this is a convolution with kernel 1 and stride 1 over all channels."""
    convolution = isinstance(module, (nn.Conv2d, nn.Conv3d))
    return convolution and math.prod(module.kernel_size) == math.prod(module.stride) == module.groups == 1 and not any(module.padding)


@torch.no_grad()
def _last_convolution(network: nn.Module, example: Tensor) -> nn.Module:
    calls: list[tuple[nn.Module, Tensor]] = []
    with _recorded(network, calls):
        logits = network(example)
    for module, result in reversed(calls):
        if result.shape[:2] == logits.shape[:2] and _holds(result, logits):
            return module
    raise ValueError(
        f"{type(network).__name__}: its logits are no 1x1 convolution of its last feature maps, which cannot be fused with others"
    )


@contextmanager
def _recorded(network: nn.Module, calls: list[tuple[nn.Module, Tensor]]) -> Iterator[None]:
    pointwise = [module for module in network.modules() if is_pointwise(module)]
    hooks = [module.register_forward_hook(lambda module, given, result: calls.append((module, result))) for module in pointwise]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _holds(result: Tensor, logits: Tensor) -> bool:
    large_enough = all(have >= want for have, want in zip(result.shape[2:], logits.shape[2:], strict=True))
    return large_enough and torch.equal(crop_to(result, logits.shape[2:]), logits)
