"""Batches ahead of time: order, determinism, errors, and no waiting for ever."""

from __future__ import annotations

import itertools
import threading
import time

import numpy as np
import pytest
import torch
from factories import make_configuration, make_job, make_plan

from autoseg.trainers import loading
from autoseg.trainers.loading import AHEAD_BYTES, Prefetcher, loader_size


def slow_number(number: int) -> int:
    """Takes longest where the next ones are quick, so that they overtake it."""
    time.sleep(0.004 if number % 3 == 0 else 0)
    return number


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("ahead", [1, 4, 9])
def test_batches_come_in_order_however_many_threads_make_them(threads, ahead):
    with Prefetcher(slow_number, ahead=ahead, threads=threads) as batches:
        assert list(itertools.islice(batches, 25)) == list(range(25))


def test_a_resumed_run_gets_exactly_the_batches_that_were_left():
    def make(number: int) -> float:
        return float(np.random.default_rng([7, number]).normal())

    with Prefetcher(make, threads=3) as batches:
        undisturbed = list(itertools.islice(batches, 12))
    with Prefetcher(make, start=5, threads=1) as batches:
        assert list(itertools.islice(batches, 7)) == undisturbed[5:]


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_in_a_thread_reaches_the_caller_in_its_turn(threads):
    def make(number: int) -> int:
        if number == 3:
            raise ValueError("case_7: damaged")
        return number

    with Prefetcher(make, threads=threads) as batches:
        assert [next(batches) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ValueError, match="case_7: damaged"):
            next(batches)


def test_no_more_is_made_than_asked_for_ahead():
    made = []
    with Prefetcher(lambda number: made.append(number) or number, ahead=3, threads=1) as batches:
        assert [next(batches), next(batches)] == [0, 1]
    assert set(made) <= set(range(4))


def test_threads_end_with_the_block():
    before = threading.active_count()
    with Prefetcher(slow_number, threads=4) as batches:
        next(batches)
    assert threading.active_count() == before


def test_a_batch_that_never_comes_is_reported_instead_of_waited_for(monkeypatch):
    monkeypatch.setattr(loading, "STUCK_SECONDS", 0.05)
    disk_is_back, arrived = threading.Event(), []

    def make(_: int) -> None:
        disk_is_back.wait(10)
        arrived.append(True)

    try:
        with pytest.raises(RuntimeError, match="batch 0 was not ready"), Prefetcher(make, threads=1) as batches:
            next(batches)
        assert not arrived
    finally:
        disk_is_back.set()


def test_loader_threads_leave_the_training_steps_threads_alone():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with Prefetcher(lambda _: torch.get_num_threads(), threads=2) as batches:
            assert next(batches) == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("ahead", [1, 3, 20])
def test_it_ends_where_it_is_told_to_and_makes_nothing_beyond(ahead):
    made = []
    with Prefetcher(lambda number: made.append(number) or number, start=2, stop=7, ahead=ahead, threads=2) as batches:
        assert list(batches) == [2, 3, 4, 5, 6]
    assert sorted(made) == [2, 3, 4, 5, 6]
    with Prefetcher(slow_number, stop=0) as batches:
        assert list(batches) == []


@pytest.mark.parametrize(
    ("device", "size", "batch", "expected"),
    [("cpu", 8, 2, (1, 2)), ("cuda", 8, 2, (5, 6)), ("cuda", 256, 6, (5, AHEAD_BYTES // (6 * 256**3 * 6))), ("cuda", 512, 6, (5, 1))],
)
def test_a_gpu_gets_all_but_one_core_and_few_large_batches_wait(monkeypatch, device, size, batch, expected):
    monkeypatch.setattr(loading, "cpu_count", lambda: 6)
    job = make_job(make_plan(make_configuration(patch_size=(size,) * 3, batch_size=batch)))
    assert loader_size(job, torch.device(device)) == expected
