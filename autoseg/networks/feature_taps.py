"""Splits a trained network into its last feature maps and its head, the 1x1 convolution that turns them into logits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeGuard, TypeVar

import torch
from torch import Tensor, nn

from .blocks import Convolution
from .single_output import has_single_output
from .sizes import crop_to, pad_to_multiple

M = TypeVar("M", bound=nn.Module)

LAST_CONVOLUTIONS = 2
"""Convolutions with a kernel larger than 1 that count as a network's last layers: those of a block."""


class FeatureTap:
    """A network in evaluation mode as features and head: the head's convolution of the features gives the network's logits.

    A network with a method ``features`` and a 1x1 convolution ``head`` names them itself. In any other, the head is found by a forward
    pass of an example: it is the last 1x1 convolution whose output, without padding, equals the network's.

    Args:
        example: A batch ``(B, C, *spatial)`` that the network accepts.

    Attributes:
        weight: Of the head, ``(K, F)``; background's row is 0 where the network has a single output.
        bias: Of the head, ``(K,)``.

    Raises:
        ValueError: The logits are not the output of a 1x1 convolution, as where several maps are fused.
    """

    def __init__(self, network: nn.Module, example: Tensor) -> None:
        self.network = network.requires_grad_(False)
        head, features = getattr(network, "head", None), getattr(network, "features", None)
        self._features: Callable[[Tensor], Tensor] | None = features if callable(features) and is_pointwise(head) else None
        self.head = head if self._features is not None and is_pointwise(head) else _last_convolution(network, example)
        weight = self.head.weight.detach().flatten(1)
        bias = torch.zeros(len(weight), device=weight.device) if self.head.bias is None else self.head.bias.detach()
        if has_single_output(network):
            weight, bias = (torch.cat((torch.zeros_like(one[:1]), one)) for one in (weight, bias))
        self.weight, self.bias = weight, bias

    def last_layers(self, example: Tensor) -> list[nn.Module]:
        """The layers between the last upsampling (or pyramid of dilated convolutions) and the head, in the order of their computation.

        They have two convolutions with a kernel larger than 1 at most.
        """
        leaves = [module for module in self.network.modules() if _is_layer(module)]
        with torch.no_grad(), recorded_outputs(leaves) as calls:
            self.network(example)
        before = calls[: next(index for index, (module, _) in reversed([*enumerate(calls)]) if module is self.head)]
        found: list[nn.Module] = []
        size: tuple[int, ...] | None = None
        for module, output in reversed(before):
            extent = tuple(output.shape[2:])
            is_pooled = math.prod(extent) == 1  # as within squeeze and excitation
            size = size if is_pooled or size is not None else extent
            if _ends_last_layers(module) or (not is_pooled and extent != size):
                break
            if sum(_is_larger(one) for one in found) == LAST_CONVOLUTIONS:
                break
            found.insert(0, module)
        first = next((index for index, module in enumerate(found) if isinstance(module, (nn.Conv2d, nn.Conv3d))), len(found))
        return found[first:]  # a normalisation before it belongs to another part

    def features(self, x: Tensor) -> Tensor:
        """``(B, C, *spatial)`` to the last feature maps before the logits, ``(B, F, *spatial)``; gradients reach what requires them."""
        if self._features is not None:
            return self._features(x)
        inputs: list[Tensor] = []
        # A network that accepts certain sizes only says so by `divisors`; all others pad by themselves.
        padded = pad_to_multiple(x, getattr(self.network, "divisors", (1,) * (x.dim() - 2)))
        handle = self.head.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
        try:
            self.network(padded)
        finally:
            handle.remove()
        return crop_to(inputs[-1], x.shape[2:])


def _is_layer(module: nn.Module) -> bool:
    """Whether a module has parameters of its own, and no modules in it."""
    return not any(module.children()) and any(True for _ in module.parameters(recurse=False))


def _is_larger(module: nn.Module) -> bool:
    return isinstance(module, (nn.Conv2d, nn.Conv3d)) and math.prod(module.kernel_size) > 1


def _ends_last_layers(module: nn.Module) -> bool:
    """Whether what comes before a layer is another part of a network: one that upsamples, or a pyramid of dilated convolutions."""
    if isinstance(module, (nn.ConvTranspose2d, nn.ConvTranspose3d)):
        return True
    return isinstance(module, (nn.Conv2d, nn.Conv3d)) and _is_larger(module) and max(map(int, module.dilation)) > 1


def is_pointwise(module: object) -> TypeGuard[Convolution]:
    """Whether this is a convolution with kernel 1 and stride 1 over all channels."""
    if not isinstance(module, (nn.Conv2d, nn.Conv3d)):
        return False
    return math.prod(module.kernel_size) == math.prod(module.stride) == module.groups == 1 and not any(module.padding)


@torch.no_grad()
def _last_convolution(network: nn.Module, example: Tensor) -> Convolution:
    with recorded_outputs([module for module in network.modules() if is_pointwise(module)]) as calls:
        logits = network(example)[:, int(has_single_output(network)) :]
    size = logits.shape[2:]
    for module, output in reversed(calls):
        large_enough = all(have >= want for have, want in zip(output.shape[2:], size, strict=True))
        if output.shape[:2] == logits.shape[:2] and large_enough and torch.equal(crop_to(output, size), logits):
            return module
    raise ValueError(
        f"{type(network).__name__}: its logits are no 1x1 convolution of its last feature maps, which cannot be fused with others"
    )


@contextmanager
def recorded_outputs(modules: Sequence[M]) -> Iterator[list[tuple[M, Tensor]]]:
    """While it lasts, the list receives each of these modules that is computed, and its output."""
    calls: list[tuple[M, Tensor]] = []
    hooks = [module.register_forward_hook(lambda module, args, output: calls.append((module, output))) for module in modules]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()
