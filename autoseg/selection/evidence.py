"""The evidence of a choice between candidates: their scores on the same cases, paired tests, intervals, and the nested estimate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from ..evaluation.counts import nan_mean
from ..evaluation.masks import MaskPair
from ..evaluation.metrics import find_metric, higher_is_better_score, metric_function
from ..evaluation.statistics import bootstrap_interval, bootstrap_intervals, holm, per_group, wilcoxon
from ..schema import Candidate, CandidateComparison, Evidence, NestedEstimate

RIVAL = 0.05
"""Candidates whose difference to the chosen one has no p-value below this might have been chosen as well."""


@dataclass(frozen=True)
class Comparison:
    """The values of all candidates for one organ on the same cases, by which a rule decides.

    Patients, not cases, are the unit of means, intervals and tests: of one with several cases the mean over them counts, once.

    Attributes:
        candidates: The simplest first: fewest members, then fewest seconds, then the order that was given.
        values: Candidate name to its metric ``(cases,)``; NaN where the organ is absent from both reference and prediction.
        folds: Of each case the fold; empty where they are not known.
        patients: Of each case the patient; empty where each case is a patient.
        seconds: Candidate name to seconds of computation a case; those that were not measured are missing.
    """

    candidates: tuple[Candidate, ...]
    values: Mapping[str, np.ndarray]
    cases: tuple[str, ...]
    metric: str = "dice"
    folds: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0

    @cached_property
    def higher_is_better(self) -> dict[str, np.ndarray]:
        """Candidate name to ``(cases,)`` values of which higher is better, whatever the metric; NaN as in `values`."""
        return {name: higher_is_better_score(np.asarray(values, np.float64), self.metric) for name, values in self.values.items()}

    @cached_property
    def means(self) -> dict[str, float]:
        """Candidate name to the mean of its values over the patients; NaN where it has none."""
        return {name: nan_mean(self.of_patients(values)) for name, values in self.values.items()}

    @cached_property
    def mean_higher_is_better(self) -> dict[str, float]:
        """Candidate name to the mean of those; infinite without any: no case has the organ, and the candidate predicted none."""
        means = {name: nan_mean(self.of_patients(values)) for name, values in self.higher_is_better.items()}
        return {name: math.inf if math.isnan(mean) else mean for name, mean in means.items()}

    @property
    def n_patients(self) -> int:
        """Patients with a value of some candidate."""
        known = ~np.all([np.isnan(values) for values in self.higher_is_better.values()], axis=0)
        return len({name for name, has_value in zip(self.patients or self.cases, known, strict=True) if has_value})

    def cost(self, candidate: Candidate) -> float:
        """Seconds a case; where one of the candidates was not measured, the number of members instead, for all of them."""
        measured = all(one.name in self.seconds for one in self.candidates)
        return self.seconds[candidate.name] if measured else float(len(candidate.members))

    @cached_property
    def perfect(self) -> float:
        """The value, turned so that higher is better, of a prediction that agrees with its reference."""
        return higher_is_better_score(perfect_value(self.metric), self.metric)

    def by_case(self, one: Candidate, other: Candidate) -> np.ndarray:
        """Differences by which the first is better, ``(cases,)``; NaN where neither has a value.

        Where only one of both has none, the organ is absent and the other raised a false alarm: who is right there counts as perfect, or
        false alarms would cost nothing in a comparison of two.
        """
        first, second = self.higher_is_better[one.name], self.higher_is_better[other.name]
        alone = np.isnan(first) != np.isnan(second)
        if alone.any():
            first, second = (np.where(alone & np.isnan(values), self.perfect, values) for values in (first, second))
        return first - second

    def differences(self, one: Candidate, other: Candidate) -> np.ndarray:
        """Differences by which the first is better, ``(patients,)``: a patient's cases (`by_case`) averaged."""
        return self.of_patients(self.by_case(one, other))

    def of_patients(self, values: np.ndarray) -> np.ndarray:
        """Values of cases ``(cases,)`` as one number a patient, the mean over its cases: ``(patients,)``, NaN for one without any."""
        return per_group(values, self.patients or None)

    def p_value(self, one: Candidate, other: Candidate) -> float:
        """P-value of the paired test over patients; NaN where too few patients do (`statistics.wilcoxon`)."""
        return wilcoxon(self.differences(one, other))

    def intervals(self, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """95 % bootstrap intervals of the mean values, drawn over patients: lower and upper ends, ``(names,)`` each."""
        table = np.stack([self.of_patients(self.values[name]) for name in names], axis=1)
        return bootstrap_intervals(table, rng=np.random.default_rng(self.seed))

    def shown(self, value: float) -> str:
        """Writes a value of the metric with as many decimals as it deserves, and its unit."""
        unit = find_metric(self.metric).unit
        return f"{value:.2f} {unit}".rstrip() if unit or self.metric == "chaos" else f"{value:.4f}"

    def subset(self, inside: np.ndarray) -> Comparison:
        """The comparison on some of the cases, ``(cases,)`` bool."""
        places = np.flatnonzero(inside)

        def chosen(names: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(names[place] for place in places) if names else ()

        values = {name: np.asarray(one)[places] for name, one in self.values.items()}
        return replace(self, values=values, cases=chosen(self.cases), folds=chosen(self.folds), patients=chosen(self.patients))


def metric_title(metric: str) -> str:
    """Name of a metric in sentences."""
    return find_metric(metric).title or metric


def perfect_value(metric: str) -> float:
    """Computes a metric where prediction and reference agree: the value of an absent organ where nothing was predicted."""
    mask = np.ones((3, 3, 3), bool)
    pair, wanted = MaskPair.crop(mask, mask, (1.0, 1.0, 1.0)), find_metric(metric)
    return float(metric_function(wanted)(pair if wanted.needs == "masks" else pair.overlap))


def worthwhile(dice: float, metric: str, mean: float) -> float:
    """The difference in a metric that is worth as much as one in Dice.

    The same share of the perfect value, of a metric that has one; of distances and errors, whose perfect value is 0, five times that
    share of the mean, as a Dice of 0.8 has 0.2 left to gain.
    """
    perfect = abs(perfect_value(metric))
    return dice * perfect if perfect else 5 * dice * abs(mean)


Rule = Callable[[Comparison], tuple[Candidate, str]]
"""Decides for one organ: the winner among ``comparison.candidates``, and one sentence that says why."""


def evidence_for(comparison: Comparison, chosen: Candidate, rule: Rule) -> Evidence:
    """Compares every candidate with the chosen one, and estimates what to expect of the rule's choice on new images.

    `chosen` is what `rule` chose of all candidates on all cases.
    """
    names = [candidate.name for candidate in comparison.candidates]
    low, high = comparison.intervals(names)
    others = [candidate for candidate in comparison.candidates if candidate is not chosen]
    tests = [comparison.p_value(chosen, other) for other in others]
    p_values = {other.name: both for other, both in zip(others, zip(tests, holm(tests).tolist(), strict=True), strict=True)}
    compared = {}
    for candidate, lower, upper in zip(comparison.candidates, low.tolist(), high.tolist(), strict=True):
        name = candidate.name
        difference = nan_mean(comparison.differences(chosen, candidate)) if candidate is not chosen else math.nan
        compared[name] = CandidateComparison(comparison.means[name], lower, upper, difference, *p_values.get(name, (math.nan, math.nan)))
    return Evidence(chosen.name, len(comparison.cases), compared, nested_estimate(comparison, chosen, rule))


def nested_estimate(comparison: Comparison, chosen: Candidate, rule: Rule) -> NestedEstimate | None:
    """Estimates the score on new images: for every fold the rule chooses by the other folds' cases, and its choice is scored on this one's.

    The mean of the best of many candidates on the cases that it was chosen by is too good, by the luck of the draw (Varma & Simon, BMC
    Bioinformatics 2006). No case has a say in the choice that it is scored with here.

    The interval is the bootstrap's, widened for what the bootstrap cannot see: the folds' choices rest on overlapping cases. Nadeau &
    Bengio (Machine Learning 2003) add ``n_test / n_train`` to the variance of a cross-validated mean; it is added here to that part of
    the variance by which the chosen candidate and those that cannot be told apart from it differ, since only that part depends on the
    choice. Without such rivals the interval is the plain one.

    `chosen` is what the rule chose by all cases. None where the cases are of fewer than two folds.
    """
    folds = np.array(comparison.folds)
    names = sorted(set(comparison.folds))
    if len(names) < 2:
        return None
    values, winners = np.full(len(comparison.cases), np.nan), {}
    for name in names:
        held_out = folds == name
        winner, _ = rule(comparison.subset(~held_out))
        values[held_out] = comparison.values[winner.name][held_out]
        winners[name] = winner.name
    n_known, values = int(np.count_nonzero(~np.isnan(values))), comparison.of_patients(values)
    mean = nan_mean(values)
    low, high = bootstrap_interval(values, rng=np.random.default_rng(comparison.seed))
    if n_known:
        wider = math.sqrt(1 + _share_of_choice(comparison, chosen, values) / (len(names) - 1) * len(names))
        low, high = max(mean - wider * (mean - low), np.nanmin(values)), min(mean + wider * (high - mean), np.nanmax(values))
    return NestedEstimate(mean, float(low), float(high), comparison.means[chosen.name], n_known, winners)


def _share_of_choice(comparison: Comparison, chosen: Candidate, values: np.ndarray) -> float:
    """Share, 0..1, of the variance of `values` of patients by which the candidates differ that cannot be told apart from the chosen one.

    Two candidates whose values are independent differ with twice the variance of each: their share is 1.
    """
    others = [candidate for candidate in comparison.candidates if candidate is not chosen]
    rivals = [candidate for candidate in others if not comparison.p_value(chosen, candidate) < RIVAL]
    whole = _variance(values)
    if not rivals or not whole > 0:
        return 0.0
    parts = [_variance(comparison.differences(chosen, rival)) / 2 for rival in rivals]
    return min(1.0, float(np.nanmean(parts)) / whole) if not np.isnan(parts).all() else 0.0


def _variance(values: np.ndarray) -> float:
    """Variance of the values that are not NaN; NaN where there are fewer than two."""
    known = values[~np.isnan(values)]
    return float(known.var(ddof=1)) if len(known) > 1 else math.nan
