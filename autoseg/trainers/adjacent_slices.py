"""Training patches of 2.5D configurations: the slices beside the one that is segmented are read, and augmented, with it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ..preprocessing.adjacent_slices import for_each_slice, neighbours
from ..schema import Box
from ..schema.conventions import OUTSIDE
from .augmentation.augment import Augmentation
from .patch_sampling import read_patch

if TYPE_CHECKING:
    from ..preprocessing.storage import StoredCase

PER_CHANNEL = ("blur", "brightness", "contrast", "low_resolution", "inverted_gamma", "gamma")


def read_slices(stored: StoredCase, box: Box, slices: int) -> tuple[np.ndarray, np.ndarray]:
    """A 2D patch of the image with the slices beside it, and their labels.

    Args:
        stored: The case.
        box: One slice thick, inside the volume along that axis.
        slices: How many are seen, odd.

    Returns:
        Image ``(C * slices, *size)`` float32 in the order of `conventions`, and labels ``(slices, *size)`` int16.
    """
    wanted = neighbours(box[0][0], slices, stored.image.shape[1])
    first, last = wanted[0], wanted[-1]
    image, labels = read_patch(stored, ((first, last + 1), *box[1:]), 3)
    kept = [z - first for z in wanted]
    return image[:, kept].reshape(-1, *image.shape[2:]), labels[kept]


def repeated(augmentation: Augmentation, slices: int) -> Augmentation:
    """The augmentation with what was drawn for a channel for each of its slices; only the noise is every slice's own."""
    return replace(augmentation, **{name: for_each_slice(getattr(augmentation, name), slices) for name in PER_CHANNEL})


def outside_maps(labels: np.ndarray) -> list[np.ndarray]:
    """Label maps ``(*size)``, one a slice, that say nothing but where the image has no data."""
    return list(np.where(labels < 0, OUTSIDE, 0).astype(np.int16))


def without_last(maps: Tensor, count: int) -> Tensor:
    """Label maps ``(S, *patch)`` without the last ones; ``(*patch)`` where a single one is left."""
    kept = maps[: len(maps) - count]
    return kept[0] if len(kept) == 1 else kept
