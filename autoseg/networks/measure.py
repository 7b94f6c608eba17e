"""What a network costs: parameters, operations and memory of a forward pass, found without computing or allocating any of it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from . import build_network

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class NetworkCost:
    """The cost of one patch.

    Attributes:
        parameters: Numbers that are learned.
        flops: Floating point operations of a forward pass in evaluation: two for each multiplication and addition of a convolution or
            matrix product; all else is not counted.
        elements: Elements of the outputs of all convolutions, transposed ones included, of a forward pass in training: nnU-Net's proxy
            for the memory of a training step, see `planners.memory.conv_elements`.
    """

    parameters: int
    flops: int
    elements: int


def measure(network: str | nn.Module, dim: int, in_channels: int, out_channels: int, patch: Sequence[int], **options: Any) -> NetworkCost:
    """Counts on torch's meta device, which knows shapes and no numbers.

    Args:
        network: Name in `NETWORKS`, ``module:attribute``, or a network, which is left as it is.
        dim: Spatial axes.
        in_channels: Channels of the input.
        out_channels: Channels of the logits.
        patch: Voxels per axis.
        **options: Of the network, where it is given by name.

    Raises:
        ValueError: The network cannot be built or refuses the patch, options are given for a network that is built already, or the patch
            has not `dim` axes of at least one voxel.
    """
    if len(patch) != dim or min(patch) < 1:
        raise ValueError(f"measure: expected a patch of {dim} sizes of at least one voxel, got {tuple(patch)}")
    if isinstance(network, nn.Module):
        if options:
            raise ValueError(f"measure: expected no options for a network that is built already, got {sorted(options)}")
        skeleton = _without_numbers(network)
    else:
        with torch.device("meta"):
            skeleton = build_network(network, dim=dim, in_channels=in_channels, out_channels=out_channels, **options)
    x = torch.empty(1, in_channels, *patch, device="meta")
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), _counted(skeleton) as outputs:
        skeleton.train()(x)
        elements = sum(outputs)
        with counter:
            skeleton.eval()(x)
    return NetworkCost(sum(p.numel() for p in skeleton.parameters()), counter.get_total_flops(), elements)


def _without_numbers(network: nn.Module) -> nn.Module:
    """A copy of the network whose weights have shapes alone; the numbers are never copied."""
    known: dict[int, Any] = {}
    for tensor in chain(network.parameters(), network.buffers()):
        shape = torch.empty_like(tensor, device="meta")
        known[id(tensor)] = nn.Parameter(shape, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else shape
    return copy.deepcopy(network, known)


@contextmanager
def _counted(network: nn.Module) -> Iterator[list[int]]:
    """While it lasts, the list grows by the elements of each convolution's output."""
    sizes: list[int] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        sizes.append(output.numel())

    handles = [module.register_forward_hook(note) for module in network.modules() if isinstance(module, CONVOLUTIONS)]
    try:
        yield sizes
    finally:
        for handle in handles:
            handle.remove()
