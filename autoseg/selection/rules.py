"""The rules by which an organ's candidate is chosen: functions of a `Comparison` that return the winner and a sentence with the numbers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from ..evaluation.counts import nan_mean
from ..evaluation.statistics import SMALLEST_TEST, holm
from ..runtime.shown_text import number_of
from ..schema import Candidate
from .evidence import Comparison, metric_title, worthwhile

TIE = 1e-6
"""Mean values closer than this are equal."""

LEVEL = 0.05
"""A corrected p-value below this is support."""

LEAD = 0.02
"""Lead in Dice, or as much of another metric (`worthwhile`), that replaces the simplest candidate where a test is impossible."""


def best_mean(comparison: Comparison) -> tuple[Candidate, str]:
    """Chooses the best mean; among equals the simplest.

    A candidate without any value (NaN) is right everywhere: no case has the organ, and it predicted none. It beats false alarms.
    """
    higher_is_better = comparison.mean_higher_is_better
    winner = _best(comparison, comparison.candidates)
    others = [candidate for candidate in comparison.candidates if candidate is not winner]
    sentence = _sentence(comparison, winner)
    if math.isnan(comparison.means[winner.name]):
        return winner, sentence
    if not others:
        return winner, f"{sentence}; it is the only candidate"
    second = _best(comparison, others)
    if higher_is_better[winner.name] - higher_is_better[second.name] <= TIE:
        return winner, f"{sentence}; {second.name} is as good, but this one is cheaper"
    return winner, f"{sentence}; next is {_named(comparison, second)}"


def supported(comparison: Comparison) -> tuple[Candidate, str]:
    """Chooses the simplest candidate, unless another one is better with support.

    1. The simplest candidate (fewest members, then fewest seconds, then the first given) is the reference.
    2. Another one has support if its mean is better, if it is better for more patients than it is worse, and if the paired test over
       patients (Wilcoxon), corrected for the number of candidates (Holm), gives p < 0.05. Of those with support the best mean wins;
       without any the reference stays.
    3. If that winner is a single model, and the two single models with the best means cannot be told apart by the paired test, their
       average is taken instead of either, provided that it is a candidate and its mean is not below both of theirs nor the winner's.

    Where fewer than `statistics.SMALLEST_TEST` patients have the organ there is no test, and a mean of so few says little: the reference
    stays unless another candidate is better in every patient, and by `LEAD` on average.
    """
    if len(comparison.candidates) == 1 or comparison.n_patients == 0:
        return best_mean(comparison)
    if comparison.n_patients < SMALLEST_TEST:
        return _without_test(comparison)
    reference, *others = comparison.candidates
    tests = holm([comparison.p_value(candidate, reference) for candidate in others])
    corrected = {candidate.name: float(p) for candidate, p in zip(others, tests, strict=True)}
    able = [candidate for candidate in others if corrected[candidate.name] < LEVEL and _beats(comparison, candidate, reference)]
    winner = _best(comparison, able) if able else reference
    together = _average_of_tied(comparison, winner)
    if together is not None:
        return together
    sentence = _sentence(comparison, winner)
    if able:
        found = f"{_p(corrected[winner.name])} corrected for {number_of(len(others), 'comparison')}"
        return winner, f"{sentence}; better than {_named(comparison, reference)}, {found}"
    rival = _best(comparison, others)
    if comparison.mean_higher_is_better[rival.name] - comparison.mean_higher_is_better[reference.name] <= TIE:
        return winner, f"{sentence}; the simplest, and none is better (next is {_named(comparison, rival)})"
    found = f"{_named(comparison, rival)}, corrected {_p(corrected[rival.name])}"
    return winner, f"{sentence}; the simplest, and none is better beyond luck (the best mean is that of {found})"


def _without_test(comparison: Comparison) -> tuple[Candidate, str]:
    """The simplest candidate, unless another one leads by enough and in every patient; of those that do the best mean."""
    reference, *others = comparison.candidates
    least = worthwhile(LEAD, comparison.metric, comparison.means[reference.name])
    apart = {one.name: comparison.differences(one, reference) for one in others}
    leads = {name: nan_mean(of_patients) for name, of_patients in apart.items()}
    able = [one for one in others if not (apart[one.name] <= TIE).any() and leads[one.name] >= least - TIE]
    winner = _best(comparison, able) if able else reference
    n = comparison.n_patients
    few = f"{_sentence(comparison, winner)}; {number_of(n, 'patient')} {'is' if n == 1 else 'are'} too few for a test"
    needed = f"at least {comparison.shown(least)}"
    if able:
        lead = comparison.shown(leads[winner.name])
        return winner, f"{few}, but it is better than {_named(comparison, reference)} in every one, by {lead} on average ({needed} needed)"
    rival = _best(comparison, others)
    if not leads[rival.name] > TIE:
        return winner, f"{few}; the simplest, and none is better (next is {_named(comparison, rival)})"
    better = f"leads by {comparison.shown(leads[rival.name])} and is better in {np.count_nonzero(apart[rival.name] > TIE)} of {n}"
    found = f"{_named(comparison, rival)} {better}"
    return winner, f"{few}, so the simplest stays: {found}; {needed} and every patient are needed"


def cheapest(comparison: Comparison) -> tuple[Candidate, str]:
    """Chooses the cheapest candidate whose mean lies within the 95 % bootstrap interval of the best; among equally cheap ones the best.

    The cost is seconds of computation a case; where one candidate was not measured, the number of members.
    """
    best = _best(comparison, comparison.candidates)
    if math.isnan(comparison.means[best.name]) or len(comparison.candidates) == 1:
        return best_mean(comparison)
    low, high = (float(end[0]) for end in comparison.intervals([best.name]))
    within = [one for one in comparison.candidates if one is best or low <= comparison.means[one.name] <= high]
    least = min(comparison.cost(one) for one in within)
    winner = _best(comparison, [one for one in within if comparison.cost(one) <= least])
    sentence = _sentence(comparison, winner)
    if winner is best:
        return winner, f"{sentence}; the best, and none that is cheaper lies within its 95 % interval"
    unit = " s a case" if winner.name in comparison.seconds and best.name in comparison.seconds else " models"
    costs = f"{comparison.cost(winner):.3g} instead of {comparison.cost(best):.3g}{unit}"
    interval = f"[{comparison.shown(low)}, {comparison.shown(high)}]"
    return winner, f"{sentence}; within the 95 % interval {interval} of {_named(comparison, best)}, at {costs}"


def _beats(comparison: Comparison, candidate: Candidate, reference: Candidate) -> bool:
    """Whether its mean is better, and more patients gain than lose."""
    differences = comparison.differences(candidate, reference)
    gain = comparison.mean_higher_is_better[candidate.name] - comparison.mean_higher_is_better[reference.name]
    return gain > TIE and float(np.nansum(np.sign(differences))) > 0


def _average_of_tied(comparison: Comparison, winner: Candidate) -> tuple[Candidate, str] | None:
    """Takes the average of the two best single models where the third step of `supported` says so."""
    higher_is_better = comparison.mean_higher_is_better
    singles = [candidate for candidate in comparison.candidates if len(candidate.members) == 1]
    if len(winner.members) > 1 or len(singles) < 2:
        return None
    first = _best(comparison, singles)
    second = _best(comparison, [candidate for candidate in singles if candidate is not first])
    p = comparison.p_value(first, second)
    members = {*first.members, *second.members}
    average = next((one for one in comparison.candidates if len(one.members) == 2 and set(one.members) == members), None)
    least = max(higher_is_better[first.name], higher_is_better[second.name], higher_is_better[winner.name]) - TIE
    if p < LEVEL or average is None or higher_is_better[average.name] < least or math.isinf(least):
        return None
    tied = f"{_named(comparison, first)} and {_named(comparison, second)} cannot be told apart ({_p(p)})"
    return average, f"{_sentence(comparison, average)}; {tied}, so their average, which is no worse, is taken instead of either"


def _best(comparison: Comparison, candidates: Sequence[Candidate]) -> Candidate:
    """The candidate of the best mean; among equals the one that stands first."""
    higher_is_better = comparison.mean_higher_is_better
    top = max(higher_is_better[candidate.name] for candidate in candidates)
    return next(candidate for candidate in candidates if higher_is_better[candidate.name] >= top - TIE)


def _sentence(comparison: Comparison, winner: Candidate) -> str:
    mean = comparison.means[winner.name]
    if math.isnan(mean):
        return f"{winner.name}: no validation case has this organ, and it predicted none"
    known = ~np.isnan(comparison.higher_is_better[winner.name])
    cases = number_of(int(np.count_nonzero(known)), "case")
    if comparison.patients:
        cases = f"{number_of(len(set(itertools.compress(comparison.patients, known))), 'patient')} ({cases})"
    return f"{winner.name}: mean {metric_title(comparison.metric)} {comparison.shown(mean)} over {cases}"


def _named(comparison: Comparison, candidate: Candidate) -> str:
    return f"{candidate.name} with {comparison.shown(comparison.means[candidate.name])}"


def _p(value: float) -> str:
    """A p-value for reading; where fewer cases differ than a test needs there is none."""
    return "p unknown: too few cases differ" if math.isnan(value) else f"p = {value:.2g}" if value >= 0.001 else "p < 0.001"
