"""Paired comparison of two predictions of the same cases, organ by organ, with tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy  # its `stats`, which takes half a second to load, when it is used first

from ..runtime.text_table import aligned, wrapped
from ..schema import Score
from .metrics import find_metric, value_of
from .statistics import DECIMALS, bootstrap_interval, holm, paired_t, per_group, wilcoxon
from .tables import caption, number, with_unit

COMPARED_METRICS = ("dice", "hd95_surface", "assd_surface", "nsd_surface")
"""Metrics that are compared by default."""

LEVEL = 0.05
"""A corrected p-value below this is called a difference."""


@dataclass(frozen=True)
class Difference:
    """One organ and metric in two predictions of the same cases.

    Attributes:
        cases: In which both have a value. A false alarm where the other rightly finds nothing is in the means of a table, but not here.
        first: Mean of the first prediction over the patients of these cases, of each the mean over its cases.
        difference: Second minus first, mean over the patients; `low` and `high` are the ends of its 95 % bootstrap interval.
        p_value: Of Wilcoxon's signed-rank test over patients; NaN where too few differ.
        corrected: The same, corrected for the number of organs (Holm 1979).
        t_p_value: Of Student's paired t-test; NaN where there are fewer than two patients, or all differ alike.
        t_corrected: The same, corrected for the number of organs.
        patients: Of these cases.
        better: ``first`` or ``second`` where the corrected p-value is below `LEVEL` and the mean and the test's ranks favour the same; else
            empty. A signed error and what only describes a prediction have no better one.
    """

    organ: str
    metric: str
    cases: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    p_value: float = math.nan
    corrected: float = math.nan
    better: str = ""
    t_p_value: float = math.nan
    t_corrected: float = math.nan
    patients: int = 0


def compare_scores(
    first: Sequence[Score],
    second: Sequence[Score],
    *,
    metrics: Sequence[str] = COMPARED_METRICS,
    seed: int = 0,
    patients: Mapping[str, str] | None = None,
) -> list[Difference]:
    """Compares two predictions by their scores of the same cases.

    Args:
        first: Of one prediction, as `second` of the other.
        metrics: Names in `METRICS`, which the scores must hold.
        seed: Of the bootstrap.
        patients: Case to patient: those of one patient are not independent. Cases that are missing are a patient each.

    Returns:
        For each metric one difference an organ, organs in the order of the first prediction's scores.

    Raises:
        ValueError: The scores do not hold a metric.
    """
    other = {(score.case, score.organ): score for score in second}
    result = []
    for metric in metrics:
        rng = np.random.default_rng(seed)
        found = []
        for organ in dict.fromkeys(score.organ for score in first):
            pairs = [(score, other[score.case, organ]) for score in first if score.organ == organ and (score.case, organ) in other]
            found.append(_difference(organ, metric, pairs, rng=rng, patients=patients or {}))
        corrected, of_t = holm([one.p_value for one in found]), holm([one.t_p_value for one in found])
        for one, value, t_value in zip(found, corrected, of_t, strict=True):
            better = one.better if value < LEVEL else ""
            result.append(replace(one, corrected=float(value), t_corrected=float(t_value), better=better))
    return result


def comparison_table(
    differences: Sequence[Difference],
    names: tuple[str, str],
    *,
    tolerance_mm: float | Mapping[str, float] | None = None,
    metrics: Sequence[str] | None = None,
    width: int | None = None,
    patients: str = "",
) -> str:
    """Differences as text, a block a metric: both means, the difference with its interval, p-values, and which is better.

    Args:
        names: Of the two predictions.
        tolerance_mm: The one that the scores were made with, for the caption.
        metrics: Only these blocks, and of the tests the corrected one; None: all of both.
        width: Characters a line; None: that of the terminal.
        patients: How they are known, for the caption.
    """
    everything, shown = metrics is None, [one for one in differences if metrics is None or one.metric in metrics]
    tests = ["p", "p (Holm)", "t: p", "p (Holm)"] if everything else ["p (Holm)"]
    grouped = any(one.patients < one.cases for one in shown)
    unit = f"patients ({patients})" if grouped and patients else "patients" if grouped else "cases"
    lines = [f"A = {names[0]}", f"B = {names[1]}"]
    for metric in dict.fromkeys(one.metric for one in shown):
        rows = [[with_unit(metric), "patients" if grouped else "cases", "A", "B", "B - A", "95 % interval", *tests, "better"]]
        rows += [_row(one, everything=everything, grouped=grouped) for one in shown if one.metric == metric]
        lines += ["", aligned(rows, width)]
    organs, known = list(dict.fromkeys(one.organ for one in shown)), list(dict.fromkeys(one.metric for one in shown))
    student = ", t: p by Student's paired t-test" if everything else ""
    about = (
        f"Paired over the {unit}; interval by bootstrap, p by Wilcoxon's signed-rank test (- where too few differ){student}, "
        f"corrected for {len(organs)} organs; better: where Wilcoxon's corrected p is below {LEVEL:g} and mean and ranks agree."
    )
    return "\n".join([*lines, "", *(wrapped(line, width) for line in [about, *caption(known, organs, tolerance_mm)])])


def _difference(
    organ: str, metric: str, pairs: Sequence[tuple[Score, Score]], *, rng: np.random.Generator, patients: Mapping[str, str]
) -> Difference:
    rows = [(first.case, value_of(first, metric), value_of(second, metric)) for first, second in pairs]
    known = [row for row in rows if not (math.isnan(row[1]) or math.isnan(row[2]))]
    if not known:
        return Difference(organ, metric, 0, *(math.nan,) * 5)
    groups, values = [patients.get(case, case) for case, *_ in known], np.array([both for _, *both in known])
    of_first, of_second = (per_group(column, groups) for column in values.T)
    apart = of_second - of_first
    low, high = bootstrap_interval(apart, rng=rng)
    mean = float(apart.mean())
    means, tests = (float(of_first.mean()), float(of_second.mean())), (wilcoxon(apart), paired_t(apart))
    favoured = _favoured(apart, mean, metric)
    found = Difference(organ, metric, len(known), *means, mean, low, high, tests[0], better=favoured, t_p_value=tests[1])
    return replace(found, patients=len(apart))


def _favoured(apart: np.ndarray, mean: float, metric: str) -> str:
    """What the mean difference and the test's ranks both favour: a few large differences can turn the mean against all the others."""
    known = np.round(apart, DECIMALS)
    known = known[known != 0]
    direction = {"higher": 1, "lower": -1}.get(find_metric(metric).better, 0)
    ranks = float(np.sign(known) @ scipy.stats.rankdata(np.abs(known)))
    if direction * ranks * mean == 0 or (ranks > 0) != (mean > 0):
        return ""
    return "second" if direction * mean > 0 else "first"


def _row(result: Difference, *, everything: bool, grouped: bool) -> list[str]:
    better = {"first": "A", "second": "B"}.get(result.better, "")
    means = [number(value, result.metric) for value in (result.first, result.second)]
    sign = "+" if result.difference > 0 else ""
    interval = f"[{number(result.low, result.metric)}, {number(result.high, result.metric)}]" if not math.isnan(result.low) else "-"
    p_values = (result.p_value, result.corrected, result.t_p_value, result.t_corrected) if everything else (result.corrected,)
    tests = ["-" if math.isnan(value) else f"{value:.4f}" for value in p_values]
    count = str(result.patients if grouped else result.cases)
    return [result.organ, count, *means, sign + number(result.difference, result.metric), interval, *tests, better]
