"""Simulated nights: the deadline is kept whatever goes wrong, and the time goes to those that can win."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest
from study_night import Curve, MemoryRecord, Night

from autoseg.study.record import StudyRecord
from autoseg.study.situation import Costs, Entrant, Situation, TooShortError
from autoseg.study.timetable import affordable

SLOW = Costs(start=25, again=8, step=0.6, validation=100, trial_case=2)
PAIR = {"2d": Curve(floor=0.12), "3d_fullres": Curve(floor=0.10, slow=80, costs=SLOW)}
BEHIND = {"2d": Curve(floor=0.3, pace=0.3), "3d_fullres": Curve(floor=0.08, costs=SLOW)}
HOUR = 3600.0


def share_late(night: Night, total: float, began: float = 1_000_000.0) -> float:
    return (night.clock.now() - began - total) / total


def wrong(curves: dict[str, Curve], factor: float) -> dict[str, Curve]:
    return {name: dataclasses.replace(curve, estimate=factor) for name, curve in curves.items()}


def test_a_night_ends_at_its_deadline_with_a_choice():
    night = Night(PAIR)
    record = night.run(HOUR)
    assert abs(share_late(night, HOUR)) < 0.01 and record.now.is_finished and len(night.choices) == 1
    assert night.final_folds() == {"2d": ["0"], "3d_fullres": ["0"]}
    seconds = [night.trained[name, "0"] for name in PAIR]
    assert abs(seconds[0] - seconds[1]) < 60, "the final ones get the same time"


@pytest.mark.parametrize("total", [600.0, 1800.0, 2 * HOUR, 8 * HOUR])
@pytest.mark.parametrize("factor", [0.5, 0.8, 1.5])
@pytest.mark.parametrize("curves", [PAIR, BEHIND, {"2d": PAIR["2d"]}], ids=["pair", "behind", "one"])
def test_wrong_estimates_change_the_minutes_and_not_the_deadline(curves, factor, total):
    night = Night(wrong(curves, factor), folds=("0", "1", "2", "3", "4"), are_fixed=False)
    night.choice_estimate = night.choice_seconds * factor
    night.run(total)
    assert abs(share_late(night, total)) < 0.05 and night.choices


def test_who_is_clearly_behind_leaves_and_the_others_get_its_minutes():
    night, even = Night(BEHIND), Night({"3d_fullres": BEHIND["3d_fullres"]})
    record = night.run(HOUR)
    even.run(HOUR)
    assert "2d" in record.now.left and "held-out patients" in record.now.left["2d"]
    assert night.final_folds() == {"3d_fullres": ["0"]}
    assert night.trained["3d_fullres", "0"] > 0.6 * even.trained["3d_fullres", "0"]
    assert ("2d", "0") in night.trained, "what it trained stays"


def test_a_slow_learner_that_will_win_stays():
    curves = {"2d": Curve(floor=0.15, slow=30, pace=0.5), "3d_fullres": Curve(floor=0.05, slow=250, pace=0.75)}
    night = Night(curves)
    record = night.run(2 * HOUR)
    assert curves["3d_fullres"].dice(400) < curves["2d"].dice(400) and curves["3d_fullres"].dice(3000) > curves["2d"].dice(3000)
    assert "3d_fullres" not in record.now.left


@pytest.mark.parametrize("until", [False, True])
def test_killed_at_any_task_it_goes_on_and_ends_in_time(until):
    undisturbed = Night(PAIR)
    undisturbed.run(HOUR)
    outage = 300.0
    for death in range(1, undisturbed.waits, 23):
        night = Night(PAIR)
        night.deaths = [death]
        night.run(HOUR, until=night.clock.now() + HOUR if until else None, outage=outage)
        late = share_late(night, HOUR if until else HOUR + outage)
        assert abs(late) < 0.05 and night.final_folds()["2d"] == ["0"], (death, late)
        if not until or death < 0.8 * undisturbed.waits:
            assert night.final_folds() == {"2d": ["0"], "3d_fullres": ["0"]}, death


def test_killed_again_and_again_it_still_ends_in_time():
    night = Night(PAIR)
    night.deaths = list(range(5, 400, 23))
    night.run(2 * HOUR, until=night.clock.now() + 2 * HOUR, outage=20)
    assert abs(share_late(night, 2 * HOUR)) < 0.05 and night.final_folds()


@pytest.mark.parametrize("failing", ["train 2d", "train 3d_fullres", "train 3d_fullres 0 1"])
def test_a_task_that_fails_stops_no_others(failing):
    night = Night(PAIR, failing=[failing])
    record = night.run(HOUR)
    other = "3d_fullres" if "2d" in failing else "2d"
    assert other in night.final_folds() and abs(share_late(night, HOUR)) < 0.05 and night.choices
    assert "it broke" in " ".join([*record.now.left.values(), *record.now.failed.values()])


def test_a_final_training_that_fails_leaves_its_trial_which_is_validated_where_nothing_else_is():
    night = Night({"2d": Curve(estimate=0.6)}, failing=[])
    night.run(HOUR)
    only = Night({"2d": PAIR["2d"], "3d_fullres": PAIR["3d_fullres"]})
    end, broken = only._end, []

    def breaks(task, job, began, ended):
        if job is not None and not job.patients and job.seconds > 800 and job.key not in broken:
            broken.append(job.key)
            only.failing = (" ".join(task.command),)
        return end(task, job, began, ended)

    only._end = breaks
    only.run(HOUR)
    assert len(broken) == 2 and only.final_folds() and only.choices


def lines_of(night: Night, name: str, *, trials: bool) -> list[str]:
    found = [line for line in night.log if line.startswith(f"train {name} ")]
    return [line for line in found if line.endswith(" 0") != trials]


@pytest.mark.parametrize(("status", "is_trained"), [(0, False), (1, False), (1, True)])
def test_a_trial_that_leaves_no_scores_has_failed_whatever_its_status(status, is_trained, caplog):
    night = Night(PAIR, hollow=lambda job: job.entrant == "3d_fullres")
    end = night._end

    def ends(task, job, began, ended):
        if is_trained and job is not None and night.hollow(job):
            night.trained[job.key] = job.seconds
        found = end(task, job, began, ended)
        return dataclasses.replace(found, status=status) if found.status == 1 else found

    night._end = ends
    record = night.run(HOUR)
    assert len(lines_of(night, "3d_fullres", trials=True)) == 1 and not lines_of(night, "3d_fullres", trials=False)
    reason = f"{'its scores are not' if is_trained else 'its network is not'} there (MemoryError)"
    assert record.now.left["3d_fullres"] == f"its trial failed: {reason}" and f"takes no further part: {reason}" in caplog.text
    assert abs(share_late(night, HOUR)) < 0.05 and night.final_folds() == {"2d": ["0"]} and night.choices


def test_scores_of_a_former_trial_are_not_those_of_one_that_left_none():
    night = Night(PAIR)
    night.hollow = lambda job: job.entrant == "3d_fullres" and "3d_fullres" in night.trials
    record = night.run(HOUR)
    assert len(lines_of(night, "3d_fullres", trials=True)) == 2 and len(record.now.trials["3d_fullres"]) == 1
    assert "its network is not there" in record.now.left["3d_fullres"] and night.final_folds() == {"2d": ["0"]}


@pytest.mark.parametrize("is_trained", [False, True])
def test_a_final_training_that_is_not_validated_has_failed_whatever_its_status(is_trained, caplog):
    night = Night(PAIR, hollow=lambda job: job.entrant == "2d" and not job.patients)
    end = night._end

    def trained_only(task, job, began, ended):
        if is_trained and job is not None and night.hollow(job):
            night.trained[job.key] = job.seconds
        return end(task, job, began, ended)

    night._end = trained_only
    record = night.run(HOUR)
    assert len(lines_of(night, "2d", trials=False)) == 1 and "2d/0" not in record.now.done
    reason = "its network is not validated" if is_trained else "its network is not there"
    assert record.now.failed["2d, fold 0"] == f"{reason} (MemoryError)" and f"failed; the rest goes on: {reason}" in caplog.text
    assert abs(share_late(night, HOUR)) < 0.05 and night.final_folds() == {"3d_fullres": ["0"]} and night.choices


@pytest.mark.parametrize("hollow", [lambda job: True, lambda job: not job.patients], ids=["all", "finals"])
def test_where_all_trainings_leave_nothing_that_is_said_and_nothing_is_chosen(hollow):
    night = Night(PAIR, hollow=hollow)
    with pytest.raises(RuntimeError, match=r"not one training could be finished.*2d.*its network is not .* \(MemoryError\)"):
        night.run(HOUR)
    assert not night.choices and share_late(night, HOUR) < 0.05 and len(night.log) < 10


def test_nothing_that_works_is_said():
    with pytest.raises(RuntimeError, match="not one training could be finished.*it broke"):
        Night(PAIR, failing=["train"]).run(HOUR)
    with pytest.raises(RuntimeError, match="plan and preprocess: failed: it broke"):
        Night(PAIR, failing=["plan"]).run(HOUR)


def test_the_time_is_too_short_for_anything():
    with pytest.raises(TooShortError, match=r"training of 2d: 20 s to begin, 30 s for 100 steps, .* at least 140 s are needed"):
        Night(PAIR).run(150.0)
    quick = {"2d": Curve(costs=Costs(start=20, again=8, step=0.005, validation=60))}
    with pytest.raises(TooShortError, match=r"20 s to begin, 20 s of training at the least, 60 s of validation"):
        Night(quick).run(100.0)


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ((0.01, 0.05), "at least 60 s of training and 100 s of validation do not fit"),
        ((0.01, 0.5), "300 steps of 0.5 s and 100 s of validation do not fit"),
        ((0.35, 0.3), "105 s of training (300 steps of 2d) and 100 s of validation do not fit"),
    ],
)
def test_the_reason_why_a_candidate_is_left_out_names_the_bound_that_applies(steps, reason):
    both = [Costs(step=step, validation=validation) for step, validation in zip(steps, (20.0, 100.0), strict=True)]
    entrants = tuple(Entrant(name=name, costs=costs) for name, costs in zip(PAIR, both, strict=True))
    kept, out = affordable(Situation(remaining=260.0, entrants=entrants))
    assert [one.name for one in kept] == ["2d"] and out["3d_fullres"].startswith(reason)


@pytest.mark.parametrize(
    ("patients", "total", "trials"), [(3, 8 * HOUR, 0), (0, 8 * HOUR, 0), (3, HOUR, 1), (4, HOUR, 2), (4, 8 * HOUR, 2)]
)
def test_nobody_is_said_to_leave_where_too_few_patients_are_held_out_to_tell(patients, total, trials, caplog):
    caplog.set_level(logging.INFO)
    night = Night(PAIR, patients=patients)
    record = night.run(total)
    assert len(record.now.rungs) == trials and abs(share_late(night, total)) < 0.05
    said = " ".join(caplog.text.split())
    assert ("clearly behind after a trial leaves" in said) == (patients == 4), "a single trial measures validation"
    assert ("measure only how long validation takes" in said) == (trials == 1)
    assert ("none is clearly behind" in said) <= (patients == 4)
    assert night.final_folds() == {"2d": ["0"], "3d_fullres": ["0"]}


def test_with_little_time_there_are_fewer_candidates_and_folds():
    folds = ("0", "1", "2", "3", "4")
    few, more = (Night(PAIR, folds=folds, are_fixed=False) for _ in range(2))
    record = few.run(420.0)
    assert few.final_folds() == {"2d": ["0"]} and "do not fit" in record.now.left["3d_fullres"]
    more.run(8 * HOUR)
    assert {name: len(found) for name, found in more.final_folds().items()} == {"2d": 5, "3d_fullres": 5}
    counts = []
    for hours in (0.5, 2, 4, 6):
        night = Night(PAIR, folds=folds, are_fixed=False)
        night.run(hours * HOUR)
        found = night.final_folds()
        assert len({tuple(one) for one in found.values()}) == 1, "the choice compares equal folds"
        counts.append(len(next(iter(found.values()))))
    assert counts == sorted(counts) and counts[0] == 1 and counts[-1] > 1


def test_folds_that_the_user_named_are_trained_rather_than_further_candidates(caplog):
    caplog.set_level(logging.INFO)
    found = {}
    for minutes in (4, 9, 14, 30):
        night = Night(PAIR, folds=("0", "1"))
        record = night.run(minutes * 60)
        found[minutes] = night.final_folds()
        assert abs(share_late(night, minutes * 60)) < 0.05, minutes
        assert ("3d_fullres" in found[minutes]) != ("on 2 folds" in record.now.left.get("3d_fullres", "")), minutes
    assert found[4] == {"2d": ["0"]} and "Left out: fold 1: the time is not enough" in caplog.text
    assert found[9] == {"2d": ["0", "1"]}
    assert found[30] == {"2d": ["0", "1"], "3d_fullres": ["0", "1"]}


def test_where_trials_show_that_all_is_slower_than_estimated_a_candidate_goes_rather_than_a_fold_that_was_named():
    costs = Costs(start=25, again=8, step=0.6, validation=200, trial_case=2)
    curves = wrong({"2d": Curve(floor=0.10, costs=costs), "3d_fullres": Curve(floor=0.12, costs=costs)}, 0.3)
    night = Night(curves, folds=("0", "1"))
    record = night.run(1100.0)
    ((gone, reason),) = record.now.left.items()
    ((stays, folds),) = night.final_folds().items()
    assert folds == ["0", "1"] and "fold 1 would be left out" in reason and gone != stays
    last = {name: np.mean([one["organ"] for one in trial.dice.values()]) for name, trial in night.trials.items()}
    assert last[gone] < last[stays], "the weaker one goes"
    assert abs(share_late(night, 1100.0)) < 0.05


@pytest.mark.parametrize("late", [0.0, 5.0, 300.0])
def test_an_ensemble_for_which_there_was_time_is_made_where_the_last_training_ends_a_little_late(late):
    night = Night(PAIR, folds=("0", "1"))
    night.ensemble_seconds = 60.0
    start = night.start

    def start_late(task):
        start(task)
        if task.command[:3] == ("train", "3d_fullres", "1"):
            night.running[-1] = (*night.running[-1][:3], night.running[-1][3] + late)

    night.start = start_late
    night.run(HOUR)
    assert ("ensemble" in night.log) == (late < 100) and night.choices
    assert late > 100 or abs(share_late(night, HOUR)) < 0.03


def test_a_cascade_is_trained_after_all_folds_of_its_first_stage():
    curves = {
        "3d_lowres": Curve(floor=0.12, costs=SLOW),
        "3d_fullres": Curve(floor=0.1, costs=SLOW),
        "3d_cascade": Curve(floor=0.09, costs=SLOW, first_stage="3d_lowres"),
    }
    folds = ("0", "1", "2", "3", "4")
    night = Night(curves, folds=folds, are_fixed=False)
    night.run(12 * HOUR)
    assert len(night.final_folds()["3d_cascade"]) == 5
    first = next(index for index, line in enumerate(night.log) if "3d_cascade" in line)
    assert sum("3d_lowres" in line and line.endswith(" 0") for line in night.log[:first]) == 5
    short = Night(curves, folds=folds, are_fixed=False)
    record = short.run(HOUR)
    assert "predictions of every case" in record.now.left["3d_cascade"] and short.choices


def test_two_trainings_side_by_side():
    night = Night(PAIR, lanes=2, folds=("0", "1", "2"), are_fixed=False)
    night.run(3 * HOUR)
    assert abs(share_late(night, 3 * HOUR)) < 0.05
    alone = Night(PAIR, folds=("0", "1", "2"), are_fixed=False)
    alone.run(3 * HOUR)
    assert sum(night.trained.values()) > 1.5 * sum(alone.trained.values())


def test_the_time_of_who_failed_in_the_end_is_used():
    night = Night(PAIR)
    end = night._end

    def breaks(task, job, began, ended):
        if job is not None and job.entrant == "3d_fullres" and not job.patients:
            night.failing = (" ".join(task.command),)
        return end(task, job, began, began + 60 if night.failing else ended)

    night._end = breaks
    start = night.start

    def short(task):
        start(task)
        if task.command[:2] == ("train", "3d_fullres") and task.command[4] == "0":
            task, job, began, _ = night.running.pop()
            night.running.append((task, job, began, began + 60))

    night.start = short
    night.run(HOUR)
    assert abs(share_late(night, HOUR)) < 0.05 and night.final_folds() == {"2d": ["0"]}


def test_a_finished_study_with_more_time_goes_on():
    night = Night(PAIR)
    record = night.run(HOUR)
    before = dict(night.trained)
    longer = dataclasses.replace(record.now, total=2 * HOUR, is_finished=False, done={}, rungs=())
    night.run(2 * HOUR, record=MemoryRecord(longer))
    assert abs(share_late(night, 2 * HOUR)) < 0.05 and all(night.trained[key] > before[key] for key in before)


def test_the_record_counts_running_time_only():
    night = Night(PAIR)
    night.deaths = [20]
    record = night.run(HOUR, outage=5000)
    assert record.now.spent == pytest.approx(HOUR, rel=0.05) and isinstance(record.now, StudyRecord)
