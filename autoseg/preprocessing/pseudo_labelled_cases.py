"""Preprocessed images without label maps, and the pseudo-labels that models made for them, with a weight for each voxel.

The images are stored once; pseudo-labels of each set of models in a folder of their own, on the same grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..runtime.workspace import Workspace
from ..schema import Configuration, Trace
from .cropping import slices_of
from .orientation import reorient
from .resampling import resample_image
from .storage import LABELS, LOCATIONS, Store, StoredCase, StoredRecord, write_array, write_arrays

if TYPE_CHECKING:
    import blosc2

WEIGHTS = ".weights.b2nd"

FULL = 255
"""Stored weight of a voxel that counts fully."""

UNLABELLED, PSEUDO_LABELS = "unlabelled", "pseudo_labels"
"""Folders of a preprocessed dataset."""


class PseudoLabelledCase(StoredCase):
    """A case whose image lies in the folder `images`, and its pseudo-labels in another."""

    def __init__(self, folder: Path, name: str, *, images: Path, organs: Sequence[int] | None = None) -> None:
        super().__init__(folder, name, organs)
        self._images = images

    @cached_property
    def image(self) -> blosc2.NDArray:
        """``(C, Z, Y, X)`` float32; a ValueError where it is not on the grid of the trace."""
        stored = Store(self._images).load(self.name)
        if stored.trace.shape != self.trace.shape:
            raise ValueError(
                f"{self._images}: {self.name}: expected the grid {self.trace.shape} of its pseudo-labels, found {stored.trace.shape}"
            )
        return stored.image

    @cached_property
    def weights(self) -> blosc2.NDArray:
        """``(Z, Y, X)`` uint8: how much each voxel counts, 0 to `FULL`."""
        return self._on_grid(WEIGHTS, axes=3)


def unlabelled_folder(workspace: Workspace, dataset: str, configuration: Configuration) -> Path:
    """Where the preprocessed images without label maps of a configuration's data lie."""
    return workspace.preprocessed(dataset) / UNLABELLED / configuration.data


def pseudo_label_folder(workspace: Workspace, dataset: str, configuration: Configuration, models: str) -> Path:
    """Where the pseudo-labels lie that the models with this identity made for them."""
    return workspace.preprocessed(dataset) / PSEUDO_LABELS / models[:16] / configuration.data


def write_pseudo_labels(
    folder: Path, labels: np.ndarray, weights: np.ndarray, record: StoredRecord, locations: Mapping[str, np.ndarray]
) -> None:
    """Stores the pseudo-labels of the case of a record; former ones are replaced, and while that happens there are none.

    Args:
        labels: ``(Z, Y, X)`` int16 internal values.
        weights: ``(Z, Y, X)`` float, 0 to 1.
        locations: `class_locations` of the labels.
    """
    store, name = Store(folder), record.trace.case
    store.remove(name)
    write_array(folder / (name + LABELS), labels)
    write_array(folder / (name + WEIGHTS), np.rint(np.clip(weights, 0, 1) * FULL).astype(np.uint8))
    write_arrays(folder / (name + LOCATIONS), locations)
    store.write_record(name, record)


def is_stored(folder: Path, name: str) -> bool:
    """Whether all files of a case's pseudo-labels are there."""
    return Store(folder).has(name) and all((folder / (name + ending)).is_file() for ending in (LABELS, WEIGHTS, LOCATIONS))


def to_grid(volume: np.ndarray, trace: Trace) -> np.ndarray:
    """A map of real numbers on a file's voxels, ``(Z, Y, X)`` or ``(Y, X)``, on the grid of the case's trace, interpolated linearly."""
    cropped = reorient(volume[None], trace.transpose, trace.flips)[(slice(None), *slices_of(trace.crop))]
    spacing = tuple(trace.geometry.spacing[axis] for axis in trace.transpose)
    return resample_image(cropped, trace.shape, spacing=spacing, new_spacing=trace.spacing, order=1)[0]
