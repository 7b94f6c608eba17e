"""2.5D input: the adjacent slices of the segmented slice are further channels of a 2D network.

Order of the channels (`autoseg.schema.conventions`): all slices of the first channel, then all of the second.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def adjacent_slice_indices(z: int, slices: int, depth: int) -> list[int]:
    """Indices of an odd number of slices with slice `z` in the middle; the first and last are repeated beyond the volume of `depth` slices.

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
    """Repeats each channel's value for each of its slices."""
    return tuple(value for value in values for _ in range(slices))
