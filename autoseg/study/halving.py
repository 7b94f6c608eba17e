"""Which candidates can still win: successive halving that lets only those go that are clearly behind.

Successive halving (Jamieson & Talwalkar, AISTATS 2016) gives every candidate a little time, and more to the better half. Half of them
may be as good as the rest, and a network of volumes learns more slowly at first than one of slices and overtakes it later. So a candidate
leaves only where

- the Dice that it would have at the end of the final training, at the pace at which its errors have fallen so far, lies below the
  leader's by more than `MARGIN`, at the upper end of a confidence interval over patients (paired, t distribution, corrected for the
  number of candidates); after a first trial nobody's pace is known: it is taken to learn as quickly as the quickest do, and the leader
  nothing more;
- and no organ is segmented clearly better by it now, since each organ has its own choice;

and never more than half of them at a time. Errors ``1 - Dice`` fall with a power of the training time (as learning curves do; Domhan et
al., IJCAI 2015): ``error * (later / now) ** -pace``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

MARGIN = 0.01
"""Dice by which a candidate may be behind and still be worth its time: averaged with the leader it often adds as much."""
LEVEL = 0.05
"""Of the interval, two-sided."""
LEAST_PATIENTS = 4
"""That two candidates must share to be told apart."""
QUICKEST = 0.75
"""Pace of the quickest learners (measured: networks of thick slices between 6 and 25 minutes on one core; docs/study.md)."""
DOUBT = 0.05
"""What the leader's pace may be lower, and another's higher, than it was between two trials."""
LEAST_ERROR = 1e-4


@dataclass(frozen=True)
class TrialScores:
    """Scores of a candidate after some training.

    Attributes:
        seconds: Of training.
        dice: Patient to organ to Dice; NaN, or nothing, where neither reference nor prediction has the organ, or nobody annotated it.
    """

    seconds: float
    dice: dict[str, dict[str, float]]

    def errors(self, patients: Sequence[str]) -> np.ndarray:
        """``1 - Dice``, the mean over organs, ``(patients,)``; NaN where a patient has no organ."""
        return np.array([1.0 - _mean(list(self.dice.get(name, {}).values())) for name in patients])

    def of_organ(self, organ: str, patients: Sequence[str]) -> np.ndarray:
        """Dice of an organ, ``(patients,)``."""
        return np.array([self.dice.get(name, {}).get(organ, math.nan) for name in patients])


def _mean(values: Sequence[float]) -> float:
    known = [one for one in values if not math.isnan(one)]
    return float(np.mean(known)) if known else math.nan


def leaving(trials: Mapping[str, Sequence[TrialScores]], final_seconds: float) -> dict[str, str]:
    """The candidates that cannot win any more, with the reason.

    Args:
        trials: Candidate to its trials, in order of time; the last ones are of the same training time.
        final_seconds: Training time that each will have in the end.
    """
    rivals = {name: found for name, found in trials.items() if found}
    patients = sorted(set.intersection(*(set(found[-1].dice) for found in rivals.values()))) if len(rivals) > 1 else []
    if len(patients) < LEAST_PATIENTS:
        return {}
    now = {name: _mean(list(1.0 - found[-1].errors(patients))) for name, found in rivals.items()}
    expected = {name: _mean(list(1.0 - _later(found, patients, final_seconds, 0.0))) for name, found in rivals.items()}
    leader = max(rivals, key=lambda name: (expected[name], now[name], name))
    others = [name for name in rivals if name != leader]
    gone: dict[str, tuple[float, str]] = {}
    for name in others:
        upper = _upper_gain(rivals[name], rivals[leader], patients, final_seconds, len(others))
        if upper < -MARGIN and not _is_ahead_somewhere(rivals[name][-1], rivals[leader][-1], patients):
            gone[name] = (upper, _reason(name, leader, now, expected, upper, len(patients)))
    most = len(rivals) // 2
    return {name: gone[name][1] for name in sorted(gone, key=lambda name: gone[name][0])[:most]}


def _reason(name: str, leader: str, now: Mapping[str, float], expected: Mapping[str, float], upper: float, patients: int) -> str:
    return (
        f"Dice {now[name]:.3f} where {leader} has {now[leader]:.3f} on {patients} held-out patients; at the end about {expected[name]:.3f} "
        f"and {expected[leader]:.3f}, and at the best {-upper:.3f} behind"
    )


def _pace(trials: Sequence[TrialScores], patients: Sequence[str]) -> float | None:
    """The power of time with which the errors fell between the last two trials; None after a single one."""
    if len(trials) < 2:
        return None
    before, now = trials[-2], trials[-1]
    shared = [name for name in patients if name in before.dice]
    errors = [max(LEAST_ERROR, _mean(list(one.errors(shared)))) for one in (before, now)]
    ratio = now.seconds / before.seconds
    if not shared or ratio <= 1 or any(map(math.isnan, errors)):
        return None
    return min(QUICKEST, max(0.0, math.log(errors[0] / errors[1]) / math.log(ratio)))


def _later(
    trials: Sequence[TrialScores], patients: Sequence[str], seconds: float, doubt: float, unknown: float = QUICKEST / 2
) -> np.ndarray:
    """Errors ``(patients,)`` to expect after so many seconds of training; `doubt` is added to the pace, `unknown` is a first trial's."""
    pace = _pace(trials, patients)
    pace = unknown if pace is None else min(QUICKEST, max(0.0, pace + doubt))
    return trials[-1].errors(patients) * max(1.0, seconds / trials[-1].seconds) ** -pace


def _upper_gain(
    one: Sequence[TrialScores], leader: Sequence[TrialScores], patients: Sequence[str], seconds: float, comparisons: int
) -> float:
    """The most, at the upper end of the interval, by which a candidate's Dice will be above the leader's."""
    gains = _later(leader, patients, seconds, -DOUBT, unknown=0.0) - _later(one, patients, seconds, DOUBT, unknown=QUICKEST)
    return _interval(gains, LEVEL / comparisons)[1]


def _is_ahead_somewhere(one: TrialScores, leader: TrialScores, patients: Sequence[str]) -> bool:
    """Whether an organ is segmented better by it now, beyond luck."""
    organs = sorted({organ for scores in (one, leader) for of_patient in scores.dice.values() for organ in of_patient})
    gains = {organ: one.of_organ(organ, patients) - leader.of_organ(organ, patients) for organ in organs}
    return any(_interval(found, LEVEL / len(organs))[0] > 0 for found in gains.values())


def _interval(gains: np.ndarray, level: float) -> tuple[float, float]:
    """Confidence interval of a mean over patients; without limits where too few have a value."""
    known = gains[~np.isnan(gains)]
    if len(known) < LEAST_PATIENTS:
        return -math.inf, math.inf
    half = stats.t.ppf(1 - level / 2, len(known) - 1) * float(known.std(ddof=1)) / math.sqrt(len(known))
    return float(known.mean()) - half, float(known.mean()) + half
