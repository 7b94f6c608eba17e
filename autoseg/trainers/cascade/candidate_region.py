"""The choice of a candidate region's radius: how far the first stage's organs are dilated so that hardly any voxel of an organ is lost.

Roth et al., Comput. Med. Imaging Graph. 66 (2018), figure 6: recall and false-positive rate against the radius; they take 3 voxels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from ...data.labels import organ_mask
from ...inference.candidate_region_mask import distances
from ...preprocessing.storage import Store, read_array
from ...schema import Labels
from ...schema.run_record import RunRecord
from ..patch_sampling import segmentation_of
from ..run_options import RunFolders

LARGEST_RADIUS = 10
WANTED_RECALL = 0.99


@dataclass(frozen=True)
class RadiusRow:
    """Recall and false-positive rate of a candidate region with one radius.

    Attributes:
        radius: Voxels by which the first stage's foreground is dilated.
        recall: Share of an organ's voxels inside, mean over the organs of a case, then over the cases.
        worst_recall, worst_case: The lowest recall of a case, and that case.
        organs: Recall of each organ, mean over the cases that have it; NaN where none has.
        false_positive_rate: Share of the background inside, mean over the cases.
        share: Share of all voxels inside, mean over the cases.
    """

    radius: int
    recall: float
    worst_recall: float
    worst_case: str
    organs: tuple[float, ...]
    false_positive_rate: float
    share: float


@dataclass(frozen=True)
class CandidateRegionChoice:
    """The radius of a model's candidate region, and the table it was chosen from.

    Attributes:
        radius: Voxels.
        why: One sentence.
        organs: Names, in the order of `RadiusRow.organs`.
        rows: One a radius; empty where the user set the radius.
    """

    radius: int
    why: str
    organs: tuple[str, ...] = ()
    rows: tuple[RadiusRow, ...] = ()


def candidate_table(
    cases: Iterable[tuple[str, np.ndarray, np.ndarray]], labels: Labels, organs: Sequence[str], *, largest: int = LARGEST_RADIUS
) -> tuple[RadiusRow, ...]:
    """Recall and false-positive rate of the dilated first stage for every radius; the distances of a case are computed once.

    Args:
        cases: Name, foreground of the first stage (bool) and reference (internal values), both ``(Z, Y, X)``; one at a time.
            Without any foreground the region is everywhere.
        labels: Of the reference; ignored voxels count nowhere.
        organs: Of `labels`, those that count.
        largest: Radius up to which is tried.

    Raises:
        ValueError: No case has an organ.
    """
    names: list[str] = []
    recalls, false, share = [], [], []
    for name, foreground, reference in cases:
        distance = distances(foreground, largest) if foreground.any() else np.zeros(foreground.shape, np.uint8)
        masks = [organ_mask(reference, labels, labels.names.index(organ)) for organ in organs]
        counted = np.ones(foreground.shape, bool) if labels.internal_ignore is None else reference != labels.internal_ignore
        background = counted & ~np.logical_or.reduce(masks)
        names.append(name)
        recalls.append([_reached(distance, mask, largest) for mask in masks])
        false.append(_reached(distance, background, largest))
        share.append(_reached(distance, counted, largest))
    by_organ = np.array(recalls).reshape(len(names), len(organs), largest + 1)
    by_case = _mean(by_organ, 1)
    if np.isnan(by_case).all():
        raise ValueError(f"candidate region: expected cases with {', '.join(organs)}, found none in {', '.join(names) or 'no case'}")
    worst = np.nanargmin(by_case, axis=0)
    return tuple(
        RadiusRow(
            radius,
            float(_mean(by_case, 0)[radius]),
            float(by_case[worst[radius], radius]),
            names[worst[radius]],
            tuple(float(value) for value in _mean(by_organ, 0)[:, radius]),
            float(_mean(np.array(false), 0)[radius]),
            float(_mean(np.array(share), 0)[radius]),
        )
        for radius in range(largest + 1)
    )


def choose_radius(rows: Sequence[RadiusRow], recall: float = WANTED_RECALL) -> CandidateRegionChoice:
    """The smallest radius whose mean recall is above `recall`; the largest where none is.

    Args:
        rows: From `candidate_table`, radii ascending.
    """
    row = next((row for row in rows if row.recall > recall), rows[-1])
    reached = "the smallest with" if row.recall > recall else f"none reaches a recall of {recall:.0%}; the largest has"
    why = (
        f"{reached} {row.recall:.2%} of the organs inside ({row.worst_recall:.1%} in the worst case, {row.worst_case}), "
        f"{row.false_positive_rate:.1%} of the background and {row.share:.1%} of all voxels"
    )
    return CandidateRegionChoice(row.radius, why, rows=tuple(rows))


def choose_candidate_region(job: RunRecord, folders: RunFolders) -> CandidateRegionChoice:
    """The radius for a cascade's second stage, from the first stage's out-of-fold predictions of the fold's training cases.

    Raises:
        ValueError: None of those cases has a prediction, or an organ.
    """
    store, organs = Store(folders.data), job.plan.labels.names
    names = [name for name in job.split.train if store.has(name) and folders.previous_of(name).is_file()]

    def cases() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        for name in tqdm(names, desc="Candidate region", unit="case", disable=None):
            foreground = read_array(folders.previous_of(name))[0] > 0
            yield name, foreground, np.asarray(segmentation_of(store.load(name))[:])

    chosen = choose_radius(candidate_table(cases(), job.plan.stored_labels, organs))
    return replace(chosen, organs=tuple(organs))


def _reached(distance: np.ndarray, mask: np.ndarray, largest: int) -> np.ndarray:
    """Share of the mask's voxels within each radius 0..`largest`; NaN for an empty mask."""
    counts = np.bincount(distance[mask], minlength=largest + 2).astype(float)
    return np.cumsum(counts)[: largest + 1] / counts.sum() if counts.sum() else np.full(largest + 1, np.nan)


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean of those that are not NaN; NaN of none."""
    valid = ~np.isnan(values)
    count = valid.sum(axis)
    return np.where(count, np.where(valid, values, 0).sum(axis) / np.maximum(count, 1), np.nan)
