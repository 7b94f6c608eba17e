"""Which trainings fill the time until a deadline: how many candidates and folds, trials after how many minutes, and minutes for each.

All of it is arithmetic of seconds, done anew after each task with what is known by then. Trainings of the final ones all get the same
time, so much that they, their validations and the choice end at the deadline.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from .halving import LEAST_PATIENTS
from .situation import Entrant, Job, Situation, TooShortError

LEAST_STEPS = 300
"""Of a training whose result can be compared with another's ..."""
LEAST_SECONDS = 60.0
"""... and its least time; with less a study takes fewer candidates."""
FEWEST_STEPS, FEWEST_SECONDS = 100, 20.0
"""Of a training that is the only one: below it nothing is learnt, and no study begins."""
STEPS_OF_A_FOLD = 2000
"""More folds are trained only where each training gets so many steps of the slowest candidate: one good network is worth more than two poor
ones (`planners.budget.STEPS_TO_LEARN_WELL`)."""
RUNGS = (0.25, 0.5)
"""Shares of the time that every candidate would get if none left, after which trials compare them."""
LEAST_TRIAL_SHARE = 0.5
"""A trial is worth it where its start and its scoring take no more than this share of the training since the one before."""
TRIAL_PATIENTS = (LEAST_PATIENTS, 12)
"""At least and at most scored in a trial."""
TRIAL_SCORING_SHARE = 0.15
"""Of a trial's training time that scoring may take, where more than the least number of patients are scored."""
ESTIMATES_ERR, UNSURE_SHARE = 0.5, 0.015
"""An estimate of validation may be wrong by the first; a trial measures it where that would be more of the time than the second."""
WORTH_MORE = 1.15
"""Time that is left in the end is spent on training on where everybody gets this many times what they had."""
SAME = 1.0
"""Seconds of training that are no difference."""


def final_jobs(situation: Situation, entrants: Sequence[Entrant], folds: Sequence[str], seconds: float) -> list[Job]:
    """The final trainings that are left, each to so many seconds, fold by fold; a cascade's after those of its first stage."""
    order = [(one, fold) for fold in folds for one in entrants if not one.first_stage]
    order += [(one, fold) for fold in folds for one in entrants if one.first_stage]
    keys = situation.done | situation.running
    wanted = [(one, fold) for one, fold in order if (one.name, fold) not in keys and not situation.at(one.name, fold).has_failed]
    return [
        Job(
            entrant=one.name,
            fold=fold,
            seconds=max(seconds, situation.at(one.name, fold).seconds),
            duration=_duration(situation, one, fold, seconds),
        )
        for one, fold in wanted
    ]


def _duration(situation: Situation, entrant: Entrant, fold: str, seconds: float) -> float:
    """Of a final training to so many seconds, and its validation."""
    progress = situation.at(entrant.name, fold)
    had = max(progress.seconds, progress.begun)
    if progress.is_validated and seconds <= progress.seconds + SAME:
        return 0.0
    costs = entrant.costs
    return (costs.again if had else costs.start) + max(0.0, seconds - had) + costs.validation


def makespan(durations: Sequence[float], lanes: int, busy: Sequence[float] = ()) -> float:
    """Seconds until all are done, each begun in this order as soon as a lane is free."""
    free = sorted([*busy, *[0.0] * max(0, lanes - len(busy))])
    end = max(busy, default=0.0)
    for duration in durations:
        began = heapq.heappop(free)
        heapq.heappush(free, began + duration)
        end = max(end, began + duration)
    return end


def common_seconds(situation: Situation, entrants: Sequence[Entrant], folds: Sequence[str], *, besides: float = 0.0) -> float:
    """Training time of each final training with which all of them end in time; 0 where there is none.

    Args:
        besides: Seconds of what is done before.
    """

    def fits(seconds: float) -> bool:
        jobs = final_jobs(situation, entrants, folds, seconds)
        return makespan([job.duration for job in jobs], situation.lanes, situation.busy) <= available

    available = situation.remaining - situation.tail(folds) - besides
    low, high = 0.0, max(0.0, situation.remaining + max([one.seconds for one in situation.progress.values()], default=0.0))
    if not fits(0.0):
        return 0.0
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def least_seconds(entrants: Sequence[Entrant]) -> float:
    """Training time below which candidates cannot be compared."""
    return max([LEAST_SECONDS, *(LEAST_STEPS * one.costs.step for one in entrants)])


def fewest_seconds(entrants: Sequence[Entrant]) -> float:
    """Training time below which nothing is learnt."""
    return max([FEWEST_SECONDS, *(FEWEST_STEPS * one.costs.step for one in entrants)])


def chosen_folds(situation: Situation, entrants: Sequence[Entrant]) -> tuple[str, ...]:
    """As many folds as the time is enough for; those that the user named wherever anything is learnt on them.

    Once final trainings are done, no fold joins, and the last ones are given up rather than trained for much less than those.
    """
    needed = (
        fewest_seconds(entrants) if situation.are_fixed else max([LEAST_SECONDS, *(STEPS_OF_A_FOLD * one.costs.step for one in entrants)])
    )
    if situation.final_seconds:
        needed = min(needed, 0.6 * situation.final_seconds)
    begun = {fold for _, fold in situation.done | situation.running}
    for count in range(len(situation.folds), 1, -1):
        folds = situation.folds[:count]
        if begun >= set(folds) or common_seconds(situation, entrants, folds) >= needed:
            return folds
    return situation.folds[:1]


def affordable(situation: Situation) -> tuple[tuple[Entrant, ...], dict[str, str]]:
    """The candidates that there is time for on a single fold, or on those that the user named, and those left out with the reason.

    Raises:
        TooShortError: There is time for none; the message says how much is needed.
    """
    kept, out = _without_cascades(situation)
    folds = situation.folds if situation.are_fixed else situation.folds[:1]
    beside = f"beside others on {len(folds)} folds" if len(folds) > 1 else "beside others"
    while len(kept) > 1 and common_seconds(situation, kept, folds) < least_seconds(kept):
        slowest = max(reversed(kept), key=lambda one: LEAST_STEPS * one.costs.step + one.costs.validation)
        out[slowest.name] = f"{_least_in_words(kept, slowest)} and {slowest.costs.validation:.0f} s of validation do not fit {beside}"
        kept = [one for one in kept if one is not slowest and one.first_stage != slowest.name]
    alone = kept[0]
    fewest = fewest_seconds([alone])
    if common_seconds(situation, kept, situation.folds[:1]) < fewest:
        costs = alone.costs
        least = "of training at the least" if fewest == FEWEST_SECONDS else f"for {FEWEST_STEPS} steps"
        parts = {"to begin": costs.start, least: fewest, "of validation": costs.validation}
        raise TooShortError(alone.name, {**parts, "for the choice": situation.tail(situation.folds[:1])})
    return tuple(kept), out


def _least_in_words(entrants: Sequence[Entrant], one: Entrant) -> str:
    """`least_seconds` with the bound that applies, as a reason why a candidate does not fit."""
    slowest = max((one, *entrants), key=lambda each: each.costs.step)
    if (least := least_seconds(entrants)) == LEAST_SECONDS:
        return f"at least {least:.0f} s of training"
    if slowest is not one:
        return f"{least:.0f} s of training ({LEAST_STEPS} steps of {slowest.name})"
    return f"{LEAST_STEPS} steps of {one.costs.step:.3g} s"


def _without_cascades(situation: Situation) -> tuple[list[Entrant], dict[str, str]]:
    """Candidates without those that learn from others' predictions of all cases, where not all folds will be trained."""
    kept, out = list(situation.entrants), {}
    while cascades := [one for one in kept if one.first_stage]:
        names = {one.name for one in kept}
        lost = next((one for one in cascades if one.first_stage not in names), None)
        if lost is None and chosen_folds(situation, kept) == situation.folds and not situation.are_fixed:
            break
        gone = lost or cascades[-1]
        why = "so all folds of both would be trained, which the time or --folds excludes"
        out[gone.name] = f"it learns from {gone.first_stage}'s predictions of every case, {why}"
        kept.remove(gone)
    return kept, out


def can_compare(situation: Situation, entrants: Sequence[Entrant]) -> bool:
    """Whether trials can show that a candidate is behind: there are two, and held-out patients enough to tell them apart."""
    return sum(not one.first_stage for one in entrants) > 1 and situation.held_out >= LEAST_PATIENTS


def planned_rungs(situation: Situation, entrants: Sequence[Entrant], folds: Sequence[str]) -> tuple[float, ...]:
    """Training times after which trials compare the candidates; none where there is no time for it.

    Where nobody can leave (`can_compare`) they are tried once, for the time of their validation, if that may make a difference.
    """
    rivals, compares = [one for one in entrants if not one.first_stage], can_compare(situation, entrants)
    is_unsure = sum(one.costs.validation for one in rivals) * ESTIMATES_ERR > UNSURE_SHARE * situation.remaining
    if not compares and not (is_unsure and situation.held_out):
        return ()
    whole = common_seconds(situation, entrants, folds)
    rungs: list[float] = []
    for share in RUNGS[: len(RUNGS) if compares else 1]:
        seconds = share * whole
        gained = seconds - (rungs[-1] if rungs else 0.0)
        besides = max(one.costs.again + TRIAL_PATIENTS[0] * one.costs.trial_case for one in rivals)
        if seconds >= max(FEWEST_STEPS * one.costs.step for one in rivals) and besides <= LEAST_TRIAL_SHARE * gained:
            rungs.append(seconds)
    return tuple(rungs)


def trial_patients(situation: Situation, seconds: float) -> int:
    """Patients that are scored in a trial after so many seconds of training: the same number for all candidates."""
    slowest = max([one.costs.trial_case for one in situation.entrants if not one.first_stage], default=1.0)
    least, most = TRIAL_PATIENTS
    return max(1, min(situation.held_out, most, max(least, int(TRIAL_SCORING_SHARE * seconds / max(slowest, 1e-6)))))


def trial_jobs(situation: Situation, entrants: Sequence[Entrant], seconds: float, patients: int) -> list[Job]:
    """The trials after so many seconds of training that are left to do."""
    jobs, fold = [], situation.folds[0]
    for one in entrants:
        progress = situation.at(one.name, fold)
        tried = any(time >= seconds - SAME for time in situation.tried.get(one.name, ()))
        if one.first_stage or tried or progress.has_failed or (one.name, fold) in situation.running:
            continue
        had = max(progress.seconds, progress.begun)
        beside = (one.costs.again if had else one.costs.start) + patients * one.costs.trial_case
        jobs.append(
            Job(
                entrant=one.name,
                fold=fold,
                seconds=max(seconds, progress.seconds),
                duration=beside + max(0.0, seconds - had),
                patients=patients,
            )
        )
    return jobs


def leaves_time(situation: Situation, trials: Sequence[Job]) -> bool:
    """Whether all candidates can still be validated after trials; also true where trials of them have begun."""
    seconds = max(job.seconds for job in trials)
    if any(time >= seconds - SAME for found in situation.tried.values() for time in found) or situation.running:
        return True
    besides = makespan([job.duration for job in trials], situation.lanes, situation.busy)
    trained = {job.key: replace(situation.at(*job.key), seconds=job.seconds, is_validated=False) for job in trials}
    after = replace(situation, progress={**situation.progress, **trained})
    return common_seconds(after, situation.entrants, situation.folds[:1], besides=besides) > 0


@dataclass(frozen=True, kw_only=True)
class Timetable:
    """What is done from now on.

    Attributes:
        trials: Of the next rung; the others follow when it is known who has left.
        finals: Final trainings if nobody leaves.
        rungs: Training times of all trials.
        folds: That are trained.
        seconds: Training time of each final training.
        left_out: Candidates that there is no time for, with the reason.
        given_up: Folds that the user named, and that there is no time for.
        is_compared: Whether candidates may leave after the trials.
    """

    trials: tuple[Job, ...]
    later_trials: tuple[Job, ...]
    finals: tuple[Job, ...]
    rungs: tuple[float, ...]
    folds: tuple[str, ...]
    seconds: float
    left_out: Mapping[str, str] = field(default_factory=dict)
    given_up: tuple[str, ...] = ()
    is_compared: bool = False

    @property
    def jobs(self) -> tuple[Job, ...]:
        """All trainings in order."""
        return (*self.trials, *self.later_trials, *self.finals)


def make_timetable(situation: Situation) -> Timetable:
    """Plans the trainings from now on.

    Raises:
        TooShortError: Nothing has been trained, and there is no time to train anything.
    """
    has_begun = bool(situation.done or situation.running or situation.rungs is not None)
    entrants, left_out = (situation.entrants, {}) if has_begun else affordable(situation)
    folds = chosen_folds(situation, entrants)
    rungs = planned_rungs(situation, entrants, folds) if situation.rungs is None else situation.rungs
    trials = _all_trials(situation, entrants, rungs)
    after, besides = situation, 0.0
    if trials:
        besides = makespan([job.duration for job in trials], situation.lanes, situation.busy)
        trained = {
            job.key: replace(situation.at(*job.key), seconds=max(job.seconds, situation.at(*job.key).seconds), is_validated=False)
            for job in trials
        }
        after = replace(situation, progress={**situation.progress, **trained}, busy=())
        folds = chosen_folds(replace(after, remaining=after.remaining - besides), entrants)
    seconds = common_seconds(after, entrants, folds, besides=besides)
    finals = final_jobs(after, entrants, folds, seconds)
    present = tuple(job for job in trials if job.seconds <= min(one.seconds for one in trials) + SAME) if trials else ()
    later = tuple(job for job in trials if job not in present)
    given_up = tuple(fold for fold in situation.folds if fold not in folds) if situation.are_fixed else ()
    return Timetable(
        trials=present,
        later_trials=later,
        finals=tuple(finals),
        rungs=rungs,
        folds=folds,
        seconds=seconds,
        left_out=left_out,
        given_up=given_up,
        is_compared=bool(trials) and can_compare(situation, entrants),
    )


def _all_trials(situation: Situation, entrants: Sequence[Entrant], rungs: Sequence[float]) -> list[Job]:
    """Trials of all rungs that are left, as if nobody left."""
    found: list[Job] = []
    now = situation
    for seconds in rungs:
        if len(entrants) < 2 and situation.tried.get(entrants[0].name if entrants else ""):
            break
        jobs = trial_jobs(now, entrants, seconds, trial_patients(situation, seconds))
        found += jobs
        trained = {job.key: replace(now.at(*job.key), seconds=job.seconds) for job in jobs}
        now = replace(now, progress={**now.progress, **trained})
    return found


def worthwhile_rest(situation: Situation, entrants: Sequence[Entrant], folds: Sequence[str]) -> float:
    """Training time to which everything is trained on with what is left in the end; 0 where that is not worth it."""
    again = replace(situation, done=frozenset())
    seconds = common_seconds(again, entrants, folds)
    had = max([situation.at(one.name, fold).seconds for one in entrants for fold in folds], default=0.0)
    return seconds if had and seconds >= WORTH_MORE * had else 0.0
