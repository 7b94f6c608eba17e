"""Counts parameters, operations and convolution outputs of a network, without computing or allocating any of it."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from . import build_network
from .feature_taps import recorded_outputs

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class NetworkCost:
    """Size of a network, and its cost for one patch.

    Attributes:
        parameters: Trainable parameters.
        flops: Floating point operations of a forward pass in evaluation: those of convolutions and matrix products, two for each
            multiply-add.
        elements: Values in the output feature maps of all convolutions, transposed ones included, in a forward pass in training: nnU-Net's
            proxy for the memory of a training step, see `planners.memory.conv_elements`.
    """

    parameters: int
    flops: int
    elements: int


def measure(network: str | nn.Module, dim: int, in_channels: int, out_channels: int, patch: Sequence[int], **options: Any) -> NetworkCost:
    """Measures a network on torch's meta device, where tensors have shapes but no values.

    Args:
        network: Name in `NETWORKS`, ``module:name``, or a network, which is left unchanged.
        **options: Of a network that is given by name.

    Raises:
        ValueError: The network cannot be built or refuses the patch, options are given for a network that is built already, or the patch
            has not `dim` axes of at least one voxel.
    """
    if len(patch) != dim or min(patch) < 1:
        raise ValueError(f"measure: expected a patch of {dim} sizes of at least one voxel, got {tuple(patch)}")
    if isinstance(network, nn.Module):
        if options:
            raise ValueError(f"measure: expected no options for a network that is built already, got {sorted(options)}")
        skeleton = _on_meta_device(network)
    else:
        with torch.device("meta"):
            skeleton = build_network(network, dim=dim, in_channels=in_channels, out_channels=out_channels, **options)
    x = torch.empty(1, in_channels, *patch, device="meta")
    convolutions = [module for module in skeleton.modules() if isinstance(module, CONVOLUTIONS)]
    with torch.no_grad(), recorded_outputs(convolutions) as calls:
        skeleton.train()(x)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        skeleton.eval()(x)
    elements = sum(output.numel() for _, output in calls)
    return NetworkCost(sum(p.numel() for p in skeleton.parameters()), counter.get_total_flops(), elements)


def held_bytes(network: nn.Module, inputs: Sequence[int]) -> int:
    """Most bytes of tensors, the input and the output among them, that a forward pass in evaluation holds at once; without parameters.

    The network is left unchanged, and nothing is computed. What the library takes for a convolution beside its input and output is not
    known here.

    Args:
        network: On any device.
        inputs: Shape of its input ``(B, C, *input)``.
    """
    skeleton = _on_meta_device(network).eval()
    with torch.no_grad(), _HeldTensors() as held:
        skeleton(torch.empty(tuple(inputs), device="meta"))
    return held.most


class _HeldTensors(TorchDispatchMode):
    """Adds up the tensors that are made within the block, and takes off those that are let go."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        for one in tree_leaves(results):
            if isinstance(one, torch.Tensor) and (storage := one.untyped_storage()) not in self.known:
                self.known.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._let_go, storage.nbytes())
        self.most = max(self.most, self.now)
        return results

    def _let_go(self, count: int) -> None:
        self.now -= count


def _on_meta_device(network: nn.Module) -> nn.Module:
    """A copy of the network on the meta device; values are never copied."""
    memo: dict[int, Any] = {}
    for tensor in chain(network.parameters(), network.buffers()):
        shape = torch.empty_like(tensor, device="meta")
        memo[id(tensor)] = nn.Parameter(shape, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else shape
    return copy.deepcopy(network, memo)
