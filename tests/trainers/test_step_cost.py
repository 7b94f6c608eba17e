"""Real steps in a process of their own."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import queue
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import ORGANS, make_configuration, make_job, make_plan

from autoseg.runtime.processes import is_alive
from autoseg.runtime.registry import allowed_code
from autoseg.schema.run_record import RunRecord
from autoseg.trainers import step_cost as trial
from autoseg.trainers.step_cost import Probe, measure_step

OWN_TRAINER = """
import torch
from autoseg.trainers.trainer import Trainer

class Hungry(Trainer):
    def step(self, batch):
        self.held = torch.ones(150 * 2**20)
        assert batch.image.shape == (2, 1, 8, 8)
        assert self.optimized.average is not None
        return super().step(batch)
"""


def job(**changes) -> RunRecord:
    return make_job(make_plan(make_configuration(2, **changes)), "2d", average_decay=0.99)


def test_a_real_step_is_measured_in_a_process_of_its_own():
    parents = bytearray(b"x") * 2**30  # its own memory is measured, not what its parent holds
    cost = measure_step(job(), Probe("cpu"))
    assert len(parents) == 2**30
    assert cost.seconds > 0
    assert 2**25 < cost.peak_bytes < 2**30


@pytest.mark.slow
def test_a_trainer_of_ones_own_is_found_and_its_own_step_measured(monkeypatch, tmp_path: Path):
    (tmp_path / "own_trainers.py").write_text(OWN_TRAINER)
    monkeypatch.syspath_prepend(str(tmp_path))
    plain, hungry = (measure_step(dataclasses.replace(job(), trainer=name), Probe("cpu")) for name in ("Trainer", "own_trainers:Hungry"))
    assert hungry.peak_bytes - plain.peak_bytes > 500 * 2**20


class Boundless(torch.nn.Module):
    """Asks for more memory than there is."""

    def __init__(self, **options):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return torch.empty(2**58)


def test_a_step_that_needs_more_memory_than_there_is_gives_none():
    with allowed_code([__name__]):
        assert measure_step(job(network=f"{__name__}:Boundless", network_options={}), Probe("cpu")) is None


def test_another_failure_carries_its_reason():
    with pytest.raises(RuntimeError, match="trial step of 2d failed.*expected one of .*plain_unet"):
        measure_step(job(network="plane_unet"), Probe("cpu"))


@pytest.mark.parametrize("code", [-9, 137, trial.OUT_OF_MEMORY])
def test_a_process_that_the_system_kills_did_not_fit(monkeypatch, code):
    monkeypatch.setattr(trial._Trial, "_listen", lambda *_: code)
    assert measure_step(job(), Probe("cpu")) is None


@pytest.mark.parametrize("regions", [False, True])
def test_the_step_measured_has_the_jobs_loss_and_optimiser(regions):
    labels = dataclasses.replace(ORGANS, regions=regions, regions_class_order=(2, 5) if regions else (), ignore=9)
    second = make_configuration(name="3d_cascade", previous_stage="3d_lowres")
    job = make_job(make_plan(second, labels=labels), "3d_cascade", optimizer="sgd")
    said = list(trial.measured(job, trial.choose_device("cpu")))
    assert [one["seconds"] > 0 for one in said if "step" in one] == [True] * trial.STEPS
    assert said[-1]["tile"] > 0


PARENT = """
import sys
sys.path.insert(0, {tests!r})
from factories import make_configuration, make_job, make_plan
from autoseg.trainers.step_cost import Probe, measure_step
measure_step(make_job(make_plan(make_configuration(2, patch_size=(2048, 2048))), "2d"), Probe("cpu"))
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc, to find the child")
def test_the_process_ends_with_its_parent():
    parent = subprocess.Popen([sys.executable, "-c", PARENT.format(tests=str(Path(__file__).parents[1]))])
    children, end = Path(f"/proc/{parent.pid}/task/{parent.pid}/children"), time.monotonic() + 60
    while not (found := children.read_text().split()):
        assert time.monotonic() < end and parent.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)
    assert is_alive(int(found[0]))
    parent.kill()
    parent.wait()
    end = time.monotonic() + 5
    while is_alive(int(found[0])):
        assert time.monotonic() < end, "the child outlives its parent"
        time.sleep(0.05)


class Fake:
    """In place of a trial's process: says what a list holds, each after some seconds of a clock that it moves."""

    def __init__(self, clock: list[float], said: Sequence[tuple[float, dict[str, Any]]], status: int = 0) -> None:
        self.clock, self.said, self.status = clock, list(said), status

    def get(self, timeout: float) -> bytes | None:
        if not self.said:
            return None
        seconds, line = self.said[0]
        if seconds > timeout:
            self.clock[0] += timeout
            self.said[0] = (seconds - timeout, line)
            raise queue.Empty
        self.clock[0] += seconds
        self.said.pop(0)
        return json.dumps(line).encode()


def probe_of(monkeypatch: pytest.MonkeyPatch, *trials: Sequence[tuple[float, dict[str, Any]]], limit: float) -> tuple[Probe, list[float]]:
    """A probe whose trials say this, one after the other, and its clock."""
    clock, waiting = [0.0], list(trials)
    monkeypatch.setattr(trial.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(trial, "start_child", lambda *_, **__: contextlib.nullcontext(Child()))
    monkeypatch.setattr(trial, "_lines", lambda _: Fake(clock, waiting.pop(0)))
    return Probe("cpu", limit=limit), clock


class Child:
    """A process that has ended, or will when it is asked to."""

    pid, stdin, stdout = 2**30, io.BytesIO(), None

    def wait(self) -> int:
        return 0

    def kill(self) -> None:
        pass


READY = (1.0, {"shares": {0: 1.0}})


def step(seconds: float, number: int = 0) -> tuple[float, dict[str, Any]]:
    return seconds, {"step": number, "seconds": seconds}


def test_trying_steps_ends_in_time_however_long_the_first_one_is(monkeypatch):
    probe, clock = probe_of(monkeypatch, [READY, step(1000.0)], [READY, step(1000.0)], limit=30.0)
    planned, half = job(), job(patch_size=(8, 4))
    first = measure_step(planned, probe)
    assert (first.measured, first.seconds) == (False, 17.0), "no less than was waited for it"
    assert clock[0] == pytest.approx(18.0), "the rest is left for a smaller step"
    second = measure_step(half, probe)
    assert not second.measured
    assert clock[0] == pytest.approx(30.0)
    third = measure_step(half, probe)
    assert third.seconds == pytest.approx(first.seconds / 2, rel=0.3), "by the voxels"
    assert clock[0] == pytest.approx(30.0), "without another process"


def test_what_was_measured_before_time_was_over_is_used(monkeypatch):
    probe, clock = probe_of(monkeypatch, [READY, step(2.0), step(1.5), step(1000.0)], limit=30.0)
    cost = measure_step(job(), probe)
    assert (cost.measured, cost.seconds, cost.tile_seconds) == (True, 1.5, 0.0)
    assert clock[0] == pytest.approx(18.0)


def test_a_short_time_is_left_to_the_first_step(monkeypatch):
    probe, clock = probe_of(monkeypatch, [READY, step(8.0), step(1000.0)], limit=10.0)
    assert measure_step(job(), probe).seconds == 8.0
    assert clock[0] == pytest.approx(10.0)


def test_the_cost_is_the_mean_of_steps_of_all_kinds(monkeypatch):
    kinds = (0.0, {"shares": {0: 0.2, 1: 0.8}})
    said = [kinds, step(9.0, 1), step(1.0, 1), step(9.0), step(6.0), (0.0, {"peak": 7}), (0.1, {"tile": 0.25})]
    cost = measure_step(job(), probe_of(monkeypatch, said, limit=100.0)[0])
    assert (cost.seconds, cost.peak_bytes, cost.tile_seconds) == (pytest.approx(0.8 * 1.0 + 0.2 * 6.0), 7, 0.25)


def test_how_long_it_takes_is_shown(monkeypatch, capsys):
    probe, _ = probe_of(monkeypatch, [READY, step(1.0)], limit=10.0)
    probe.progress = True
    measure_step(job(), probe)
    assert "Trying steps of 2d, batch 2, patch 8x8: 00:00 of at most 10 s" in capsys.readouterr().err
