"""Training patches of 2.5D configurations: the slices beside the one that is segmented are read, and augmented, with it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..preprocessing.adjacent_slices import adjacent_slice_indices, repeat_per_slice
from ..schema import Box
from .augmentation.augment import Augmentation
from .patch_sampling import read_patch

if TYPE_CHECKING:
    from ..preprocessing.storage import StoredCase


def read_slices(stored: StoredCase, box: Box, slices: int) -> tuple[np.ndarray, np.ndarray]:
    """A 2D patch of the image with the slices beside it, and their labels; `box` is one slice thick, and inside the volume along that axis.

    Returns:
        Image ``(C * slices, *size)`` float32 in the order of `conventions`, and labels ``(slices, *size)`` int16.
    """
    wanted = adjacent_slice_indices(box[0][0], slices, stored.image.shape[1])
    first, last = wanted[0], wanted[-1]
    image, labels = read_patch(stored, ((first, last + 1), *box[1:]), 3)
    places = [z - first for z in wanted]
    return image[:, places].reshape(-1, *image.shape[2:]), labels[places]


def repeated(augmentation: Augmentation, slices: int) -> Augmentation:
    """The augmentation with what was drawn for a channel for each of its slices; only the noise differs between them."""
    names = ("blur", "offset", "brightness", "contrast", "low_resolution", "inverted_gamma", "gamma")
    repeated_values: dict[str, Any] = {name: repeat_per_slice(getattr(augmentation, name), slices) for name in names}
    return replace(augmentation, **repeated_values)
