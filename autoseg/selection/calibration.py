"""Can probabilities be believed: the calibration error, and the temperature that makes it small.

A network that says 0.9 should be right nine times out of ten. Networks usually promise too much. Dividing their logits by one number, the
temperature, mends most of it and changes no winner (Guo et al., ICML 2017).

Everything here works on samples: ``shares (N, K)``, the probabilities of K outcomes at N voxels, and ``allowed (N, K)``, which of the
outcomes would be right: one of them where everything was annotated, more where some organs were not, as background may be any of these.
Regions that may overlap are K = 2 outcomes each, in and out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from ..schema import Calibration

BINS = 15
"""Of equal width between 0 and 1 (Guo et al.)."""

COLDEST, HOTTEST = 0.25, 10.0
"""Limits of the temperature: where no voxel is wrong, ever smaller ones would be ever better."""

LEAST = 0.5 / 255
"""What a probability counts as that was rounded to 0 in eight bits and turns out to be of what is there."""

CHUNK = 2**18
"""Samples whose logarithms are in memory at once."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Probabilities at some voxels, and what would have been right there.

    Attributes:
        shares: ``(N, K)`` float32, rows sum to 1.
        allowed: ``(N, K)`` bool, at least one a row.
    """

    shares: np.ndarray
    allowed: np.ndarray

    @classmethod
    def joined(cls, samples: Sequence[Sample]) -> Sample:
        """All of them as one."""
        return cls(np.concatenate([one.shares for one in samples]), np.concatenate([one.allowed for one in samples]))


def temperature_scaled(shares: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities after their logits were divided by `temperature`: ``p^(1/T)``, normalised; what is impossible stays so.

    Args:
        shares: ``(..., K)``, sums of 1 along the last axis.
        temperature: Above 0.
    """
    powers = np.power(shares, 1 / temperature, dtype=np.float32)
    return powers / np.maximum(powers.sum(axis=-1, keepdims=True), np.finfo(np.float32).tiny)


def negative_log_likelihood(sample: Sample, temperature: float) -> float:
    """Mean of ``-log`` of the probability of what is there, after the temperature."""
    total = 0.0
    for start in range(0, len(sample.shares), CHUNK):
        shares, allowed = sample.shares[start : start + CHUNK], sample.allowed[start : start + CHUNK]
        powers = np.power(shares, 1 / temperature, dtype=np.float32)
        right = (powers * allowed).sum(axis=1)
        # A probability of 0 in eight bits may be anything below LEAST.
        surplus = np.where(right == 0, np.float32(LEAST ** (1 / temperature)), np.float32(0))
        total -= float(np.log((right + surplus) / (powers.sum(axis=1) + surplus), dtype=np.float64).sum())
    return total / max(1, len(sample.shares))


def fit_temperature(sample: Sample) -> float:
    """The temperature between `COLDEST` and `HOTTEST` under which what is there was most likely; 1 without samples."""
    if not len(sample.shares):
        return 1.0

    def loss(logarithm: float) -> float:
        return negative_log_likelihood(sample, math.exp(logarithm))

    bounds = (math.log(COLDEST), math.log(HOTTEST))
    return float(math.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-3}).x))


def calibration_error(sample: Sample, *, temperature: float = 1.0) -> float:
    """Expected calibration error (Naeini et al., AAAI 2015): mean distance between confidence and share of right answers over `BINS` bins.

    Bins count by their number of samples; the confidence is the probability of the likeliest outcome.

    Returns:
        0..1; NaN without samples.
    """
    if not len(sample.shares):
        return math.nan
    confidence, right = _answers(sample, temperature)
    return _binned_error(confidence, right)


def calibrate(folds: Sequence[Sample]) -> Calibration:
    """The temperature of a model over all folds, and the calibration error without it and with it.

    The error with it is honest: each fold is judged with the temperature that was fitted on the others. Where there is only one fold,
    it is NaN.

    Args:
        folds: A sample of each fold's validation cases; empty ones do not count.
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
    kept = np.bincount(bins, weights=right, minlength=BINS)
    return float(np.abs(expected - kept).sum() / len(confidence))
