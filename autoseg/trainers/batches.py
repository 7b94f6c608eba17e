"""From the number of a batch to its tensors: draw cases, read patches, augment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..data.annotations import annotated_indices
from ..data.label_subsets import positions, translate
from ..preprocessing.adjacent_slices import for_each_slice
from ..preprocessing.storage import Store, StoredCase, read_array
from ..runtime.hardware import memory_format
from ..schema import Box
from ..schema.conventions import OUTSIDE
from ..schema.run_record import RunRecord
from .adjacent_slices import outside_maps, read_slices, repeated, without_last
from .augmentation.augment import Augmentation, apply, draw, size_for
from .cascade.augmentation import augment_previous
from .cascade.region_masks import in_region, mark_outside
from .job import RunFolders
from .losses.target_adaptive import Annotated, after_flip
from .patch_sampling import draw_sample, is_foreground_slot, read_box, read_patch

TRAINING, VALIDATION = 0, 1
"""Streams of random numbers; a validation batch never shares draws with a training batch."""


class NothingAnnotatedError(ValueError):
    """None of the cases to draw from was annotated for any of the organs."""


@dataclass(frozen=True)
class Batch:
    """Patches ready for the network.

    Attributes:
        image: ``(B, C, *patch)`` float32; in 2.5D a channel's slices lie together; in a cascade the previous stage's organs follow.
        segmentation: ``(B, *patch)`` int16 internal values.
        cases: Name of each sample's case.
        annotated: Of each sample the organs that were annotated in its case, as indices into `Labels.names`, or None where all were.
    """

    image: Tensor
    segmentation: Tensor
    cases: tuple[str, ...]
    annotated: Annotated


class BatchMaker:
    """Makes batch number n of a stream, always the same for the same job.

    Args:
        job: The run.
        folders: Where its data lies.
        names: Cases to draw from.
        stream: `TRAINING` (augmented) or `VALIDATION` (as it is).
        device: Where augmentation is computed and the batch ends.

    Raises:
        ValueError: None of the cases is preprocessed, or (in a cascade) has a segmentation of the previous stage.
        NothingAnnotatedError: None of them has annotations of the organs.
    """

    def __init__(self, job: RunRecord, folders: RunFolders, names: Sequence[str], *, stream: int, device: torch.device) -> None:
        self.job, self.folders, self.stream, self.device = job, folders, stream, device
        store = Store(folders.data)
        there = set(store.names())
        if folders.previous is not None:
            there = {name for name in there if (folders.previous / f"{name}.b2nd").is_file()}
        organs = positions(job.plan.stored_labels, job.plan.labels)
        self.cases: dict[str, StoredCase] = {
            name: in_region(store.load(name, organs=organs), folders.region) for name in names if name in there
        }
        if not self.cases:
            raise ValueError(f"{folders.data}: none of the fold's {len(names)} cases is preprocessed")
        self.annotated = {name: annotated_indices(case.annotated, job.plan.labels) for name, case in self.cases.items()}
        # A case in which nobody annotated any of the organs has nothing to teach.
        self.cases = {name: case for name, case in self.cases.items() if self.annotated[name] != ()}
        if not self.cases:
            what = ", ".join(job.plan.labels.names)
            raise NothingAnnotatedError(f"{folders.data}: {what}: annotated in none of the fold's {len(names)} cases")

    def __call__(self, number: int) -> Batch:
        """Batch `number` of the stream."""
        size, share = self.job.configuration.batch_size, self.job.options.foreground
        samples = [self._sample(number, index, is_foreground_slot(index, size, share, number=number)) for index in range(size)]
        images = torch.stack([image for image, *_ in samples]).to(memory_format=memory_format(self.job.configuration.dim))
        segmentations = torch.stack([segmentation for _, segmentation, *_ in samples])
        cases, annotated = (tuple(facts) for facts in zip(*(sample[2:] for sample in samples), strict=True))
        return Batch(images, segmentations, cases, annotated)

    def _sample(self, number: int, index: int, foreground: bool) -> tuple[Tensor, Tensor, str, tuple[int, ...] | None]:
        job, configuration = self.job, self.job.configuration
        rng = np.random.default_rng([job.seed, self.stream, number, index])
        augmentation = self._draw(rng)
        place = draw_sample(rng, self.cases, configuration, foreground=foreground, load_size=size_for(augmentation))
        image, labels = self._read(place.case, place.box)
        image, labels = self._apply(augmentation, image, labels)
        if self.folders.region is not None:
            labels = mark_outside(labels, job.plan.labels)
        annotated = self.annotated[place.case]
        if augmentation.relabel:
            annotated = after_flip(annotated, configuration.mirroring)
        if not configuration.sees_previous:
            return image, labels, place.case, annotated
        organs = torch.stack([labels[1] == value + 1 for value in range(len(job.plan.labels.base_values))]).float()
        if self.stream == TRAINING:
            organs = augment_previous(rng, organs)
        return torch.cat([image, organs]), labels[0], place.case, annotated

    def _draw(self, rng: np.random.Generator) -> Augmentation:
        job = self.job
        if self.stream != TRAINING:
            return Augmentation(job.configuration.patch_size)
        drawn = draw(
            rng,
            job.options.augmentation,
            patch_size=job.configuration.patch_size,
            channels=len(job.plan.channels),
            mirroring=job.configuration.mirroring,
            labels=job.plan.labels,
        )
        return repeated(drawn, job.configuration.slices)

    @property
    def _masked_slices(self) -> int:
        """Label maps at the end that say where the slices have no data: in 2.5D each slice is set to zero outside its own mask."""
        configuration = self.job.configuration
        return configuration.slices if configuration.slices > 1 and any(configuration.mask_normalization) else 0

    def _apply(self, augmentation: Augmentation, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        masked, count = for_each_slice(self.job.configuration.mask_normalization, self.job.configuration.slices), self._masked_slices
        if not count:
            return apply(augmentation, image, labels, masked=masked)
        numbers = tuple(range(len(labels) - count, len(labels))) * len(self.job.plan.channels)
        image, labels = apply(augmentation, image, labels, masked=masked, masks=numbers)
        return image, without_last(labels, count)

    def _read(self, case: str, box: Box) -> tuple[Tensor, Tensor]:
        """Image ``(C, *loaded)`` and labels ``(*loaded)``; or ``(S, *loaded)``: the previous stage's next, a region, the slices' masks."""
        configuration = self.job.configuration
        if configuration.slices > 1:
            image, around = read_slices(self.cases[case], box, configuration.slices)
            labels = around[len(around) // 2]
        else:
            image, labels = read_patch(self.cases[case], box, configuration.dim)
        labels = translate(labels, self.job.plan.stored_labels, self.job.plan.labels)
        maps = [labels]
        if self.job.configuration.sees_previous:
            previous = read_box(read_array(self.folders.previous / f"{case}.b2nd"), box, fill=0)[0].astype(np.int16)
            # What lies outside the image is outside in both, so that the two maps are warped and padded alike.
            maps.append(np.where(labels == OUTSIDE, OUTSIDE, previous))
        if self.folders.region is not None:
            region = read_box(read_array(self.folders.region / f"{case}.b2nd"), box, fill=0)
            maps.append(region.reshape(labels.shape).astype(np.int16))
        if self._masked_slices:
            maps += outside_maps(around)
        labels = np.stack(maps) if len(maps) > 1 else labels
        return torch.from_numpy(image).to(self.device), torch.from_numpy(labels).to(self.device)
