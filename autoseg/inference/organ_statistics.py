"""What an organ's mask and its calibrated probabilities say of the Dice that it may have, without a reference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from ..schema import Labels, PostProcessing
from .export import probabilities
from .lazy_logits import crop_logits, on_first_grid
from .logits import Logits
from .organ_measures import MM3_PER_ML
from .organ_places import OrganPlace
from .postprocessing import apply_postprocessing

MIN_PROBABILITY = 0.2
"""Probabilities below this do not count: over a whole volume their sum would outweigh a small organ. On held-out hippocampi 0.2 ranked
cases better than 0.05 and 0.02, and those better than counting everything."""

LOW = 0.1
"""Share of a mask's voxels that are less probable than its low probability."""

BINS = 1000
"""Of the histogram that the low probability is read from."""


@dataclass(frozen=True)
class OrganStatistics:
    """Of an organ's mask after post-processing and its calibrated probabilities, on the network's grid.

    Attributes:
        expected_dice: ``2 sum(p m) / (sum(p) + sum(m))``, p the probability, m the mask: the Dice of the mask with a reference in which
            every voxel is drawn with its probability, up to the ratio of means standing for the mean ratio. Sums go over the mask and
            where p is at least `MIN_PROBABILITY`; components that post-processing removes do not count. 0 where the organ is probable
            somewhere but has no voxel, NaN where not even that.
        volume_ml: Of the mask (of a 2D image as if it were 1 mm thick).
        mean_probability: Over the mask; NaN where it is empty, as all that follow.
        low_probability: A tenth of the mask's voxels is less probable.
        border_share: Share of the mask's voxels that have a neighbour outside in the last two axes: high for ragged and thin masks.
        slice_agreement: Mean Dice of the masks of neighbouring slices, from the organ's first to its last one; 0 where it is in one slice
            only, NaN for a 2D image.
        place: Where it lies in the label map; None where it is empty, and in files of earlier versions.
    """

    expected_dice: float
    volume_ml: float = 0.0
    mean_probability: float = math.nan
    low_probability: float = math.nan
    border_share: float = math.nan
    slice_agreement: float = math.nan
    place: OrganPlace | None = None

    @property
    def largest_share(self) -> float:
        """Share of the mask's voxels that lie in its largest component; NaN where it is not known."""
        return math.nan if self.place is None else self.place.largest_share


def organ_statistics(
    members: Sequence[Logits],
    labels: Labels,
    postprocessing: Mapping[str, PostProcessing] | None = None,
    *,
    organs: Sequence[str] | None = None,
) -> dict[str, OrganStatistics]:
    """Measures the organs of one case on the grid of the first member.

    Args:
        members: Calibrated predictions, whose probabilities are averaged.
        labels: Of the members.
        postprocessing: By organ; none where organs overlap.
        organs: Only these; None: all.
    """
    wanted = [labels.names.index(organ) for organ in (labels.names if organs is None else organs)]
    gridded = on_first_grid(_cropped_to_channels(members, [index if labels.regions else index + 1 for index in wanted]))
    cleaned = _postprocessed(gridded, labels, postprocessing) if postprocessing else None
    sums = {index: _Sums() for index in wanted}
    for start, slab in probabilities(gridded, labels):
        winner = None if labels.regions else slab.argmax(axis=0)
        for index in wanted:
            share = slab[index if labels.regions else index + 1]
            mask = share > 0.5 if winner is None else winner == index + 1
            near = mask | (share >= MIN_PROBABILITY)
            if cleaned is not None:
                remaining = cleaned[start : start + len(mask)] == index + 1
                mask, near = remaining, remaining | (near & ~mask)
            sums[index].add(share, mask, near)
    spacing = gridded[0].trace.geometry.spacing
    return {labels.names[index]: one.statistics(spacing) for index, one in sums.items()}


@dataclass(eq=False)
class _Sums:
    """Adds up one organ's statistics slab by slab along the first axis."""

    both: float = 0.0
    shares: float = 0.0
    size: int = 0
    border: int = 0
    histogram: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    areas: list[int] = field(default_factory=list)
    overlaps: list[int] = field(default_factory=list)
    last: np.ndarray | None = None

    def add(self, share: np.ndarray, mask: np.ndarray, near: np.ndarray) -> None:
        """Adds a slab ``(z, Y, X)`` of probabilities, of the mask, and of where probabilities count."""
        inside = share[mask]
        self.both += float(inside.sum(dtype=np.float64))
        self.shares += float(share[near].sum(dtype=np.float64))
        self.size += len(inside)
        self.histogram += np.bincount(np.minimum((inside * BINS).astype(np.int64), BINS - 1), minlength=BINS)
        before = np.concatenate([np.zeros_like(mask[:1]) if self.last is None else self.last, mask[:-1]])
        self.areas += np.count_nonzero(mask, axis=(1, 2)).tolist()
        self.overlaps += np.count_nonzero(mask & before, axis=(1, 2)).tolist()
        self.last = mask[-1:].copy()
        if len(inside):
            box = ndimage.find_objects(mask.view(np.uint8))[0]
            padded = np.pad(mask[box], ((0, 0), (1, 1), (1, 1)))
            inner = padded[:, :-2, 1:-1] & padded[:, 2:, 1:-1] & padded[:, 1:-1, :-2] & padded[:, 1:-1, 2:]
            self.border += int(np.count_nonzero(mask[box] & ~inner))

    def statistics(self, spacing_mm: Sequence[float]) -> OrganStatistics:
        """The statistics of everything that was added; the spacing of a 2D image has two numbers."""
        total = self.shares + self.size
        expected = 2 * self.both / total if total else math.nan
        if not self.size:
            return OrganStatistics(expected)
        low = int(np.searchsorted(np.cumsum(self.histogram), LOW * self.size)) + 0.5
        volume = self.size * math.prod(spacing_mm) / MM3_PER_ML
        agreement = math.nan if len(spacing_mm) == 2 else self._slice_agreement()
        return OrganStatistics(expected, volume, self.both / self.size, low / BINS, self.border / self.size, agreement)

    def _slice_agreement(self) -> float:
        slices = np.flatnonzero(self.areas)
        areas, overlaps = (np.array(one)[slices[0] : slices[-1] + 1] for one in (self.areas, self.overlaps))
        pairs = areas[1:] + areas[:-1]
        known = pairs > 0  # two empty slices in a gap
        return float(np.mean(2 * overlaps[1:][known] / pairs[known])) if known.any() else 0.0


def _cropped_to_channels(members: Sequence[Logits], channels: Sequence[int]) -> list[Logits]:
    """Crops members to the box outside of which all of them have 0 in some channels: most of a volume is far from an organ.

    Stored probabilities are 0 there at every temperature; logits never are, and on different grids no box is the same: these stay whole.
    """
    shapes = {tuple(member.array.shape) for member in members}
    if len(shapes) > 1 or any(member.kind != "probability8" for member in members):
        return list(members)
    possible = np.zeros(shapes.pop()[1:], bool)
    for member in members:
        array = getattr(member.array, "same_winners", member.array)
        for channel in channels:
            possible |= np.asarray(array[channel : channel + 1, :, :, :])[0] > 0
    box = next(iter(ndimage.find_objects(possible.view(np.uint8))), (slice(0, 1),) * 3)
    return [crop_logits(member, box) for member in members]


def _postprocessed(members: Sequence[Logits], labels: Labels, postprocessing: Mapping[str, PostProcessing]) -> np.ndarray:
    """After post-processing the place of each voxel's organ in `labels`, plus one; 0 is background. ``(Z, Y, X)`` on the first grid."""
    values = np.array([0, *(members[0] for members in labels.internal_members)], np.int16)
    winners = np.concatenate([values[slab.argmax(axis=0)] for _, slab in probabilities(members, labels)])
    spacing = members[0].trace.geometry.spacing
    cleaned = apply_postprocessing(winners, labels, postprocessing, spacing if len(spacing) == 3 else (1.0, *spacing))
    places = np.zeros(int(values.max()) + 1, np.int16)
    places[values] = np.arange(len(values))
    return places[cleaned]
