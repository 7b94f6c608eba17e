"""Calibration of the chosen models' probabilities: the temperature of each, and the calibration error with it and without.

A network that says 0.9 should be right nine times out of ten; most are too confident. Dividing their logits by one number, the temperature,
mends most of it and changes no winner (Guo et al., ICML 2017).

Temperatures are fitted to samples: ``shares (N, K)``, the probabilities of K outcomes at N voxels, and ``allowed (N, K)``, which of the
outcomes would be right: one of them where everything was annotated, more where some organs were not, as background may be any of these.
Regions that may overlap are K = 2 outcomes each, in and out.
"""

from __future__ import annotations

import logging
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy import ndimage

from ..data.annotations import members_of
from ..data.references import reference_of
from ..inference.lazy_logits import complete_shares
from ..inference.logits import Logits
from ..inference.sampled_probabilities import probabilities_at
from ..schema import Calibration, Case, Choice, Labels
from .cross_validation import CrossValidation, for_each_case
from .held_out import HeldOut, check_same_grid

log = logging.getLogger(__name__)

BINS = 15
"""Bins of equal width between 0 and 1 (Guo et al.)."""

COLDEST, HOTTEST = 0.25, 10.0
"""Limits of the temperature: where no voxel is wrong, ever smaller ones would be ever better."""

LEAST = 0.5 / 255
"""Counts as the probability of the right outcome where it was stored as 0."""

CHUNK = 2**18
"""Samples whose logarithms are in memory at once."""

NEAR = 3
"""Voxels around the organs, of reference or prediction, that are sampled: further away all is background, and every model sure of it."""

MOST = 20_000
"""Voxels of a case that are sampled."""

FEWEST = 500
"""Voxels of a case that are sampled where there are very many cases."""

NUMBERS = 2**22
"""Probabilities of a model that are sampled over all cases; more would not move the temperature."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Probabilities at some voxels, ``shares (N, K)`` float32, and the outcomes that would be right, ``allowed (N, K)`` bool."""

    shares: np.ndarray
    allowed: np.ndarray

    @classmethod
    def joined(cls, samples: Sequence[Sample]) -> Sample:
        """Concatenates samples."""
        return cls(np.concatenate([one.shares for one in samples]), np.concatenate([one.allowed for one in samples]))


def calibrated_choice(cross_validation: CrossValidation, choice: Choice) -> Choice:
    """Adds the calibration of every member to a choice.

    Drawn from each case, always the same ones: voxels within `NEAR` of an organ, in the reference or in what a member predicted. Voxels
    with the ignore label are left out; organs that were not annotated in a case may be anywhere in its background.

    Members whose probabilities are gone, or that have no held-out case, get none.

    Raises:
        ValueError: A case cannot be sampled, as its files are damaged or do not belong together.
    """
    held_out = HeldOut(cross_validation.results, cross_validation.plan, choice)
    function = partial(draw_samples, held_out, len(cross_validation.held_out))
    drawn = for_each_case(function, cross_validation, what="Calibrating", models=len(held_out.member_labels))
    samples: dict[str, dict[str, list[Sample]]] = {name: {} for name in held_out.member_labels}
    for (fold, _), of_case in drawn.items():
        for member, sample in of_case.items():
            samples[member].setdefault(fold, []).append(sample)
    found = {member: calibrate([Sample.joined(some) for some in folds.values()]) for member, folds in samples.items() if folds}
    for member, calibration in found.items():
        log.info("%s: %s", member, _describe(calibration))
    return replace(choice, calibration=found)


def draw_samples(held_out: HeldOut, n_cases: int, fold: str, case: Case) -> dict[str, Sample]:
    """Samples each member's probabilities in a case, one of `n_cases`; runs in a process of its own where there is much to do."""
    predictions = held_out.logits(fold, case.name)
    if not predictions:
        return {}
    labels = held_out.plan.labels
    reference, _ = reference_of(case, labels)
    ignore = labels.internal_ignore
    organs = (reference > 0) & (reference != ignore) if ignore is not None else reference > 0
    for name in predictions:
        label_map = held_out.predicted_labels(name, fold, case.name)
        if label_map is not None:
            check_same_grid(case, label_map, reference)
            organs |= label_map > 0
    channels = max(logits.array.shape[0] for logits in predictions.values())
    most = int(np.clip(NUMBERS // (channels * n_cases), FEWEST, MOST))
    points = _drawn(case.name, organs, reference != ignore if ignore is not None else None, most)
    truth = reference[tuple(points)]
    found = {}
    for name, logits in predictions.items():
        found[name] = _sample(logits, points, truth, labels, held_out.member_labels[name], case)
    return found


def _drawn(case: str, organs: np.ndarray, known: np.ndarray | None, most: int) -> np.ndarray:
    """Draws at most `most` known voxels near organs, ``(3, N)`` or ``(2, N)``, the same at every call for a case; None: all are known."""
    boxes = ndimage.find_objects(organs.astype(np.uint8))
    if not boxes:
        return np.empty((organs.ndim, 0), np.int64)
    box = tuple(slice(max(0, side.start - NEAR), side.stop + NEAR) for side in boxes[0])
    near = ndimage.binary_dilation(organs[box], iterations=NEAR)
    if known is not None:
        near &= known[box]
    places = np.flatnonzero(near)
    rng = np.random.default_rng([zlib.crc32(case.encode()), 15])
    if len(places) > most:
        places = places[np.sort(rng.choice(len(places), most, replace=False))]
    return np.stack(np.unravel_index(places, near.shape)) + np.array([[side.start] for side in box])


def _sample(logits: Logits, points: np.ndarray, truth: np.ndarray, of: Labels, labels: Labels, case: Case) -> Sample:
    """A model's probabilities at voxels, beside what would have been right; `truth` are the internal values of the labels `of`."""
    shares = probabilities_at([complete_shares(logits, labels)], points, labels)
    values = _possible_values(of, case)
    organs = np.stack([np.isin(truth, values.get(organ, ())) for organ in labels.names], axis=1)
    if labels.regions:
        known = [case.annotated is None or name in case.annotated for name in labels.names]
        inside, is_inside = shares[:, known].reshape(-1), organs[:, known].reshape(-1)
        return Sample(np.stack([1 - inside, inside], axis=1), np.stack([~is_inside, is_inside], axis=1))
    total = np.maximum(shares.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return Sample(shares / total, allowed_outcomes(organs, labels.names, case.annotated))


def _possible_values(labels: Labels, case: Case) -> dict[str, tuple[int, ...]]:
    """Organ to the internal values that may stand for it in a case's label map: of an organ of a union those of all of them."""
    values = dict(zip(labels.names, labels.internal_members, strict=True))
    unions = [one for entry in case.annotated or () if len(one := members_of(entry, labels.names)) > 1]
    return values | {organ: tuple(value for one in union for value in values.get(one, ())) for union in unions for organ in union}


def allowed_outcomes(organs: np.ndarray, names: Sequence[str], annotated: Sequence[str] | None) -> np.ndarray:
    """Which outcomes of a softmax would be right at some voxels.

    Args:
        organs: ``(N, K)`` bool: which of a model's organs `names` a voxel may be, as far as it shows an organ.
        annotated: `Case.annotated`.

    Returns:
        ``(N, 1 + K)`` bool, background first: in the background also organs that nobody annotated, and in a union of which the model has
        only some organs also the background.
    """
    unions = [set(one) for entry in annotated or () if len(one := members_of(entry, names)) > 1]
    known = [annotated is None or name in annotated or any(name in one and one <= set(names) for one in unions) for name in names]
    in_part = [any(name in one and not one <= set(names) for one in unions) for name in names]
    background = ~organs.any(axis=1, keepdims=True)
    possible = background | organs[:, in_part].any(axis=1, keepdims=True)
    return np.concatenate([possible, organs | (background & ~np.array(known))], axis=1)


def _describe(calibration: Calibration) -> str:
    errors = f"calibration error {calibration.error_before:.4f}"
    if not math.isnan(calibration.error_after):
        errors += f", {calibration.error_after:.4f} with the temperature of the other folds"
    return f"temperature {calibration.temperature:.2f}; {errors}"


def temperature_scaled(shares: np.ndarray, temperature: float) -> np.ndarray:
    """Divides the logits of probabilities ``(..., K)`` by `temperature`: ``p^(1/T)``, normalised; a probability of 0 stays 0."""
    powers = np.power(shares, 1 / temperature, dtype=np.float32)
    return powers / np.maximum(powers.sum(axis=-1, keepdims=True), np.finfo(np.float32).tiny)


def negative_log_likelihood(sample: Sample, temperature: float) -> float:
    """Mean of ``-log`` of the probability of the right outcomes, after the temperature."""
    total = 0.0
    for start in range(0, len(sample.shares), CHUNK):
        shares, allowed = sample.shares[start : start + CHUNK], sample.allowed[start : start + CHUNK]
        powers = np.power(shares, 1 / temperature, dtype=np.float32)
        right = (powers * allowed).sum(axis=1)
        # A stored probability of 0 may be anything below LEAST.
        surplus = np.where(right == 0, np.float32(LEAST ** (1 / temperature)), np.float32(0))
        total -= float(np.log((right + surplus) / (powers.sum(axis=1) + surplus), dtype=np.float64).sum())
    return total / max(1, len(sample.shares))


def fit_temperature(sample: Sample) -> float:
    """Finds the temperature between `COLDEST` and `HOTTEST` that makes the right outcomes most likely; 1 without samples."""
    if not len(sample.shares):
        return 1.0
    from scipy.optimize import minimize_scalar  # takes a while to load, and prediction needs none

    limits = {"bounds": (math.log(COLDEST), math.log(HOTTEST)), "method": "bounded", "options": {"xatol": 1e-3}}
    return float(math.exp(minimize_scalar(lambda logarithm: negative_log_likelihood(sample, math.exp(logarithm)), **limits).x))


def calibration_error(sample: Sample, *, temperature: float = 1.0) -> float:
    """Expected calibration error, 0..1 (Naeini et al., AAAI 2015): mean distance between confidence and share of right answers over bins.

    The `BINS` bins count by their number of samples; the confidence is the probability of the likeliest outcome. NaN without samples.
    """
    return _binned_error(*_answers(sample, temperature)) if len(sample.shares) else math.nan


def calibrate(folds: Sequence[Sample]) -> Calibration:
    """Fits the temperature of a model over all folds, and measures the calibration error without it and with it.

    Each fold is judged with the temperature that was fitted on the others; where there is only one fold with samples, the error with it
    is NaN.
    """
    known = [fold for fold in folds if len(fold.shares)]
    if not known:
        return Calibration()
    together = Sample.joined(known)
    after = math.nan
    if len(known) > 1:
        others = [Sample.joined([one for one in known if one is not fold]) for fold in known]
        answers = [_answers(fold, fit_temperature(rest)) for fold, rest in zip(known, others, strict=True)]
        after = _binned_error(*(np.concatenate(part) for part in zip(*answers, strict=True)))
    return Calibration(fit_temperature(together), calibration_error(together), after)


def _answers(sample: Sample, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Confidence of the likeliest outcome and whether it is right, ``(N,)`` each."""
    shares = sample.shares if temperature == 1 else temperature_scaled(sample.shares, temperature)
    winner = shares.argmax(axis=1)[:, None]
    return np.take_along_axis(shares, winner, 1)[:, 0], np.take_along_axis(sample.allowed, winner, 1)[:, 0]


def _binned_error(confidence: np.ndarray, right: np.ndarray) -> float:
    # The upper edge of a bin belongs to it, so that a probability of 1 is in the last one.
    bins = np.clip(np.ceil(confidence.astype(np.float64) * BINS).astype(int) - 1, 0, BINS - 1)
    expected = np.bincount(bins, weights=confidence, minlength=BINS)
    observed = np.bincount(bins, weights=right, minlength=BINS)
    return float(np.abs(expected - observed).sum() / len(confidence))
