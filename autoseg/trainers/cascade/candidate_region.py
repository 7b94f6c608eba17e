"""The choice of a candidate region's radius: how far the first stage's organs are dilated so that hardly any voxel of any organ is lost.

Roth et al., Comput. Med. Imaging Graph. 66 (2018), figure 6: recall and false-positive rate against the radius; they take 3 voxels.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from tqdm import tqdm

from ...data.label_subsets import translate_labels
from ...data.labels import organ_mask
from ...inference.candidate_region_mask import distances
from ...preprocessing.storage import Store, read_array
from ...schema import Labels
from ...schema.run_record import RunRecord
from ..patch_sampling import segmentation_of
from ..run_options import RunFolders

log = logging.getLogger(__name__)

LARGEST_RADIUS = 10
WANTED_RECALL = 0.99
ROTHS_RADIUS = 3
"""Voxels; taken where the first stage found no organ that could say how many are needed."""
GAIN = 0.01
"""An organ that no radius brings to the wanted recall asks for the smallest within this of the most that any reaches."""


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
        found: As `organs`, over the cases in which the first stage found some of the organ, which decide on the radius; NaN where it found
            it in none. Empty in files of earlier versions.
    """

    radius: int
    recall: float
    worst_recall: float
    worst_case: str
    organs: tuple[float, ...]
    false_positive_rate: float
    share: float
    found: tuple[float, ...] = ()


@dataclass(frozen=True)
class CandidateRegionChoice:
    """The radius of a model's candidate region, and the table it was chosen from.

    Attributes:
        radius: Voxels.
        why: One sentence.
        organs: Names, in the order of `RadiusRow.organs`.
        rows: One a radius; empty where the user set the radius.
        missed: Organ to the cases in which the first stage found nothing of it; these do not count in the choice.
    """

    radius: int
    why: str
    organs: tuple[str, ...] = ()
    rows: tuple[RadiusRow, ...] = ()
    missed: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class CaseRecall:
    """What the dilated first stage covers of one case, for each radius.

    Attributes:
        organs: Share of each organ inside, ``(organs, radii)``; NaN for an organ that the case does not have.
        missed: Organs ``(organs,)`` bool that the case has and of which the first stage found no voxel.
        background, all: Share of the background, and of all voxels that count, inside ``(radii,)``.
    """

    case: str
    organs: np.ndarray
    missed: np.ndarray
    background: np.ndarray
    all: np.ndarray


def case_recall(
    case: str, found: np.ndarray, reference: np.ndarray, labels: Labels, organs: Sequence[str], *, largest: int = LARGEST_RADIUS
) -> CaseRecall:
    """Recall and false-positive rate of one case for every radius; its distances are computed once. Arguments as for `candidate_table`."""
    foreground = found > 0
    indices = [labels.names.index(organ) for organ in organs]
    distance = distances(foreground, largest) if foreground.any() else np.zeros(foreground.shape, np.uint8)
    masks = [organ_mask(reference, labels, index) for index in indices]
    counted = np.ones(foreground.shape, bool) if labels.internal_ignore is None else reference != labels.internal_ignore
    missed = [False] * len(masks)
    if foreground.any():  # else the region is everywhere, and nothing is lost
        own = [foreground if found.dtype == bool else organ_mask(found, labels, index) for index in indices]
        missed = [bool(mask.any() and not (mask & one).any()) for mask, one in zip(masks, own, strict=True)]
    return CaseRecall(
        case,
        np.array([_reached(distance, mask, largest) for mask in masks]).reshape(len(masks), largest + 1),
        np.array(missed),
        _reached(distance, counted & ~np.logical_or.reduce(masks), largest),
        _reached(distance, counted, largest),
    )


def candidate_table(
    cases: Iterable[tuple[str, np.ndarray, np.ndarray]], labels: Labels, organs: Sequence[str], *, largest: int = LARGEST_RADIUS
) -> tuple[RadiusRow, ...]:
    """Recall and false-positive rate of the dilated first stage for every radius.

    Args:
        cases: Name, label map of the first stage (internal values; or bool, its foreground alone) and reference (internal values), both
            ``(Z, Y, X)``; one at a time. Without any foreground the region is everywhere.
        labels: Of the reference; ignored voxels count nowhere.
        organs: Of `labels`, those that count.
        largest: Radius up to which is tried.

    Raises:
        ValueError: No case has an organ.
    """
    return table_of([case_recall(*case, labels, organs, largest=largest) for case in cases], organs)


def table_of(cases: Sequence[CaseRecall], organs: Sequence[str]) -> tuple[RadiusRow, ...]:
    """One row a radius over measured cases; a ValueError where no case has an organ."""
    names = [case.case for case in cases]
    if not cases or np.isnan([case.organs for case in cases]).all():
        raise ValueError(f"candidate region: expected cases with {', '.join(organs)}, found none in {', '.join(names) or 'no case'}")
    by_organ = np.array([case.organs for case in cases])
    found = np.where(np.array([case.missed for case in cases])[..., None], np.nan, by_organ)
    by_case = _mean(by_organ, 1)
    worst = np.nanargmin(by_case, axis=0)
    return tuple(
        RadiusRow(
            radius,
            float(_mean(by_case, 0)[radius]),
            float(by_case[worst[radius], radius]),
            names[worst[radius]],
            tuple(float(value) for value in _mean(by_organ, 0)[:, radius]),
            float(_mean(np.array([case.background for case in cases]), 0)[radius]),
            float(_mean(np.array([case.all for case in cases]), 0)[radius]),
            tuple(float(value) for value in _mean(found, 0)[:, radius]),
        )
        for radius in range(by_organ.shape[2])
    )


def choose_radius(rows: Sequence[RadiusRow], recall: float = WANTED_RECALL, *, organs: Sequence[str] = ()) -> CandidateRegionChoice:
    """The smallest radius with which the recall of every organ is above `recall`.

    Of each organ the cases count in which the first stage found some of it: what it missed wholly, no radius brings back. An organ that no
    radius brings to `recall` asks for what it gains from, see `GAIN`, and one that was found in no case for nothing; both are named.

    Args:
        rows: From `candidate_table`, radii ascending.
        organs: Their names, for the sentence.
    """
    curves = np.array([row.found or row.organs for row in rows])
    names = list(organs) or [f"organ {number}" for number in range(1, curves.shape[1] + 1)]
    there = ~np.isnan(rows[0].organs)
    needed = {name: _needed(curve, recall) for name, curve in zip(names, curves.T, strict=True) if not np.isnan(curve).any()}
    row = rows[max(needed.values()) if needed else min(ROTHS_RADIUS, len(rows) - 1)]
    short = {name: value for name, value, one in zip(names, curves[row.radius], there, strict=True) if one and not value > recall}
    return CandidateRegionChoice(row.radius, _why(row, recall, names, short, needed), tuple(organs), tuple(rows))


def _needed(curve: np.ndarray, recall: float) -> int:
    """The radius that an organ asks for, by its recall ``(radii,)``."""
    above = np.flatnonzero(curve > recall)
    return int(above[0] if len(above) else np.flatnonzero(curve >= curve[-1] - GAIN)[0])


def _why(row: RadiusRow, recall: float, names: Sequence[str], short: Mapping[str, float], needed: Mapping[str, int]) -> str:
    """The reason for a radius in one sentence, with the organs that fall short of the recall."""
    values = {name: value for name, value in zip(names, row.found or row.organs, strict=True) if name not in short and not np.isnan(value)}
    parts = []
    if values:
        least = min(values, key=lambda name: values[name])
        parts.append(
            f"the smallest with more than {recall:.0%} of {'each' if not short else 'every other'} organ inside "
            f"({least} has least, {values[least]:.2%})"
        )
    reached = [f"{name} ({value:.2%})" for name, value in short.items() if name in needed]
    if reached:
        parts.append(f"no radius brings {', '.join(reached)} there")
    unseen = [name for name in short if name not in needed]
    if unseen:
        parts.append(f"{', '.join(unseen)}: the first stage found nothing of it in any case, so that it has no say")
    parts.append(
        f"on average {row.recall:.2%} of the organs are inside ({row.worst_recall:.1%} in the worst case, {row.worst_case}), "
        f"{row.false_positive_rate:.1%} of the background and {row.share:.1%} of all voxels"
    )
    return "; ".join(parts)


def describe_recall(choice: CandidateRegionChoice) -> str:
    """The recall of each organ, and the false-positive rate, by radius: a table of text."""
    head = ["radius", *choice.organs, "mean", "background"]
    lines = [[str(row.radius), *(_percent(value) for value in (*row.organs, row.recall, row.false_positive_rate))] for row in choice.rows]
    widths = [max(len(line[column]) for line in (head, *lines)) for column in range(len(head))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in (head, *lines))


def _percent(share: float) -> str:
    return "-" if np.isnan(share) else f"{share:.2%}"


def choose_candidate_region(job: RunRecord, folders: RunFolders) -> CandidateRegionChoice:
    """The radius for a cascade's second stage, from the first stage's out-of-fold predictions of the fold's training cases.

    Logs the recall of each organ by radius, and warns of organs that the first stage missed wholly in some case.

    Raises:
        ValueError: None of those cases has a prediction, or an organ.
    """
    store, labels, organs = Store(folders.data), job.plan.labels, job.plan.labels.names
    names = [name for name in job.split.train if store.has(name) and folders.previous_of(name).is_file()]
    cases = []
    for name in tqdm(names, desc="Candidate region", unit="case", disable=None):
        reference = translate_labels(np.asarray(segmentation_of(store.load(name))[:]), job.plan.stored_labels, labels)
        cases.append(case_recall(name, np.asarray(read_array(folders.previous_of(name))[0]), reference, labels, organs))
    chosen = choose_radius(table_of(cases, organs), organs=organs)
    missed = {organ: tuple(case.case for case in cases if case.missed[index]) for index, organ in enumerate(organs)}
    chosen = replace(chosen, missed={organ: some for organ, some in missed.items() if some})
    log.info("Recall of the candidate region by its radius in voxels, and the share of the background inside:\n%s", describe_recall(chosen))
    for organ, some in chosen.missed.items():
        log.warning(
            "%s: the first stage found nothing of it in %d of %d cases (%s), which do not count for the radius: what it misses is lost.",
            *(organ, len(some), sum(not np.isnan(case.organs[organs.index(organ)]).any() for case in cases), ", ".join(some)),
        )
    return chosen


def _reached(distance: np.ndarray, mask: np.ndarray, largest: int) -> np.ndarray:
    """Share of the mask's voxels within each radius 0..`largest`; NaN for an empty mask."""
    counts = np.bincount(distance[mask], minlength=largest + 2).astype(float)
    return np.cumsum(counts)[: largest + 1] / counts.sum() if counts.sum() else np.full(largest + 1, np.nan)


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean of those that are not NaN; NaN of none."""
    valid = ~np.isnan(values)
    count = valid.sum(axis)
    return np.where(count, np.where(valid, values, 0).sum(axis) / np.maximum(count, 1), np.nan)
