"""2.5D: a 2D network that sees the slices beside the one it segments, as further channels.

The order of the channels is said in `conventions`: all slices of the first channel, then all of the second.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def adjacent_slice_indices(z: int, slices: int, depth: int) -> list[int]:
    """Indices of the slices that a network sees with slice `z`, itself in the middle; beyond an end of the volume its last slice again.

    Args:
        z: Slice to segment, 0 up to below `depth`.
        slices: How many are seen, odd.
        depth: Slices of the volume.

    Raises:
        ValueError: `slices` is not odd and positive, or `z` lies outside the volume.
    """
    if slices < 1 or slices % 2 == 0:
        raise ValueError(f"slices: expected an odd number, got {slices}")
    if not 0 <= z < depth:
        raise ValueError(f"slice: expected 0 to {depth - 1}, got {z}")
    reach = slices // 2
    return [min(max(z + offset, 0), depth - 1) for offset in range(-reach, reach + 1)]


def repeat_per_slice(values: Iterable[T], slices: int) -> tuple[T, ...]:
    """What is said once a channel, said for each of its slices."""
    return tuple(value for value in values for _ in range(slices))
