"""Which post-processing an organ gets: proposals from what the training labels look like, decided on the cross-validation.

The rule, for every organ by itself: each proposal is compared with leaving the predictions as they are, case by case (patient by patient
where cases belong together). A proposal is kept where the mean gain is above 0 and

- six or more cases change: the paired test says p < 0.05, corrected for the number of different proposals, and no case loses more than the
  changed ones gain on average;
- fewer change, too few for any test: no case loses and at least one gains.

Of those kept the one that gains most is taken; among equals the simplest.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..evaluation.metrics import higher_is_better_score
from ..evaluation.statistics import SMALLEST_TEST, holm, per_group, wilcoxon
from ..inference.postprocessing import describe
from ..schema import PostProcessing

PART = 0.01
"""Of an organ's volume in a case: components that are smaller are specks of the annotation and do not count as parts of the organ."""

SMALLEST_SHARE = 0.5
"""Components below this share of the smallest part of the organ in any training label are taken for false alarms."""

QUANTILE = 0.95
"""Of the training labels, as many have no more components than the larger proposal keeps."""

LEVEL = 0.05
"""Of the paired test."""

SAME = 1e-9
"""Differences below this are rounding."""


@dataclass(frozen=True)
class _Verdict:
    postprocessing: PostProcessing
    gain: float
    p_value: float
    better: int
    worse: int


def parts_of(sizes_mm3: Sequence[float]) -> tuple[float, ...]:
    """The volumes of an organ's components in one case that count as parts of it, largest first."""
    total = sum(sizes_mm3)
    return tuple(sorted((size for size in sizes_mm3 if size >= PART * total), reverse=True))


def proposals(parts_mm3: Sequence[Sequence[float]]) -> tuple[PostProcessing, ...]:
    """What to try for an organ, simplest first.

    Args:
        parts_mm3: For each training label that has the organ the volumes of its parts (`parts_of`).

    Returns:
        Holes filled; small components removed; as many components kept as most labels have, and as all but the strangest have; both of
        these also with holes filled. Empty where no label has the organ.
    """
    known = [parts for parts in parts_mm3 if len(parts)]
    if not known:
        return ()
    counts = Counter(len(parts) for parts in known)
    usual = max(counts, key=lambda count: (counts[count], -count))
    most = int(np.quantile([len(parts) for parts in known], QUANTILE, method="inverted_cdf"))
    smallest = SMALLEST_SHARE * min(min(parts) for parts in known)
    steps = [PostProcessing(components=count) for count in dict.fromkeys((usual, most))] + [PostProcessing(min_volume_mm3=smallest)]
    return (PostProcessing(fill_holes=True), *steps, *(replace(step, fill_holes=True) for step in steps))


def select_postprocessing(
    before: np.ndarray,
    after: Mapping[PostProcessing, np.ndarray],
    *,
    metric: str = "dice",
    perfect: float = 1.0,
    groups: Sequence[Hashable] | None = None,
) -> PostProcessing | None:
    """The post-processing that helps an organ, by the rule of this module.

    Args:
        before: ``(cases,)`` the metric without post-processing; NaN where the organ is absent from prediction and reference.
        after: Proposal to the same with it, simplest proposal first.
        metric: Its name, which says whether high or low values are good.
        perfect: Its value for a prediction that agrees: what an absent organ counts as once its false alarm is removed.
        groups: Of each case the patient.

    Returns:
        The proposal with its reason in `Cleaning.why`; None where none helps.
    """
    if not after:
        return None
    gains = {one: _gains(before, values, metric, perfect, groups) for one, values in after.items()}
    different = {gain.round(9).tobytes(): one for one, gain in reversed(gains.items()) if np.any(np.abs(gain) > SAME)}
    tried = [one for one in gains if one in different.values()]  # of proposals with the same effect the simplest
    corrected = holm([wilcoxon(gains[one]) for one in tried])
    verdicts = [verdict for one, p in zip(tried, corrected, strict=True) if (verdict := _verdict(one, gains[one], float(p))) is not None]
    if not verdicts:
        return None
    best = max(verdicts, key=lambda verdict: verdict.gain)
    winner = next(verdict for verdict in verdicts if best.gain - verdict.gain <= SAME)
    return replace(winner.postprocessing, why=_sentence(winner, before, after[winner.postprocessing], metric, perfect, len(tried)))


def _gains(before: np.ndarray, after: np.ndarray, metric: str, perfect: float, groups: Sequence[Hashable] | None) -> np.ndarray:
    """How much better each patient is, ``(patients,)``; 0 where nothing changed."""
    was, now = _filled(before, perfect), _filled(after, perfect)
    return per_group(higher_is_better_score(now, metric) - higher_is_better_score(was, metric), groups)


def _filled(values: np.ndarray, perfect: float) -> np.ndarray:
    array = np.asarray(values, np.float64)
    return np.where(np.isnan(array), perfect, array)


def _verdict(postprocessing: PostProcessing, gains: np.ndarray, p_value: float) -> _Verdict | None:
    changed = gains[np.abs(gains) > SAME]
    gain, better, worse = float(gains.mean()), int((changed > 0).sum()), int((changed < 0).sum())
    if gain <= 0:
        return None
    if len(changed) < SMALLEST_TEST:
        accepted = worse == 0
    else:
        accepted = p_value < LEVEL and -changed.min() <= changed.mean()
    return _Verdict(postprocessing, gain, p_value, better, worse) if accepted else None


def _sentence(verdict: _Verdict, before: np.ndarray, after: np.ndarray, metric: str, perfect: float, tried: int) -> str:
    there = ~np.isnan(before)
    means = (float(_filled(values, perfect)[there].mean()) for values in (before, after))
    change = " -> ".join(f"{mean:.4f}" for mean in means)
    support = "too few change for a test" if math.isnan(verdict.p_value) else f"p = {verdict.p_value:.2g} corrected for {tried} tried"
    cases = f"{there.sum()} {'case' if there.sum() == 1 else 'cases'}"
    counts = f"{verdict.better} better and {verdict.worse} worse"
    return f"{describe(verdict.postprocessing)}: mean {metric} {change} over {cases}, {counts}, {support}"
