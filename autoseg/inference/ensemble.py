"""One label map from several: each organ from the model that segments it best."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..model import Labels
from ..naming import unknown

Segmented = tuple[np.ndarray, np.ndarray]
"""Internal label map and confidence (uint8, 255 = certain), both of the file's shape."""


def merge_organs(maps: Mapping[str, Segmented], choice: Mapping[str, str], labels: Labels) -> tuple[np.ndarray, int]:
    """Takes each organ from the label map of its chosen candidate.

    Where two organs claim a voxel, the map that is more confident there wins; at equal confidence the organ that comes first in `labels`.
    What nobody claims is background. Regions are painted on top of each other in the order of `labels`, so they never conflict.

    Args:
        maps: Candidate to its internal label map ``(Z, Y, X)`` or ``(Y, X)`` and confidence (uint8, same shape).
        choice: Organ to the candidate in `maps` that segments it; every organ of `labels`.
        labels: The organs.

    Returns:
        Merged internal label map, int16, and the number of voxels that more than one organ claimed.

    Raises:
        ValueError: An organ has no candidate or is unknown, a candidate has no map, or the shapes differ.
    """
    _check(maps, choice, labels)
    sources = {choice[name] for name in labels.names}
    shape = next(iter(maps.values()))[0].shape
    if len(sources) == 1:
        return maps[sources.pop()][0].astype(np.int16, copy=False), 0
    merged = np.zeros(shape, np.int16)
    if labels.regions:
        for index, name in enumerate(labels.names):
            merged[np.isin(maps[choice[name]][0], labels.internal_members[index])] = internal_paint(labels)[index]
        return merged, 0
    best = np.zeros(shape, np.uint8)
    contested = np.zeros(shape, bool)
    for index, name in enumerate(labels.names):
        segmentation, confidence = maps[choice[name]]
        claimed = np.isin(segmentation, labels.internal_members[index])
        taken = claimed & (merged > 0)
        contested |= taken
        wins = claimed & (~taken | (confidence > best))
        merged[wins] = labels.internal_members[index][0]
        best[wins] = confidence[wins]
    return merged, int(np.count_nonzero(contested))


def internal_paint(labels: Labels) -> tuple[int, ...]:
    """Internal value that stands for each organ or region in a label map, in the order of `Labels.names`.

    Raises:
        ValueError: A region is painted with a value that belongs to no region, or the number of painted values is wrong.
    """
    if not labels.regions:
        return tuple(member[0] for member in labels.internal_members)
    if len(labels.paint) != len(labels.names):
        raise ValueError(f"regions_class_order: expected {len(labels.names)} values, one per region, got {list(labels.paint)}")
    index = {value: position + 1 for position, value in enumerate(labels.base_values)}
    for name, value in zip(labels.names, labels.paint, strict=True):
        if value not in index:
            raise ValueError(
                f"regions_class_order: expected one of the labels {list(labels.base_values)}, {name!r} is painted with {value}"
            )
    return tuple(index[value] for value in labels.paint)


def _check(maps: Mapping[str, Segmented], choice: Mapping[str, str], labels: Labels) -> None:
    for organ, candidate in choice.items():
        if organ not in labels.names:
            raise unknown("organ of the choice", organ, labels.names)
        if candidate not in maps:
            raise unknown(f"model chosen for {organ}", candidate, maps)
    missing = [name for name in labels.names if name not in choice]
    if missing or not maps:
        raise ValueError(f"choice: expected a model for every organ, none for {', '.join(missing) or 'any'}")
    expected = next(iter(maps.values()))[0].shape
    for name, (segmentation, confidence) in maps.items():
        if segmentation.shape != expected or confidence.shape != expected:
            found = f"{segmentation.shape}, its confidence {confidence.shape}"
            raise ValueError(f"label maps to merge: expected shape {expected} for all, {name} has {found}")
