"""Prefetching of batches by threads: in order, and always the same for the same seed.

A batch is a pure function of its number: random draws come from ``default_rng([seed, stream, number, ...])``, never from a worker's state.
So a resumed run continues with exactly the batches that an undisturbed run would have seen, whatever the number of threads.
Threads, not processes: what takes long, augmentation, computes outside Python's lock (decompressing a patch holds it), nothing is pickled,
and there is nothing to leak.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Generic, TypeVar

import torch

from ..runtime.hardware import GIB, cpu_count
from ..schema.run_record import RunRecord

T = TypeVar("T")

STUCK_SECONDS = 300.0
"""The run stops with a message after waiting so long for a batch, instead of hanging."""

MOST_THREADS = 8
AHEAD_BYTES = 2 * GIB
"""Memory of the device for batches that wait, and for the one that is used; one batch may be larger."""


def loader_size(job: RunRecord, device: torch.device) -> tuple[int, int]:
    """The number of threads that make the batches of a job, and of batches that may be in work or waiting at a time.

    A processor computes augmentation and training step alike: one thread is enough to fill the pauses.
    """
    threads = 1 if device.type == "cpu" else max(2, min(MOST_THREADS, cpu_count() - 1))
    configuration = job.configuration
    image, labels = 4 * job.plan.in_channels(configuration) * math.prod(configuration.input_size), 2 * math.prod(configuration.patch_size)
    batch_bytes = configuration.batch_size * (image + labels)
    return threads, max(1, min(threads + 1, AHEAD_BYTES // batch_bytes))


class Prefetcher(Generic[T]):
    """Iterates ``make(start), make(start + 1), ...`` computed by threads ahead of need.

    Args:
        make: From the number of a batch to the batch.
        stop: The number after the last; None goes on for ever.
        ahead: Batches kept ready.
    """

    def __init__(self, make: Callable[[int], T], *, start: int = 0, stop: int | None = None, ahead: int = 4, threads: int = 2) -> None:
        self._make, self._next, self._ahead = make, start, max(1, ahead)
        self._stop = math.inf if stop is None else stop
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="autoseg-batch", initializer=_one_thread_each)
        self._waiting: deque[tuple[int, Future[T]]] = deque()
        self._stuck = False

    def __enter__(self) -> Prefetcher[T]:
        return self

    def __exit__(self, *_: object) -> None:
        # A thread that hangs on a lost disk would keep the error from ever being seen.
        self._pool.shutdown(wait=not self._stuck, cancel_futures=True)

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        while len(self._waiting) < self._ahead and self._next < self._stop:
            self._waiting.append((self._next, self._pool.submit(self._make, self._next)))
            self._next += 1
        if not self._waiting:
            raise StopIteration
        number, future = self._waiting.popleft()
        try:
            return future.result(timeout=STUCK_SECONDS)
        except FutureTimeoutError as error:
            self._stuck = not future.done()
            raise RuntimeError(
                f"batch {number} was not ready after {STUCK_SECONDS:.0f} s: is the disk that holds the preprocessed data reachable?"
            ) from error


def _one_thread_each() -> None:
    # The loader's threads run beside the training step: each must not open a thread team of its own.
    torch.set_num_threads(1)
