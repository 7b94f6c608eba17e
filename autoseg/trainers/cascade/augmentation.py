"""Augmentation of a cascade's previous stage: its organs are grown, shrunk, smoothed or partly lost, as mistakes to learn to repair."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from acvl_utils.morphology.morphology_helper import label_with_component_sizes
from scipy.ndimage import distance_transform_edt
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class PreviousStageOptions:
    """Probabilities and ranges of the augmentation. Probabilities are per patch unless stated otherwise.

    Attributes:
        operator_probability: Of dilating, eroding, opening or closing organs.
        operator_organ_probability: Per organ, where that was drawn.
        radius_range: Of the ball, voxels.
        drop_probability: Of losing connected components.
        drop_organ_probability: Per organ, where that was drawn.
        largest_drop: Components above this share of the patch are never lost.
    """

    operator_probability: float = 0.4
    operator_organ_probability: float = 0.5
    radius_range: tuple[float, float] = (1.0, 8.0)
    drop_probability: float = 0.2
    drop_organ_probability: float = 0.5
    largest_drop: float = 0.15


def augment_previous(rng: np.random.Generator, onehot: Tensor, options: PreviousStageOptions | None = None) -> Tensor:
    """Augments the segmentation of a previous stage.

    Args:
        onehot: ``(K, *patch)``, one 0/1 channel an organ. Not changed.
        options: Probabilities and ranges; nnU-Net's by default.

    Returns:
        As `onehot`. Voxels that an organ gains are taken from the others.
    """
    options = options or PreviousStageOptions()
    operates = rng.random() < options.operator_probability
    drops = rng.random() < options.drop_probability
    if not operates and not drops:
        return onehot
    masks = onehot.cpu().numpy() > 0
    if operates:
        for organ in _drawn_organs(rng, len(masks), options.operator_organ_probability):
            operator = OPERATORS[int(rng.integers(len(OPERATORS)))]
            changed = operator(masks[organ], float(rng.uniform(*options.radius_range)))
            masks[:, changed & ~masks[organ]] = False
            masks[organ] = changed
    if drops:
        for organ in _drawn_organs(rng, len(masks), options.drop_organ_probability):
            _drop_component(rng, masks[organ], options.largest_drop)
    return torch.from_numpy(masks).to(onehot.device, onehot.dtype)


def _drawn_organs(rng: np.random.Generator, n: int, probability: float) -> list[int]:
    """Each of n organs with `probability`, in random order: the last one changed wins a contested voxel."""
    return [int(i) for i in rng.permutation(n) if rng.random() < probability]


def _drop_component(rng: np.random.Generator, mask: np.ndarray, largest: float) -> None:
    """Clears one connected component (in place), if there is one that is not too large."""
    components, sizes = label_with_component_sizes(mask)
    droppable = [number for number, size in sizes.items() if size < largest * mask.size]
    if droppable:
        mask[components == droppable[int(rng.integers(len(droppable)))]] = False


def dilate(mask: np.ndarray, radius: float) -> np.ndarray:
    """All voxels within `radius` (voxels, Euclidean) of the mask."""
    return _near(mask, radius) if mask.any() and not mask.all() else mask.copy()


def erode(mask: np.ndarray, radius: float) -> np.ndarray:
    """The mask without all voxels within `radius` of what is not mask; the patch's border does not erode."""
    return ~dilate(~mask, radius)


def opened(mask: np.ndarray, radius: float) -> np.ndarray:
    """Eroded, then dilated: thin parts are lost."""
    return dilate(erode(mask, radius), radius)


def closed(mask: np.ndarray, radius: float) -> np.ndarray:
    """Dilated, then eroded: gaps are filled."""
    return erode(dilate(mask, radius), radius)


OPERATORS: tuple[Callable[[np.ndarray, float], np.ndarray], ...] = (dilate, erode, closed, opened)


def _near(mask: np.ndarray, radius: float) -> np.ndarray:
    """Distance to the mask at most `radius`, computed only in the box where the answer can be other than the mask's own."""
    margin = math.ceil(radius)
    minority = mask if mask.mean() < 0.5 else ~mask
    occupied = [np.flatnonzero(minority.any(axis=tuple(other for other in range(mask.ndim) if other != axis))) for axis in range(mask.ndim)]
    box = tuple(slice(max(0, line[0] - margin), line[-1] + 1 + margin) for line in occupied)
    result = mask.copy()
    result[box] = distance_transform_edt(~mask[box]) <= radius
    return result
