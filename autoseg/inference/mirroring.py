"""Test-time augmentation: logits of several networks averaged over mirrored copies of a batch, left and right organs kept apart."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch

from ..runtime.hardware import autocast, memory_format
from ..schema import Configuration, Labels
from .plain_mean import Probabilities

Network = Callable[[torch.Tensor], torch.Tensor]
"""In evaluation mode: ``(B, C, *input)`` to logits ``(B, K, *patch)``; both have one size where the configuration has no `context`."""


def averaged_logits(
    networks: Sequence[Network],
    patches: torch.Tensor,
    configuration: Configuration,
    labels: Labels,
    *,
    mirror: bool,
    probable: Probabilities | None = None,
    most: int = 1,
) -> torch.Tensor:
    """Mean logits ``(B, K, *patch)`` float32 over networks and, with `mirror`, over all combinations of the configuration's valid flips.

    The patches ``(B, C, *input)`` are on the networks' device; organs change places when left and right do. With `probable` it is the
    probabilities that are averaged and given. A network gets up to `most` patches at once, several flips' where there is room for them.

    Raises:
        ValueError: A network's output has the wrong shape.
    """
    context = configuration.context or (0,) * (patches.ndim - 2)
    shape = (labels.n_outputs, *(size - 2 * more for size, more in zip(patches.shape[2:], context, strict=True)))
    total = torch.zeros((len(patches), *shape), device=patches.device)
    axes = configuration.mirroring.axes if mirror else ()
    flips = [flip for count in range(len(axes) + 1) for flip in itertools.combinations(axes, count)]
    together = max(1, most // len(patches))
    with autocast(patches.device):
        for first in range(0, len(flips), together):
            group = flips[first : first + together]
            copies = torch.cat([_mirrored(patches, flip, configuration, labels) for flip in group])
            copies = copies.contiguous(memory_format=memory_format(configuration.dim))
            for network in networks:
                outputs = network(copies)
                expected = (len(copies), *shape)
                if not isinstance(outputs, torch.Tensor) or outputs.shape != expected:
                    found = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else f"a {type(outputs).__name__}"
                    raise ValueError(f"network in evaluation mode: expected logits of shape {expected}, got {found}")
                for flip, output in zip(group, outputs.split(len(patches)), strict=True):
                    output = output.float().flip([axis + 2 for axis in flip])
                    output = output if probable is None else probable.of(output)
                    lateral = configuration.mirroring.lateral_axis in flip
                    total += output[:, _swapped_outputs(configuration, labels)] if lateral else output
    return total / (len(flips) * len(networks))


def _mirrored(patches: torch.Tensor, flip: tuple[int, ...], configuration: Configuration, labels: Labels) -> torch.Tensor:
    """The patches flipped along these axes; where left and right change places, so do the previous stage's label channels."""
    lateral = configuration.mirroring.lateral_axis in flip
    inputs = patches[:, _swapped_inputs(configuration, labels, patches.shape[1])] if lateral else patches
    return inputs.flip([axis + 2 for axis in flip])


def _swapped_outputs(configuration: Configuration, labels: Labels) -> list[int]:
    """Output channels with left and right organs exchanged: what looks like the left kidney in a mirror is the right one."""
    first = 0 if labels.regions else 1
    return _exchanged(labels.n_outputs, [(first + left, first + right) for left, right in configuration.mirroring.pairs])


def _swapped_inputs(configuration: Configuration, labels: Labels, channels: int) -> list[int]:
    """Input channels likewise: those at the end that hold the previous stage's labels, one per foreground value."""
    if not configuration.sees_previous:
        return list(range(channels))
    # Internal value 1 is the first of the label channels.
    first = channels - len(labels.base_values) - 1
    members = labels.internal_members
    return _exchanged(channels, [(first + members[left][0], first + members[right][0]) for left, right in configuration.mirroring.pairs])


def _exchanged(count: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    order = list(range(count))
    for left, right in pairs:
        order[left], order[right] = right, left
    return order
