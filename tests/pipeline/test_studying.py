"""`autoseg_run --total` and `--until`: what they refuse, what a dry run says, and the commands and the record of a study."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import re
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from factories import write_dataset

from autoseg import cli
from autoseg.pipeline import PlanSettings, TrainSettings
from autoseg.pipeline import studying as module
from autoseg.pipeline.studying import Deadline, clock_time, describe_run_until
from autoseg.runtime.hardware import StepCost
from autoseg.runtime.serialization import read_json, write_json
from autoseg.runtime.workspace import find_workspace
from autoseg.study.record import StudyRecord
from autoseg.study.situation import Job

NAME = "Dataset003_Balls"
NOW = datetime(2026, 11, 27, 23, 30)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten cases, not planned; a training step takes 20 ms."""
    write_dataset(tmp_path / "raw" / NAME, [f"case_{number}" for number in range(10)])
    monkeypatch.setattr("autoseg.pipeline.study_world.predicted_step", lambda settings, spec, limit=None: StepCost(0.02, 1000, 0.01))
    monkeypatch.setattr("autoseg.pipeline.studying.chosen_lanes", lambda measure, **options: (1, "one after the other"))
    return tmp_path


def files(home: Path) -> set[Path]:
    return {path.relative_to(home) for path in home.rglob("*")}


def world_of(home: Path, plan: PlanSettings | None = None, training: TrainSettings | None = None, folds=None):
    plan = plan or PlanSettings(workers=0)
    return module._world(find_workspace(home), 3, plan, training or TrainSettings(device="cpu"), folds, keep=False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--total", "1h", "--time", "5m"], "--time: expected none with --total or --until"),
        (["--until", "07:00", "--epochs", "3"], "--epochs: expected none"),
        (["--total", "1h", "--pseudo-labels"], "--pseudo-labels: expected none with --total"),
        (["--total", "1h", "--restart"], "--restart: expected none with --total"),
        (["--total", "1h", "--preset", "fang2020"], "--total: expected no paper's --preset"),
        (["--until", "25:00"], "--until: expected the time of a clock (07:00)"),
        (["--total", "0s"], "--total: expected a time above 0"),
        (["--total", "1h", "--folds", "7"], "fold: expected 0 to 4 or all, got '7'"),
        (["--total", "1h", "--folds", "0", "all"], "or all alone"),
        (["--total", "1h", "--network", "vgg16_unett"], "Did you mean 'vgg16_unet'?"),
        (["--total", "1h", "-c", "4d"], "configuration of Dataset003_Balls"),
    ],
)
def test_what_a_study_refuses(home, capsys, words, message):
    assert cli.run(["3", *words, "--workers", "0", "--device", "cpu", "--home", str(home)]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (home / "results").exists()


def test_a_dry_run_lists_everything_with_minutes_and_writes_nothing(home, capsys):
    before = files(home)
    assert cli.run(["3", "--total", "1h", "--dry-run", "--workers", "0", "--device", "cpu", "--home", str(home)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert files(home) == before and all(len(line) <= 80 for line in lines)
    assert lines[0].split() == ["minutes", "task"] and "plan and preprocess" in lines[1] and any("the choice" in line for line in lines)
    minutes = [float(line.split()[0]) for line in lines[1:] if line[:7].strip().replace(".", "").isdigit()]
    assert sum(minutes[:-1]) == pytest.approx(minutes[-1], abs=0.5) and minutes[-1] == pytest.approx(60, abs=1)


def test_a_dry_run_ends_at_the_time_of_the_clock_whatever_its_measuring_takes(home, monkeypatch):
    clock = SimpleNamespace(now=NOW.timestamp())

    def measured(settings, spec, limit=None):
        clock.now += 30
        return StepCost(0.02, 1000, 0.01)

    monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: clock.now))
    monkeypatch.setattr("autoseg.pipeline.study_world.predicted_step", measured)
    for deadline in (Deadline(until="07:00"), Deadline(total=7.5 * 3600)):
        clock.now = NOW.timestamp()
        text = describe_run_until(3, deadline, PlanSettings(workers=0), TrainSettings(device="cpu"), home=home)
        assert re.search(r"in all, of 449\.0 until 07:00$", text, re.MULTILINE), text


@pytest.mark.parametrize(("cores", "words", "is_assumed"), [(2, (), True), (1, (), False), (2, ("-c", "2d"), False)])
def test_a_dry_run_says_that_it_assumes_one_training_at_a_time(cores, words, is_assumed, home, monkeypatch, capsys):
    monkeypatch.setattr(module, "cpu_count", lambda: cores)
    monkeypatch.setattr("os.sched_setaffinity", lambda *_: None, raising=False)
    assert cli.run(["3", "--total", "1h", "--dry-run", *words, "--workers", "0", "--device", "cpu", "--home", str(home)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert ("One training at a time is assumed; the study measures first whether several go quicker" in said) == is_assumed


def test_a_time_that_is_too_short_is_said_before_anything_is_preprocessed(home, capsys):
    assert cli.run(["3", "--total", "40s", "--workers", "0", "--device", "cpu", "--home", str(home)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "40 s: not enough for one training of " in said and "s of planning and preprocessing" in said
    assert "of validation" in said and "s are needed" in said
    assert not list((home / "preprocessed" / NAME).glob("3d*"))
    with pytest.raises(ValueError, match="at least .* s are needed"):
        describe_run_until(3, Deadline(total=40), PlanSettings(workers=0), TrainSettings(device="cpu"), home=home)


def test_the_commands_of_the_tasks_are_those_that_a_user_would_type(home):
    training = TrainSettings(
        device="cpu", batch=2, options={"foreground": 0.5}, network_options={"convs_per_stage": [1, 1]}, tag="night", allow_code=("m",)
    )
    world = world_of(home, PlanSettings(configurations=("2d",), workers=2, allow_code=("m",)), training, ("1",))
    assert world.preparation().command == (
        *("plan_and_preprocess", "-d", NAME, "-c", "2d", "--workers", "2", "--allow-code", "m", "--home", str(home)),
    )
    task = world.training(Job(entrant="2d", fold="1", seconds=90.0, duration=120.0, patients=5), 600.0)
    assert task.name == "2d, fold 1: a trial on 5 patients after 1.5 min of training"
    assert task.seconds == 120 and task.resources.gpus == 0
    options = cli.train.parser().parse_args(task.command[1:])
    assert (options.dataset, options.configuration, options.fold, options.trial, options.longer) == (NAME, "2d", "1", 5, True)
    assert (options.seconds, options.fitted_seconds, options.batch, options.tag) == (90.0, 600.0, 2, "night")
    assert (
        dict(options.options) == {"foreground": 0.5}
        and dict(options.network_options) == {"convs_per_stage": [1, 1]}
        and options.allow_code == ["m"]
    )
    choice = world.conclusion(["2d"], ["1"])
    assert [one.command[0] for one in choice] == ["find_best_configuration"]
    several = world_of(home).conclusion(["2d", "3d_fullres"], ["0", "1"])
    assert [one.command[0] for one in several] == ["train_ensemble", "find_best_configuration"]
    assert "2d__Trainer" in several[0].command and several[0].command[several[0].command.index("--folds") + 1 :][:2] == ("0", "1")


def test_estimates_follow_the_sizes_and_the_time(home):
    world = dataclasses.replace(world_of(home), expected_seconds=1000.0)
    costs = {one.name: one.costs for one in world.entrants()}
    assert set(costs) == {"2d", "3d_fullres"} and all(one.step <= 0.02 and one.validation > one.trial_case > 0 for one in costs.values())
    assert world.held_out == 2 and world.folds == ("0", "1", "2", "3", "4") and not world.are_fixed
    short, long = (
        {one.name: one.costs.step for one in dataclasses.replace(world_of(home), expected_seconds=seconds).entrants()}
        for seconds in (10.0, 1e6)
    )
    assert long == {"2d": 0.02, "3d_fullres": 0.02}
    assert all(short[name] < 0.6 * long[name] for name in long), "with little time networks have half the features"
    known = dataclasses.replace(costs["2d"], validation=77.0)
    assert dataclasses.replace(world, known={"2d": known}).entrants()[0].costs is known
    assert world.progress("2d", "0").seconds == 0 and world.trial("2d") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("07:00", datetime(2026, 11, 28, 7, 0)),
        ("23:45", datetime(2026, 11, 27, 23, 45)),
        ("23:30", datetime(2026, 11, 28, 23, 30)),
        ("2026-12-01 07:00", datetime(2026, 12, 1, 7, 0)),
        ("2026-12-01T07:00", datetime(2026, 12, 1, 7, 0)),
    ],
)
def test_the_next_time_that_a_clock_shows(text, expected):
    assert clock_time(text, NOW) == expected


@pytest.mark.parametrize("text", ["7", "24:00", "07:60", "tomorrow", "2026-11-01 07:00"])
def test_what_is_no_time_of_a_clock(text):
    with pytest.raises(ValueError, match="--until"):
        clock_time(text, NOW)


def test_the_same_command_goes_on_and_more_time_trains_on(home, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    world, path, now = world_of(home), tmp_path / "study.json", NOW.timestamp()
    first = module._record(world, Deadline(total=3600), path, now)
    assert first == StudyRecord(asked=first.asked, total=3600, began=now)
    left = dataclasses.replace(first, spent=900, rungs=(60.0,), done={"2d/0": 300.0}, left={"3d_fullres": "behind"}, is_finished=True)
    write_json(path, left)
    assert read_json(path, StudyRecord) == left
    assert module._record(world, Deadline(total=3600), path, now) == left
    more = module._record(world, Deadline(total=7200), path, now)
    assert (more.total, more.spent, more.is_finished, more.done, more.rungs, more.left) == (7200, 900, False, {}, (), left.left)
    other = module._record(world_of(home, folds=("0",)), Deadline(total=3600), path, now)
    assert other.spent == 0 and not other.left, "another study"


def test_a_deadline_by_the_clock_that_is_over_is_not_that_of_the_next_night(home, tmp_path):
    world, path, now = world_of(home), tmp_path / "study.json", NOW.timestamp()
    first = module._record(world, Deadline(until="07:00"), path, now)
    assert first.until == datetime(2026, 11, 28, 7, 0).timestamp() and first.total == 7.5 * 3600
    write_json(path, dataclasses.replace(first, rungs=()))
    for hours, until in ((2, first.until), (8, first.until)):
        again = module._record(world, Deadline(until="07:00"), path, now + hours * 3600)
        assert (again.until, again.total) == (until, first.total), hours
    write_json(path, dataclasses.replace(first, is_finished=True))
    after = module._record(world, Deadline(until="07:00"), path, now + 8 * 3600)
    assert after.until == datetime(2026, 11, 29, 7, 0).timestamp() and not after.is_finished


def test_one_deadline_is_needed():
    for total, until in itertools.product((None, 60.0), (None, "07:00")):
        if (total is None) == (until is None):
            with pytest.raises(ValueError, match="--total and --until: expected one of them"):
                Deadline(total=total, until=until)
