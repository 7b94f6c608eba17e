"""Paired tests, correction for multiple tests, and bootstrap intervals.

Cases of one patient are not independent (two time points, a case and its copy). `groups` says which belong together: the bootstrap then
draws patients, and `per_group` gives the test one number a patient.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
import scipy  # its `stats`, which takes half a second to load, when it is used first

SMALLEST_TEST = 6
"""Pairs that must differ for a two-sided test: with five even five wins out of five have p = 0.0625."""

SMALLEST_ONE_SIDED_TEST = 5
"""As `SMALLEST_TEST` for a one-sided test: five wins out of five have p = 0.031, four out of four 0.0625."""

EXACT = 50
"""Up to so many pairs the distribution of the rank sum is counted out; beyond, the normal approximation is as good."""

DECIMALS = 10
"""Differences are rounded to so many: noise of the arithmetic shall neither break a tie nor decide a test."""


def wilcoxon(differences: Sequence[float] | np.ndarray, *, one_sided: bool = False) -> float:
    """P-value of the paired signed-rank test (Wilcoxon, Biometrics Bulletin 1945).

    Pairs that are equal are dropped, as in Wilcoxon's paper, and so are NaN. Equal differences share their mean rank. Up to `EXACT` pairs
    the p-value is exact, also with shared ranks: it counts all signs that the ranks could have had. It is NaN where fewer than
    `SMALLEST_TEST` (`SMALLEST_ONE_SIDED_TEST`) pairs differ, since no p-value below 0.05 is possible there.

    Args:
        differences: ``(pairs,)``.
        one_sided: Tests against differences above 0 alone; else against differences of either sign.
    """
    values = np.round(np.asarray(differences, np.float64), DECIMALS)
    values = values[~np.isnan(values) & (values != 0)]
    if len(values) < (SMALLEST_ONE_SIDED_TEST if one_sided else SMALLEST_TEST):
        return math.nan
    if len(values) > EXACT:
        alternative = "greater" if one_sided else "two-sided"
        return float(scipy.stats.wilcoxon(values, zero_method="wilcox", method="approx", alternative=alternative).pvalue)
    # Mean ranks are multiples of one half: doubled, the sums can be counted in an array.
    ranks = np.rint(2 * scipy.stats.rankdata(np.abs(values))).astype(np.int64)
    ways = np.zeros(int(ranks.sum()) + 1)
    ways[0] = 1
    for rank in ranks:
        ways[rank:] += ways[:-rank].copy()
    positive = int(ranks[values > 0].sum())
    negative = int(ranks.sum()) - positive
    if one_sided:
        return float(ways[: negative + 1].sum() / 2.0 ** len(ranks))
    return float(min(1.0, 2 * ways[: min(positive, negative) + 1].sum() / 2.0 ** len(ranks)))


def paired_t(differences: Sequence[float] | np.ndarray) -> float:
    """Two-sided p-value of the paired t-test (Student, Biometrika 1908), which takes differences for normally distributed.

    NaN is left out. It is NaN for fewer than two pairs, and where all differences are the same, for lack of a variance.
    """
    values = np.round(np.asarray(differences, np.float64), DECIMALS)
    values = values[~np.isnan(values)]
    return math.nan if len(values) < 2 or np.ptp(values) == 0 else float(scipy.stats.ttest_1samp(values, 0.0).pvalue)


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """P-values corrected for their number, the step-down way (Holm, Scandinavian Journal of Statistics 1979).

    The smallest level at which each test is significant while the chance of any false alarm among them stays below that. NaN is no test:
    it does not count, and stays NaN.
    """
    raw = np.asarray(p_values, np.float64)
    corrected = np.full(raw.shape, np.nan)
    known = np.flatnonzero(~np.isnan(raw))
    order = known[np.argsort(raw[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(factors * raw[order]))
    return corrected


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    *,
    rng: np.random.Generator,
    n: int = 2000,
    level: float = 0.95,
    groups: Sequence[Hashable] | None = None,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over cases (Efron, Annals of Statistics 1979).

    Args:
        values: ``(cases,)``; NaN is left out.
        rng: Where the draws come from.
        n: Number of draws.
        level: Share of the draws that lie in the interval.
        groups: Of each case the patient; patients are drawn, with all their cases. None means every case is a patient.

    Returns:
        Lower and upper end, in the unit of the values; NaN where fewer than two patients have a value.

    Raises:
        ValueError: `groups` has another length than `values`.
    """
    low, high = bootstrap_intervals(np.asarray(values, np.float64)[:, None], rng=rng, n=n, level=level, groups=groups)
    return float(low[0]), float(high[0])


def bootstrap_intervals(
    table: np.ndarray, *, rng: np.random.Generator, n: int = 2000, level: float = 0.95, groups: Sequence[Hashable] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """As `bootstrap_interval`, for several columns of the same cases, with the same draws for all of them.

    Args:
        table: ``(cases, columns)``; the other arguments are those of `bootstrap_interval`.

    Returns:
        Lower and upper ends, ``(columns,)`` each.

    Raises:
        ValueError: `groups` has another length than the table.
    """
    members = _membership(len(table), groups)
    known = ~np.isnan(table)
    members = members[(members @ known).any(axis=1)]
    low, high = np.full((2, table.shape[1]), np.nan)
    if len(members) < 2:
        return low, high
    sums, counts = members @ np.where(known, table, 0.0), members @ known.astype(np.float64)
    drawn = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=n).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = drawn @ sums / (drawn @ counts)
    tail = 100 * (1 - level) / 2
    enough = np.flatnonzero((counts > 0).sum(axis=0) >= 2)
    if len(enough):
        low[enough], high[enough] = np.nanpercentile(means[:, enough], [tail, 100 - tail], axis=0)
    return low, high


def per_group(values: Sequence[float] | np.ndarray, groups: Sequence[Hashable] | None) -> np.ndarray:
    """One number a patient, the mean over its cases, in the order in which patients first appear; without `groups` the values as they are.

    NaN is left out; a patient without another value is NaN.

    Raises:
        ValueError: `groups` has another length than `values`.
    """
    array = np.asarray(values, np.float64)
    if groups is None:
        return array
    members, known = _membership(len(array), groups), ~np.isnan(array)
    with np.errstate(invalid="ignore"):
        return members @ np.where(known, array, 0.0) / (members @ known)


def _membership(n_cases: int, groups: Sequence[Hashable] | None) -> np.ndarray:
    """``(patients, cases)``, 1 where a case is the patient's."""
    if groups is None:
        return np.eye(n_cases)
    if len(groups) != n_cases:
        raise ValueError(f"groups: expected one patient a case, {n_cases}, got {len(groups)}")
    number = {name: index for index, name in enumerate(dict.fromkeys(groups))}
    members = np.zeros((len(number), n_cases))
    members[[number[name] for name in groups], np.arange(n_cases)] = 1
    return members
