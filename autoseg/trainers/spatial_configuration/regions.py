"""Training samples of a SpatialConfiguration-Net: the whole region around the organs of a case, as one input.

Thaler et al., FLARE challenge at MICCAI 2021: the box around every labelled voxel of the reference, grown on each side; with larger voxels
where it exceeds the largest input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...data.label_subsets import translate_labels
from ...inference.localisation import fitted_shape, least_region, locator_of, region_around
from ...preprocessing.cropping import bounding_box
from ...preprocessing.storage import StoredCase
from ...schema import Box
from ...schema.run_record import RunRecord
from ..augmentation.augment import Augmentation, size_for
from ..augmentation.deformation import ORDER, ControlGrid
from ..batches import BatchMaker
from ..patch_sampling import Sample, moved, segmentation_of


@dataclass(frozen=True)
class Region:
    """The region of one case.

    Attributes:
        box: In the preprocessed volume, half open.
        shape: Voxels as the network sees it.
    """

    box: Box
    shape: tuple[int, ...]

    @property
    def zoom(self) -> tuple[float, ...]:
        """Voxels of the volume that one of the input covers, per axis."""
        return tuple((stop - start) / n for (start, stop), n in zip(self.box, self.shape, strict=True))


def reference_region(stored: StoredCase, job: RunRecord) -> Region:
    """The region around the organs that are annotated in a case; the whole volume where there are none."""
    configuration, labels = job.configuration, job.plan.labels
    internal = translate_labels(np.asarray(segmentation_of(stored)[:]), job.plan.stored_labels, labels)
    organs = (internal > 0) & (internal <= len(labels.base_values))
    around = bounding_box(organs)
    box: Box = tuple((0, n) for n in organs.shape)
    if around is not None:
        box = region_around(around, organs.shape, locator_of(configuration).margin, least_region(configuration))
    return Region(box, fitted_shape([stop - start for start, stop in box], configuration.patch_size))


class RegionBatches(BatchMaker):
    """As `BatchMaker`; each sample is the whole region of a case, augmented, whose surroundings are those of the image."""

    regions: dict[str, Region]

    def prepared(self) -> RegionBatches:
        """Finds the region of every case, once."""
        self.regions = {name: reference_region(case, self.job) for name, case in self.cases.items()}
        return self

    def place(self, rng: np.random.Generator, draw_case: Callable[[], str], *, foreground: bool) -> tuple[Augmentation, Sample]:
        """Draws a case and what is done to its region."""
        name = draw_case()
        region = self.regions[name]
        voxel = math.prod(region.zoom) ** (1 / len(region.zoom))
        augmentation = zoomed(self.augmentation(rng, region.shape, voxel=voxel), region.zoom)
        box = []
        for (start, stop), size in zip(region.box, size_for(augmentation), strict=True):
            size += (size - (stop - start)) % 2  # the centres of what is read and of the region must coincide
            first = start + (stop - start - size) // 2
            box.append((first, first + size))
        shift = [round(voxels * factor) for voxels, factor in zip(augmentation.translation, region.zoom, strict=False)]
        return replace(augmentation, translation=()), moved(Sample(name, tuple(box)), shift)

    def stack(self, tensors: Sequence[Tensor]) -> Tensor:
        """Regions of several sizes, the smaller ones with zeros at the end of each axis."""
        dim = self.job.configuration.dim
        largest = [max(sizes) for sizes in zip(*(one.shape[-dim:] for one in tensors), strict=True)]
        padded = []
        for one in tensors:
            missing = [most - n for most, n in zip(largest, one.shape[-dim:], strict=True)]
            padded.append(torch.nn.functional.pad(one, [n for more in reversed(missing) for n in (0, more)]))
        return torch.stack(padded)


def zoomed(augmentation: Augmentation, zoom: Sequence[float]) -> Augmentation:
    """An augmentation of a sample each of whose voxels covers `zoom` voxels of the image, per axis."""
    if all(factor == 1 for factor in zoom):
        return augmentation
    matrix, stretch, elastic = np.eye(len(zoom)), augmentation.stretch, augmentation.elastic
    if augmentation.matrix is not None:
        mapped = len(augmentation.matrix)
        matrix[-mapped:, -mapped:] = augmentation.matrix
    if augmentation.planar:  # slice by slice, but the slices are interpolated too
        stretch = ((0.0, 0.0), *stretch) if stretch else ()
        elastic = None if elastic is None else _along_slices(elastic, augmentation.patch_size[0])
    rows = tuple(tuple(map(float, row)) for row in np.diag(zoom) @ matrix)
    return replace(augmentation, planar=False, matrix=rows, stretch=stretch, elastic=elastic)


def _along_slices(grid: ControlGrid, slices: int) -> ControlGrid:
    """An elastic deformation of a plane as one of a volume, the same in all of its slices."""
    plane = grid.displacements()
    volume = np.zeros((3, ORDER + 1, *grid.shape))
    volume[1:] = plane[:, None]
    return ControlGrid((float(slices), *grid.spacing), volume.shape[1:], tuple(volume.ravel().tolist()))
