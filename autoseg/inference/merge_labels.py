"""Merges label maps: each organ from its chosen candidate, voxels that several organs claim by confidence."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import numpy as np

from ..runtime.registry import unknown_name_error
from ..schema import Labels

Confidence = Callable[[str, np.ndarray], np.ndarray]
"""Organ and voxels ``(3, N)`` or ``(2, N)`` to the organ's probability there by its chosen models, ``(N,)``."""

Candidate = TypeVar("Candidate", bound=Hashable)
"""Name of a model, or names of the members of an average."""


def merge_organs(
    maps: Mapping[Candidate, np.ndarray], choice: Mapping[str, Candidate], labels: Labels, confidence: Confidence
) -> tuple[np.ndarray, int]:
    """Takes each organ from the label map of its chosen candidate.

    Where organs claim the same voxel, the most probable one wins; of equal ones the organ that comes first in `labels`.
    What nobody claims is background. Regions are painted on top of each other in the order of `labels`, so they never conflict.

    Args:
        maps: Candidate to its internal label map ``(Z, Y, X)`` or ``(Y, X)``.
        choice: Organ to the candidate that segments it; every organ of `labels`.
        labels: Of the dataset.
        confidence: Called only for voxels that several organs claim.

    Returns:
        Merged internal label map, int16, and the number of voxels that more than one organ claimed.

    Raises:
        ValueError: An organ has no candidate or is unknown, a candidate has no map, or the shapes differ.
    """
    _check(maps, choice, labels)
    sources = {choice[name] for name in labels.names}
    if len(sources) == 1:
        return maps[sources.pop()].astype(np.int16, copy=False), 0
    merged = np.zeros(next(iter(maps.values())).shape, np.int16)
    values = dict(zip(labels.names, internal_regions_class_order(labels), strict=True))
    if labels.regions:
        for (name, value), members in zip(values.items(), labels.internal_members, strict=True):
            merged[np.isin(maps[choice[name]], members)] = value
        return merged, 0
    contested = np.zeros(merged.shape, bool)
    for name, value in values.items():
        claimed = maps[choice[name]] == value
        contested |= claimed & (merged > 0)
        merged[claimed] = value
    voxels = np.stack(np.nonzero(contested))
    best = np.full(voxels.shape[1], -1, np.float32)
    for name, value in values.items() if len(best) else ():
        claiming = np.flatnonzero(maps[choice[name]][tuple(voxels)] == value)
        probability = confidence(name, voxels[:, claiming])
        better = probability > best[claiming]
        best[claiming[better]] = probability[better]
        merged[tuple(voxels[:, claiming[better]])] = value
    return merged, len(best)


def internal_regions_class_order(labels: Labels) -> tuple[int, ...]:
    """Internal value that stands for each organ or region in a label map, in the order of `Labels.names`.

    Raises:
        ValueError: A region is painted with a value that belongs to no region, or the number of painted values is wrong.
    """
    if not labels.regions:
        return tuple(member[0] for member in labels.internal_members)
    if len(labels.regions_class_order) != len(labels.names):
        order = list(labels.regions_class_order)
        raise ValueError(f"regions_class_order: expected {len(labels.names)} values, one per region, got {order}")
    index = {value: position + 1 for position, value in enumerate(labels.base_values)}
    for name, value in zip(labels.names, labels.regions_class_order, strict=True):
        if value not in index:
            raise ValueError(f"regions_class_order: expected one of {list(labels.base_values)}, {name!r} is painted with {value}")
    return tuple(index[value] for value in labels.regions_class_order)


def _check(maps: Mapping[Candidate, np.ndarray], choice: Mapping[str, Candidate], labels: Labels) -> None:
    for organ, candidate in choice.items():
        if organ not in labels.names:
            raise unknown_name_error("organ of the choice", organ, labels.names)
        if candidate not in maps:
            raise unknown_name_error(f"model chosen for {organ}", str(candidate), map(str, maps))
    missing = [name for name in labels.names if name not in choice]
    if missing or not maps:
        raise ValueError(f"choice: expected a model for every organ, none for {', '.join(missing) or 'any'}")
    expected = next(iter(maps.values())).shape
    for name, segmentation in maps.items():
        if segmentation.shape != expected:
            raise ValueError(f"label maps to merge: expected shape {expected} for all, {name} has {segmentation.shape}")
