"""Tasks as real processes, and how many of them at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from autoseg.runtime.hardware import StepCost
from autoseg.study.local import IS_TASK, LocalExecutor, core_groups, reason_in
from autoseg.study.scaling import chosen_lanes
from autoseg.study.tasks import Resources, Task, check_tasks

HELLO = "import sys, time; print('hello', flush=True); time.sleep(float(sys.argv[1])); sys.exit(int(sys.argv[2]))"


def executor(folder, lanes=1, **options):
    return LocalExecutor(lanes, folder, program=lambda cores: [sys.executable, "-c", HELLO], **options)


def waited(one, count):
    found = []
    while len(found) < count:
        found += one.wait(10)
    return found


def test_tasks_end_with_their_status_and_their_last_words(tmp_path):
    said = []
    local = executor(tmp_path / "logs", lanes=2, show=said.append)
    for name, status in (("well", "0"), ("badly", "3")):
        local.start(Task(name=name, command=("0", status)))
    found = {one.task.name: one for one in waited(local, 2)}
    assert found["well"].is_well and found["well"].reason == "" and not found["badly"].is_well and found["badly"].reason == "hello"
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["badly.log", "well.log"] and b"".join(said).count(b"hello") == 2


def test_a_task_knows_that_it_is_one(tmp_path):
    said = []
    program = [sys.executable, "-c", f"import os; print(os.environ['{IS_TASK}'])"]
    local = LocalExecutor(1, tmp_path, program=lambda cores: program, show=said.append)
    local.start(Task(name="one", command=("x",)))
    assert waited(local, 1)[0].is_well and b"".join(said).strip() == b"1" and IS_TASK not in os.environ


def test_what_is_stopped_is_gone_and_says_nothing(tmp_path):
    local = executor(tmp_path)
    local.start(Task(name="long", command=("60", "0")))
    started = time.monotonic()
    local.stop()
    assert time.monotonic() - started < 20 and local.wait(0.1) == []
    local.start(Task(name="short", command=("0", "0")))
    assert [one.task.name for one in waited(local, 1)] == ["short"], "its lane is free again"


def test_a_reason_is_the_last_line_without_the_name_of_the_program():
    assert reason_in(b"step 1\rstep 2\nautoseg train: error: no such fold\n", 2) == "no such fold"
    assert reason_in(b"autoseg_train: error: no such fold", 2) == "no such fold"
    assert reason_in(b"", 2) == "it said nothing" and reason_in(b"x\n", -9) == "x (ended by signal 9)"
    assert reason_in(b"Traceback\nMemoryError\n", 1) == "MemoryError" and reason_in(b"warning", 0) == ""


PARENT = """
import sys, time
from pathlib import Path
from autoseg.study import local
from autoseg.study.tasks import Task
CHILD = '''import signal, sys, time
from autoseg.runtime.processes import terminate_with_parent
def end(*_):
    open(sys.argv[2], "w").write("saved")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
terminate_with_parent(int(sys.argv[1]))
open(sys.argv[2] + ".began", "w").close()
time.sleep(60)'''
import os
one = local.LocalExecutor(1, Path(sys.argv[1]), program=lambda cores: [sys.executable, "-c", CHILD, str(os.getpid())])
one.start(Task(name="child", command=(sys.argv[2],)))
time.sleep(60)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere it takes a moment longer")
def test_a_task_saves_its_state_when_the_study_is_killed(tmp_path):
    saved = tmp_path / "saved"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path), str(saved)])
    began = time.monotonic()
    while not saved.with_name("saved.began").exists() and time.monotonic() - began < 60:
        time.sleep(0.05)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    while not (saved.exists() and saved.read_text()) and time.monotonic() - began < 90:
        time.sleep(0.05)
    assert saved.read_text() == "saved"


@pytest.mark.parametrize(("half", "lanes", "words"), [(1.9, 1, "1.05 times"), (1.2, 2, "so 2 go at a time")])
def test_two_at_a_time_where_that_does_more_steps(half, lanes, words, monkeypatch):
    monkeypatch.setattr("autoseg.study.scaling.core_groups", lambda count: [[index] for index in range(count)])
    monkeypatch.setattr("autoseg.study.scaling._at_once", lambda measure, groups: [StepCost(half, 1)] * len(groups))
    found, why = chosen_lanes(lambda: StepCost(1.0, 1), trainings=3, memory=100, lanes=(2,))
    assert found == lanes and words in why


def test_one_at_a_time_where_memory_or_trainings_are_few():
    def never():
        return StepCost(1.0, 100)

    assert chosen_lanes(never, trainings=2, memory=150)[0] == 1
    assert chosen_lanes(never, trainings=1, memory=10**9)[0] == 1
    assert chosen_lanes(lambda: None, trainings=5, memory=10**9) == (1, "trainings go one after the other")


def test_the_cores_of_lanes_do_not_overlap():
    groups = core_groups(2)
    assert len(groups) == 2 and not set(groups[0]) & set(groups[1]) and core_groups(1) == [[]]


def test_tasks_are_checked():
    first = Task(name="a", command=("x",), resources=Resources(cores=2), seconds=3)
    assert first.shown_command == "autoseg_x"
    check_tasks([first, Task(name="b", command=("y",), needs=("a",))])
    with pytest.raises(ValueError, match="b: needs"):
        check_tasks([Task(name="b", command=("y",), needs=("a",)), first])
    with pytest.raises(ValueError, match="a name for each"):
        check_tasks([first, first])
    with pytest.raises(ValueError, match="cores"):
        Resources(cores=0)
