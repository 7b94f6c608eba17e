"""Dice of whole held-out volumes while a network trains: what the validation of the fold will say, without mirrors and overlap.

Patches drawn as those of training do not predict it: a third of them are centred on organs, and what is found where there is nothing hardly
counts. Here each case is segmented from end to end, by the same predictor as in validation, and its voxels are counted once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..data.label_subsets import translate_labels
from ..evaluation.case_scores import score_case
from ..evaluation.counts import nan_mean
from ..evaluation.summaries import pooled_dice, summary
from ..inference.candidate_region_mask import candidate_region_mask
from ..inference.merge_labels import internal_regions_class_order
from ..inference.network_input import patch_3d
from ..inference.volume_predictor import Volume, VolumePredictor
from ..inference.winning_labels import winning_channels
from ..preprocessing.cropping import slices_of
from ..preprocessing.storage import StoredCase, read_array
from ..schema import Box, Configuration, Labels, Mirroring, Score
from ..schema.conventions import ANNOTATED
from ..schema.run_record import RunRecord
from .batches import BatchMaker
from .patch_sampling import segmentation_of
from .run_options import RunFolders

MOST_CASES = 16
"""Most cases that are scored after a validation interval."""

LEAST_CASES = 4
"""Cases that share the tiles where whole volumes have too many: of each a block of adjacent tiles."""

GOLDEN = (math.sqrt(5) - 1) / 2
"""Steps of this share of a range, wrapped around, fill it evenly whatever their number."""

VOLUMES = 4
"""Stream of random numbers for the order of cases and the places of blocks, beside those of patches, of the locator and of datasets."""


@dataclass(frozen=True)
class Block:
    """What is scored of a case.

    Attributes:
        box: On the stored array's (Z, Y, X).
        whole: Whether that is all of it.
        tiles: Of the sliding window, without overlap.
    """

    case: str
    box: Box
    whole: bool
    tiles: int


def without_overlap(configuration: Configuration) -> Configuration:
    """The configuration for a quick look at whole volumes: the tiles lie end to end, and no mirrored copies are averaged."""
    return replace(configuration, mirroring=Mirroring(), tiling=replace(configuration.tiling, step=1.0))


def scored_blocks(cases: Mapping[str, StoredCase], job: RunRecord, *, is_last: bool) -> tuple[Block, ...]:
    """Chooses what is scored: whole volumes as far as the tiles reach, small and large organs alike; a function of cases and seed.

    Where not even `LEAST_CASES` volumes are affordable, a block of adjacent tiles at a random place of each of so many cases.

    Args:
        is_last: After the last validation interval, as many tiles as after all of them before, of as many cases as they reach: what a
            training says in the end is to be what validation finds.
    """
    configuration, rng = job.configuration, np.random.default_rng([job.seed, VOLUMES])
    tiles, most = job.options.validation_tiles, MOST_CASES
    if is_last:
        tiles, most = tiles * job.budget.validation_intervals, len(cases)
    whole = {name: _whole(cases[name], name, configuration) for name in _spread(cases, rng)[:most]}
    affordable = int(np.searchsorted(np.cumsum([block.tiles for block in whole.values()]), tiles, side="right"))
    if affordable >= min(LEAST_CASES, len(whole)) or configuration.locator is not None:  # in a part no organs can be located
        return tuple(list(whole.values())[: max(1, affordable)])
    share = max(1, tiles // LEAST_CASES)
    return tuple(_part(block, configuration, share, rng) for block in list(whole.values())[:LEAST_CASES])


def _spread(cases: Mapping[str, StoredCase], rng: np.random.Generator) -> list[str]:
    """The cases in an order of which every beginning has small and large organs, as many of each."""

    def size(name: str) -> tuple[int, str]:
        locations = cases[name].locations
        return sum(len(locations[organ]) for organ in locations if organ != ANNOTATED), name

    ranked, start, count = sorted(cases, key=size), rng.random(), len(cases)
    places = [(start + number * GOLDEN) % 1.0 for number in range(count)]
    # Places that are as near to each other as two cases may meet the same one: the nearest that is left.
    left, order = list(range(count)), []
    for place in places:
        nearest = min(left, key=lambda index: abs((index + 0.5) / count - place))
        left.remove(nearest)
        order.append(ranked[nearest])
    return order


def _whole(case: StoredCase, name: str, configuration: Configuration) -> Block:
    shape = case.trace.shape
    in_one = configuration.locator is not None and configuration.locator.whole
    tiles = 1 if in_one else math.prod(_tile_counts(shape, configuration))
    return Block(name, tuple((0, n) for n in shape), True, tiles)


def _tile_counts(shape: Sequence[int], configuration: Configuration) -> list[int]:
    return [max(1, math.ceil(n / edge)) for n, edge in zip(shape, patch_3d(configuration), strict=True)]


def _part(whole: Block, configuration: Configuration, tiles: int, rng: np.random.Generator) -> Block:
    """A block of at most so many adjacent tiles, anywhere in the volume; the volume where that has no more."""
    if whole.tiles <= tiles:
        return whole
    counts, patch = [1, 1, 1], patch_3d(configuration)

    def length(axis: int, count: int) -> int:
        return min(whole.box[axis][1], patch[axis] * count)

    def gain(axis: int) -> float:
        """How many times as large the block is with another row of tiles; 1 where that is too many, or the volume ends before."""
        more = math.prod(counts) // counts[axis] * (counts[axis] + 1)
        return length(axis, counts[axis] + 1) / length(axis, counts[axis]) if more <= tiles else 1.0

    while gain(axis := max(range(3), key=gain)) > 1:
        counts[axis] += 1
    sizes = [length(axis, count) for axis, count in enumerate(counts)]
    starts = [int(rng.integers(n - size + 1)) for (_, n), size in zip(whole.box, sizes, strict=True)]
    return Block(whole.case, tuple((start, start + size) for start, size in zip(starts, sizes, strict=True)), False, math.prod(counts))


def score_volumes(predictor: VolumePredictor, blocks: Iterable[Block], make: BatchMaker) -> dict[str, float]:
    """Segments the blocks and compares them, on the grid of the preprocessed cases, with their label maps.

    Args:
        make: Of batches of the held-out cases; its cases and folders are read.

    Returns:
        ``mean_dice`` and ``dice_<organ>``, means over cases as in validation (of parts of volumes: over all voxels together), NaN where an
        organ is in none; and ``scored_cases``.
    """
    job, scores, whole, count = make.job, list[Score](), True, 0
    for block in blocks:
        stored, count, whole = make.cases[block.case], count + 1, whole and block.whole
        volume = _volume(stored, block, job, make.folders)
        found = label_map(predictor.logits(volume), job.plan.labels)
        truth = np.asarray(segmentation_of(stored)[slices_of(block.box)]).astype(np.int16)
        truth = translate_labels(truth, job.plan.stored_labels, job.plan.labels)
        scores += score_case(block.case, found, truth, job.plan.labels, metrics=(), organs=_annotated(make, block.case))
    means = {organ: one.dice for organ, one in summary(scores).items()}
    if not whole:
        means = {organ: pooled_dice([score for score in scores if score.organ == organ]) for organ in means}
    each = {f"dice_{organ}": means.get(organ, math.nan) for organ in job.plan.labels.names}
    return {"mean_dice": nan_mean(each.values()), **each, "scored_cases": count}


def label_map(logits: torch.Tensor, labels: Labels) -> np.ndarray:
    """The internal label map ``(Z, Y, X)`` int16 of logits ``(K, Z, Y, X)``, slice by slice."""
    values = np.array([0, *internal_regions_class_order(labels)], np.int16)
    result = np.empty(tuple(logits.shape[1:]), np.int16)
    for z in range(logits.shape[1]):
        plane = logits[:, z].reshape(len(logits), -1).float()
        result[z] = values[winning_channels([plane], ["logits"], regions=labels.regions)].reshape(result.shape[1:])
    return result


def _annotated(make: BatchMaker, case: str) -> list[str] | None:
    """Names of the organs that were annotated in a case, None for all; of a union nobody knows which of its organs is where."""
    known = make.annotated[case]
    return None if known is None else [make.job.plan.labels.names[one] for one in known if isinstance(one, int)]


def _volume(stored: StoredCase, block: Block, job: RunRecord, folders: RunFolders) -> Volume:
    """A block as validation's predictor sees it; its candidate region is that of the whole volume."""
    configuration, box = job.configuration, slices_of(block.box)
    previous = None if folders.previous is None else read_array(folders.previous_of(block.case))[0].astype(np.int16)
    region = None
    if configuration.region is None:
        image = np.asarray(stored.image[(slice(None), *box)])
    else:
        image = np.asarray(stored.image[:])
        region = candidate_region_mask(configuration, image, previous, source=block.case)
        image = image[(slice(None), *box)]
    previous = previous[box] if previous is not None and configuration.sees_previous else None
    return Volume(image, previous, None if region is None else region[box], block.case)
