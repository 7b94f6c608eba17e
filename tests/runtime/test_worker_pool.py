from __future__ import annotations

import functools
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import pytest
import worker_jobs

from autoseg.runtime import hardware as machine
from autoseg.runtime import processes
from autoseg.runtime.worker_pool import run_cases, worker_count

REPOSITORY = Path(__file__).parents[2]
NUMBERS = {"a": (2,), "b": (-1,), "c": (3,)}


@pytest.mark.parametrize("workers", [0, 2])
def test_failures_are_named_and_the_others_go_on(workers: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        results, failures = run_cases(worker_jobs.square, NUMBERS, workers=workers)
    assert results == {"a": 4, "c": 9}
    assert failures == {"b": "expected a number >= 0, found -1"}
    assert "squaring 3" in caplog.text  # what a worker logs arrives here


def test_no_jobs() -> None:
    assert run_cases(worker_jobs.square, {}) == ({}, {})


def test_a_killed_worker_costs_nothing_but_time(tmp_path: Path) -> None:
    function = functools.partial(worker_jobs.die_once, marker=tmp_path / "died")
    results, failures = run_cases(function, {name: (i,) for i, name in enumerate("abcd")}, workers=2)
    assert (results, failures) == ({"a": 0, "b": 1, "c": 2, "d": 3}, {})


@pytest.mark.parametrize(
    ("function", "argument", "reasons"),
    [
        (worker_jobs.die, 1, ("killed (signal 9)", "also when tried alone", "5.0 GB estimated")),
        (worker_jobs.no_memory, 1, ("out of memory: as if, also when tried alone",)),
        (worker_jobs.unsendable, 1, ("cannot be sent back",)),
        (worker_jobs.square, lambda: 1, ("cannot be handed",)),
    ],
)
def test_a_case_that_cannot_be_computed_is_named_with_the_reason(function, argument, reasons) -> None:
    results, failures = run_cases(function, {"big": (argument,)}, workers=1, memory_per_job={"big": 5 * machine.GIB})
    assert results == {}
    assert all(reason in failures["big"] for reason in reasons)


def test_what_cannot_be_imported_is_refused() -> None:
    with pytest.raises(ValueError, match="can import"):
        run_cases(lambda number: number, NUMBERS, workers=1)
    with pytest.raises(ValueError, match="workers"):
        run_cases(worker_jobs.square, NUMBERS, workers=-1)


def test_a_search_path_may_hold_path_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As notebooks insert them."""
    monkeypatch.setattr(sys, "path", [*sys.path, tmp_path])
    done = Mock()
    monkeypatch.setattr(processes.subprocess, "Popen", done)
    processes.start_child("autoseg.runtime.worker_pool:serve")
    assert json.loads(done.call_args.args[0][-2])[-1] == str(tmp_path)


def test_memory_limits_how_many_run_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoseg.runtime.worker_pool.available_memory", lambda: 10 * machine.GIB)
    monkeypatch.setattr("autoseg.runtime.worker_pool.cpu_count", lambda: 4)
    assert worker_count(100, 3 * machine.GIB) == 2
    assert worker_count(100, 30 * machine.GIB) == 1
    assert worker_count(100) == 4
    jobs = {name: (tmp_path, name) for name in "abcd"}
    memory = {"a": 0} | dict.fromkeys("bcd", 5 * machine.GIB)
    results, _ = run_cases(worker_jobs.overlapping, jobs, memory_per_job=memory)
    assert max(results.values()) <= 2 and len(results) == 4


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import worker_jobs
from autoseg.runtime.worker_pool import run_cases
folder = Path({folder!r})
run_cases(worker_jobs.write_slowly, {{n: (folder / n, folder / "pids") for n in ("a", "b")}}, workers=2)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent_and_leave_nothing_half_written(tmp_path: Path, number: signal.Signals) -> None:
    script = tmp_path / "unguarded.py"  # no main guard: starting workers must not run it again
    script.write_text(SCRIPT.format(tests=str(REPOSITORY / "tests"), folder=str(tmp_path)))
    (tmp_path / "pids").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        env=environment,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background of a shell inherits it ignored
    )
    _wait_until(lambda: len(list((tmp_path / "pids").iterdir())) == 2)
    pids = [int(path.name) for path in (tmp_path / "pids").iterdir()]
    parent.send_signal(number)
    assert parent.wait(timeout=120) != 0
    _wait_until(lambda: not any(map(_runs, pids)))
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def _wait_until(reached) -> None:
    end = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return not Path(f"/proc/{pid}/stat").exists() or Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
