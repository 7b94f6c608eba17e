"""Threads of torch sleep soon where other programs compute, unless the user says how they wait."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

from autoseg.cli.output import execute
from autoseg.runtime import waiting_threads
from autoseg.runtime.waiting_threads import SPINS, others_compute


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in place of what the system tells; no variable is set, and what becomes of them is undone."""
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(waiting_threads, "STATISTICS", tmp_path / "stat")
    return tmp_path / "stat"


@pytest.mark.parametrize(
    ("given", "threads", "expected"),
    [({}, 3, SPINS), ({}, 1, None), ({"GOMP_SPINCOUNT": "7"}, 3, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, 3, None)],
)
def test_how_threads_wait(
    running: Path, given: dict[str, str], threads: int, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.write_text(f"cpu  1 2 3\nprocs_running {threads}\nprocs_blocked 0\n")
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    seen: list[str | None] = []
    parser = argparse.ArgumentParser()
    parser.set_defaults(run=lambda options: seen.append(os.environ.get("GOMP_SPINCOUNT")), prog="x", verbose=False, quiet=False)
    assert execute(parser, []) == 0
    assert seen == [expected]


def test_a_system_that_does_not_tell_is_taken_as_idle(running: Path) -> None:
    assert not others_compute()
    running.write_text("cpu  1 2 3\n")
    assert not others_compute()


def test_others_that_only_run_now_and_then_are_not_minded(monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([2, 3, 1, 2])
    monkeypatch.setattr(waiting_threads, "_running", lambda: next(found))
    assert not others_compute()
