"""Training and validation batches: each is a function of its number, which decides on cases, patches and augmentation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.annotations import Known, annotated_indices
from ..data.label_subsets import organ_indices, translate_labels
from ..preprocessing.adjacent_slices import repeat_per_slice
from ..preprocessing.pseudo_labelled_cases import FULL, PseudoLabelledCase
from ..preprocessing.storage import Store, StoredCase, read_array
from ..runtime.hardware import memory_format
from ..schema import Box
from ..schema.conventions import OUTSIDE
from ..schema.run_record import RunRecord
from .augmentation.augment import Augmentation, draw, size_for
from .augmentation.spatial import center_crop
from .cascade.augmentation import augment_previous
from .cascade.region_masks import in_region, mark_outside
from .case_sampling import case_draw
from .label_maps import LabelMaps
from .losses.target_adaptive import Annotated, after_flip
from .patch_sampling import Sample, draw_sample, is_foreground_slot, moved, read_box, read_patch
from .run_options import RunFolders
from .slice_patches import read_slices, repeated

log = logging.getLogger(__name__)

TRAINING, VALIDATION = 0, 1
"""Streams of random numbers; a validation batch never shares draws with a training batch."""


class NothingAnnotatedError(ValueError):
    """None of the cases to draw from was annotated for any of the organs."""


@dataclass(frozen=True)
class Batch:
    """Patches ready for the network.

    Attributes:
        image: ``(B, C, *input)`` float32, the patch and (for some networks) its surroundings; in 2.5D a channel's slices lie together; in a
            cascade the previous stage's organs follow.
        segmentation: ``(B, *patch)`` int16 internal values.
        cases: Name of each sample's case.
        annotated: Of each sample the organs (and unions) that were annotated in its case, as indices into `Labels.names`, or None where all
            were.
        weight: ``(B, *patch)`` float32, how much each voxel counts, 0 to 1, where some samples have pseudo-labels; None means fully.
    """

    image: Tensor
    segmentation: Tensor
    cases: tuple[str, ...]
    annotated: Annotated
    weight: Tensor | None = None


class BatchMaker:
    """Makes batch number n of a stream, always the same for the same job.

    Args:
        stream: `TRAINING` (augmented) or `VALIDATION` (as it is).
        device: Where augmentation is computed and the batch ends.

    Raises:
        ValueError: None of the cases is preprocessed, or (in a cascade) has a segmentation of the previous stage.
        NothingAnnotatedError: None of them has annotations of the organs.
    """

    def __init__(self, job: RunRecord, folders: RunFolders, names: Sequence[str], *, stream: int, device: torch.device) -> None:
        self.job, self.folders, self.stream, self.device = job, folders, stream, device
        self._opened: dict[Path, Any] = {}
        ready = {name for name in Store(folders.data).names() if folders.has_previous_of(name)}
        organs = organ_indices(job.plan.stored_labels, job.plan.labels)
        self.cases: dict[str, StoredCase] = {name: in_region(folders.load(name, organs), folders.region) for name in names if name in ready}
        if not self.cases:
            raise ValueError(f"{folders.data}: none of the fold's {len(names)} cases is preprocessed")
        self.annotated = {name: annotated_indices(case.annotated, job.plan.labels) for name, case in self.cases.items()}
        # A case without annotations of any of the organs is of no use.
        self.cases = {name: case for name, case in self.cases.items() if self.annotated[name] != ()}
        self.pseudo = self._pseudo_labelled(organs)
        self.annotated |= {name: annotated_indices(case.annotated, job.plan.labels) for name, case in self.pseudo.items()}
        if not self.cases:
            organs_of_plan = ", ".join(job.plan.labels.names)
            raise NothingAnnotatedError(f"{folders.data}: {organs_of_plan}: annotated in none of the fold's {len(names)} cases")
        self._draw_case = case_draw(self.cases, job, training=stream == TRAINING)

    def _pseudo_labelled(self, organs: Sequence[int]) -> dict[str, StoredCase]:
        """Cases with pseudo-labels for some of the organs, in training; empty where the run has none."""
        recorded = self.job.pseudo_labels
        if self.stream != TRAINING or recorded is None:
            return {}
        folders = self.folders.of_unlabelled()
        cases = {name: in_region(folders.load(name, organs), folders.region) for name in recorded.cases}
        return {name: case for name, case in cases.items() if annotated_indices(case.annotated, self.job.plan.labels) != ()}

    def __call__(self, number: int) -> Batch:
        """Batch `number` of the stream."""
        size, share = self.job.configuration.batch_size, self.job.options.foreground
        samples = [self._sample(number, index, is_foreground_slot(index, size, share, number=number)) for index in range(size)]
        images = self.stack([image for image, *_ in samples]).to(memory_format=memory_format(self.job.configuration.dim))
        segmentations = self.stack([segmentation for _, segmentation, *_ in samples])
        _, _, cases, annotated, weights = zip(*samples, strict=True)
        return Batch(images, segmentations, cases, annotated, _stacked(weights, segmentations))

    def stack(self, tensors: Sequence[Tensor]) -> Tensor:
        """The samples' images, or label maps, as one tensor."""
        return torch.stack(tuple(tensors))

    def place(self, rng: np.random.Generator, draw_case: Callable[[], str], *, foreground: bool) -> tuple[Augmentation, Sample]:
        """Draws what a sample is: a patch and its surroundings in one of the cases, and what is done to it."""
        configuration, organ_slices = self.job.configuration, self.job.options.organ_slices
        augmentation = self.augmentation(rng, configuration.input_size)
        load_size, cases = size_for(augmentation), self.pseudo
        if not cases or rng.random() >= self.job.options.pseudo_share:
            name = draw_case()
            cases = {name: self.cases[name]}
        place = draw_sample(rng, cases, configuration, foreground=foreground, load_size=load_size, organ_slices=organ_slices)
        # A translation is another place to read, not another way to place what was read.
        translated, augmentation = moved(place, augmentation.translation), replace(augmentation, translation=())
        return augmentation, translated if translated == place or self._shows_region(translated) else place

    def _shows_region(self, sample: Sample) -> bool:
        """Whether some voxel of a patch lies in the candidate region, outside of which none counts; True where there are no regions."""
        folders = self.folders if sample.case in self.cases else self.folders.of_unlabelled()
        if folders.region is None:
            return True
        size = self.job.configuration.patch_size
        centres = [(start + stop) // 2 for start, stop in sample.box]
        patch = tuple((middle - n // 2, middle - n // 2 + n) for middle, n in zip(centres, (1,) * (3 - len(size)) + size, strict=True))
        return bool(read_box(self._array(folders.region / f"{sample.case}.b2nd"), patch, fill=0).any())

    def _sample(self, number: int, index: int, foreground: bool) -> tuple[Tensor, Tensor, str, tuple[Known, ...] | None, Tensor | None]:
        job, configuration = self.job, self.job.configuration
        rng = np.random.default_rng([job.seed, self.stream, number, index])
        augmentation, place = self.place(rng, lambda: self._draw_case(rng, number, index), foreground=foreground)
        image, maps = self._read(place.case, place.box)
        masked = repeat_per_slice(configuration.mask_normalization, configuration.slices)
        image, maps = maps.augmented(augmentation, image, masked=masked)
        labels = maps.labels if maps.region is None else mark_outside(maps.labels, maps.region, job.plan.labels)
        weight = maps.weight
        if configuration.context:
            labels = center_crop(labels, configuration.patch_size, 0)
            weight = None if weight is None else center_crop(weight, configuration.patch_size, 0)
        annotated = self.annotated[place.case]
        if augmentation.relabel:
            annotated = after_flip(annotated, configuration.mirroring)
        if maps.previous is not None:
            organs = torch.stack([maps.previous == value + 1 for value in range(len(job.plan.labels.base_values))]).float()
            if self.stream == TRAINING:
                organs = augment_previous(rng, organs)
            image = torch.cat([image, organs])
        return image, labels, place.case, annotated, weight

    def augmentation(self, rng: np.random.Generator, size: Sequence[int], *, voxel: float = 1.0) -> Augmentation:
        """Draws what is done to a sample of so many voxels per axis, of `voxel` times the configuration's edge: to validation's nothing."""
        job = self.job
        if self.stream != TRAINING:
            return Augmentation(tuple(size))
        drawn = draw(
            rng,
            job.options.augmentation.on_grid(1 / voxel),
            patch_size=size,
            channels=len(job.plan.channels),
            mirroring=job.configuration.mirroring,
            labels=job.plan.labels,
        )
        return repeated(drawn, job.configuration.slices)

    def _read(self, case: str, box: Box) -> tuple[Tensor, LabelMaps]:
        """Image ``(C, *loaded)`` and its label maps."""
        plan, configuration = self.job.plan, self.job.configuration
        stored = self.cases[case] if case in self.cases else self.pseudo[case]
        folders = self.folders if case in self.cases else self.folders.of_unlabelled()
        previous: np.ndarray | None = None
        region: np.ndarray | None = None
        masks: np.ndarray | None = None
        if configuration.slices > 1:
            image, labels_of_slices = read_slices(stored, box, configuration.slices)
            labels = labels_of_slices[configuration.slices // 2]
            if any(configuration.mask_normalization):
                masks = np.where(labels_of_slices < 0, OUTSIDE, 0).astype(np.int16)
        else:
            image, labels = read_patch(stored, box, configuration.dim)
        labels = translate_labels(labels, plan.stored_labels, plan.labels)
        if configuration.sees_previous:
            previous = read_box(self._array(folders.previous_of(case)), box, fill=0)[0].astype(np.int16)
            # What lies outside the image is outside in both, so that the two maps are warped and padded alike.
            previous = np.where(labels == OUTSIDE, OUTSIDE, previous)
        if folders.region is not None:
            region = read_box(self._array(folders.region / f"{case}.b2nd"), box, fill=0).reshape(labels.shape).astype(np.int16)
        weight: np.ndarray | None = None
        if isinstance(stored, PseudoLabelledCase):
            weight = read_box(stored.weights, box, fill=FULL).reshape(labels.shape).astype(np.float32) / FULL
        maps = (None if array is None else self._tensor(array) for array in (previous, region, masks, weight))
        return self._tensor(image), LabelMaps(self._tensor(labels), *maps)

    def _array(self, path: Path) -> Any:
        """A stored array, opened once: opening reads the whole file for its digest."""
        if path not in self._opened:
            self._opened[path] = read_array(path)
        return self._opened[path]

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def scoring_batches(make: Callable[[Sequence[str]], BatchMaker], job: RunRecord) -> BatchMaker:
    """Batches of the held-out cases; of the training cases where none of the former was annotated for the organs."""
    try:
        return make(job.scored or job.split.val or job.split.train)
    except NothingAnnotatedError as error:
        log.warning("%s: scores while training come from training cases.", error)
        return make(job.split.train)


def _stacked(weights: Sequence[Tensor | None], segmentations: Tensor) -> Tensor | None:
    """The weights of a batch's voxels ``(B, *patch)``, 1 in samples without; None where no sample has any."""
    if all(one is None for one in weights):
        return None
    return torch.stack(
        [torch.ones(label.shape, device=label.device) if one is None else one for one, label in zip(weights, segmentations, strict=True)]
    )
