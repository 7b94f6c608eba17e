"""The temperature of each chosen model, from what it said about the cross-validation's cases."""

from __future__ import annotations

import logging
import zlib
from dataclasses import replace

import numpy as np
from scipy import ndimage

from ..inference.logits import Logits
from ..inference.sampled_probabilities import probabilities_at
from ..schema import Calibration, Case, Choice, Labels
from .calibration import Sample, calibrate
from .candidate_scores import SelectionTask, file_voxels, memory_for, run_all
from .held_out import HeldOut, check_same_grid, reference_of

log = logging.getLogger(__name__)

NEAR = 3
"""Voxels around the organs, of reference or prediction, that are looked at: further away all is background, and every model sure of it."""

MOST = 20_000
"""Voxels of a case that are looked at."""

FEWEST = 500
"""The same where there are very many cases."""

NUMBERS = 2**22
"""Probabilities of a model that are looked at over all cases; more would not move the temperature."""


def calibrated_choice(task: SelectionTask, choice: Choice) -> Choice:
    """The choice with what its members' probabilities are worth.

    Drawn from each case, always the same ones: voxels within `NEAR` of an organ, in the reference or in what a member predicted. Voxels
    with the ignore label are left out; organs that were not annotated in a case may be anywhere in its background.

    Args:
        task: Where the models lie, and the validation cases that the choice rests on.
        choice: Its members are calibrated; those whose probabilities are gone, or that have no held-out case, are left out.

    Raises:
        ValueError: A case cannot be looked at, as its files are damaged or do not belong together.
    """
    held_out = HeldOut(task.results, task.plan, choice)
    todo = [(fold, case) for fold, some in task.cases.items() if fold != "all" for case in some]
    jobs = {f"fold {fold}, {case.name}": (held_out, fold, case, len(todo)) for fold, case in todo}
    voxels = sum(file_voxels(task, fold, case) for fold, case in todo) * len(held_out.own)
    drawn = run_all(draw_samples, jobs, what="Calibrating", voxels=voxels, memory=memory_for(task, todo))
    samples: dict[str, dict[str, list[Sample]]] = {name: {} for name in held_out.own}
    for (_, fold, *_), of_case in zip(jobs.values(), drawn.values(), strict=True):
        for member, sample in of_case.items():
            samples[member].setdefault(fold, []).append(sample)
    found = {member: calibrate([Sample.joined(some) for some in of.values()]) for member, of in samples.items() if of}
    for member, calibration in found.items():
        log.info("%s: %s", member, _describe(calibration))
    return replace(choice, calibration=found)


def draw_samples(held_out: HeldOut, fold: str, case: Case, n_cases: int) -> dict[str, Sample]:
    """Member to what it said at the drawn voxels of a case, one of `n_cases`; runs in a process of its own where there is much to do."""
    predictions = held_out.kept(fold, case.name)
    if not predictions:
        return {}
    reference, _ = reference_of(case, held_out.plan.labels)
    ignore = held_out.plan.labels.internal_ignore
    shown = (reference > 0) & (reference != ignore) if ignore is not None else reference > 0
    for name in predictions:
        found = held_out.told(name, fold, case.name)
        if found is not None:
            check_same_grid(case, found, reference)
            shown |= found > 0
    channels = max(logits.array.shape[0] for logits in predictions.values())
    most = int(np.clip(NUMBERS // (channels * n_cases), FEWEST, MOST))
    points = _drawn(case.name, shown, reference != ignore if ignore is not None else None, most)
    truth = reference[tuple(points)]
    pairs = ((name, logits, held_out.own[name]) for name, logits in predictions.items())
    return {name: _sample(logits, points, _organs_at(truth, held_out.plan.labels, own), own, case) for name, logits, own in pairs}


def _drawn(case: str, shown: np.ndarray, known: np.ndarray | None, most: int) -> np.ndarray:
    """``(3, N)`` or ``(2, N)`` voxels near organs, at most `most`, the same at every call.

    Args:
        case: Its name, from which the random numbers come.
        shown: Where reference or predictions have an organ, bool.
        known: Where the reference says something, bool; None means everywhere.
        most: Number of voxels.
    """
    boxes = ndimage.find_objects(shown.astype(np.uint8))
    if not boxes:
        return np.empty((shown.ndim, 0), np.int64)
    box = tuple(slice(max(0, side.start - NEAR), side.stop + NEAR) for side in boxes[0])
    near = ndimage.binary_dilation(shown[box], iterations=NEAR)
    if known is not None:
        near &= known[box]
    places = np.flatnonzero(near)
    rng = np.random.default_rng([zlib.crc32(case.encode()), 15])
    if len(places) > most:
        places = places[np.sort(rng.choice(len(places), most, replace=False))]
    return np.stack(np.unravel_index(places, near.shape)) + np.array([[side.start] for side in box])


def _organs_at(truth: np.ndarray, labels: Labels, own: Labels) -> np.ndarray:
    """``(N, organs)`` bool: which of a model's organs is at each voxel, whose value is one of the dataset's."""
    members = dict(zip(labels.names, labels.internal_members, strict=True))
    return np.stack([np.isin(truth, members[name]) for name in own.names], axis=1)


def _sample(logits: Logits, points: np.ndarray, organs: np.ndarray, own: Labels, case: Case) -> Sample:
    """What a model said at voxels, beside what would have been right."""
    shares = probabilities_at([logits], points, own)
    known = np.array([case.annotated is None or name in case.annotated for name in own.names])
    if own.regions:
        inside, truth = shares[:, known].reshape(-1), organs[:, known].reshape(-1)
        return Sample(np.stack([1 - inside, inside], axis=1), np.stack([~truth, truth], axis=1))
    background = ~organs.any(axis=1, keepdims=True)
    allowed = np.concatenate([background, organs | (background & ~known)], axis=1)
    return Sample(shares / np.maximum(shares.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny), allowed)


def _describe(calibration: Calibration) -> str:
    errors = f"calibration error {calibration.error_before:.4f}"
    if calibration.error_after == calibration.error_after:
        errors += f", {calibration.error_after:.4f} with the temperature of the other folds"
    return f"temperature {calibration.temperature:.2f}; {errors}"
