"""Processes many cases in parallel; a failing case, a killed worker or a killed parent harms no other case.

Each worker is a fresh interpreter that talks to its parent through its standard streams. Unlike `multiprocessing` it never imports the
user's script again, so no ``if __name__ == "__main__"`` is needed anywhere, and it ends by itself as soon as its parent is gone. What
travels through the pipe is pickled by one process for its own child and is never written to a file.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import queue
import signal
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any, cast

from tqdm import tqdm

from .disk import WriteError
from .hardware import GIB, available_memory, cpu_count
from .processes import start_child
from .registry import allowed_code, allowed_modules
from .shown_text import one_of_many

log = logging.getLogger(__name__)

MEMORY_SHARE = 0.8
"""Share of the available memory that jobs may use together; the rest is a margin for errors of the estimates."""

LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class Outcome:
    """Outcome of a job: ``done`` (value is the result), ``error`` or ``died`` (the reason), ``stop`` (the error that ends all jobs)."""

    kind: str
    value: Any


def run_cases(
    function: Callable[..., Any],
    jobs: Mapping[str, tuple[Any, ...]],
    *,
    workers: int | None = None,
    title: str = "Cases",
    memory_per_job: int | Mapping[str, int] = 0,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Calls ``function(*jobs[name])`` for every name; a failure is named and does not stop the others.

    Args:
        function: Importable by name (a module's function, or a `functools.partial` of one). Large results belong into files: what it
            returns travels through a pipe.
        jobs: Name of the case to the arguments.
        workers: Processes; 0 works in this process; None takes what the cores and the memory that is really available allow.
        memory_per_job: Estimated peak in bytes, one for all or one a name. Without a fixed number of `workers` jobs start only while
            their estimates fit into the available memory together.

    Returns:
        The results and the reasons of the failures, by name, in the order of `jobs`. A case whose worker was killed or ran out of memory
        is tried again alone, after all others.

    Raises:
        ValueError: `workers` is negative, or other processes cannot import `function`.
        WriteError: A result could not be written: the other cases would fail alike.
    """
    if workers is not None and workers < 0:
        raise ValueError(f"workers: expected a number of processes >= 0 or None, got {workers}")
    memory = {name: memory_per_job.get(name, 0) if isinstance(memory_per_job, Mapping) else memory_per_job for name in jobs}
    outcomes: dict[str, Outcome] = {}
    with tqdm(total=len(jobs), desc=title, unit="case", disable=not jobs) as bar:

        def collect(name: str, outcome: Outcome) -> None:
            if outcome.kind == "stop":
                raise outcome.value
            outcomes[name] = outcome
            bar.update(outcome.kind != "died")

        if workers == 0 or not sys.executable:
            for name, arguments in jobs.items():
                collect(name, _call(function, arguments))
        else:
            _check_importable(function)
            _Pool(function, jobs, memory, workers).run(collect)
            _retry_alone(function, jobs, memory, outcomes, collect)
            bar.update(sum(outcome.kind == "died" for outcome in outcomes.values()))
    results = {name: outcomes[name].value for name in jobs if outcomes[name].kind == "done"}
    return results, {name: outcomes[name].value for name in jobs if name not in results}


def worker_count(n_jobs: int, memory_per_job: int = 0) -> int:
    """Processes that cores and available memory allow for `n_jobs` jobs of `memory_per_job` bytes each; at least 1."""
    count = min(cpu_count(), n_jobs)
    if memory_per_job > 0:
        count = min(count, int(available_memory() * MEMORY_SHARE) // memory_per_job)
    return max(1, count)


def _check_importable(function: Callable[..., Any]) -> None:
    target = getattr(function, "func", function)
    name = getattr(target, "__qualname__", repr(target))
    if getattr(target, "__module__", None) == "__main__" or "<" in name:
        where = getattr(target, "__module__", None)
        raise ValueError(f"run_cases: expected a function that other processes can import, got {name} of {where}; use workers=0")


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Outcome:
    try:
        return Outcome("done", function(*arguments))
    except MemoryError as error:
        return Outcome("died", f"out of memory: {error}")
    except WriteError as error:
        return Outcome("stop", WriteError(error.errno, error.strerror))
    except Exception as error:
        log.debug("%s", traceback.format_exc())
        return Outcome("error", str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}")


def _retry_alone(
    function: Callable[..., Any],
    jobs: Mapping[str, tuple[Any, ...]],
    memory: Mapping[str, int],
    outcomes: Mapping[str, Outcome],
    collect: Callable[[str, Outcome], None],
) -> None:
    for name in [name for name in jobs if outcomes[name].kind == "died"]:
        log.warning("%s: %s; trying it again alone", name, outcomes[name].value)
        _Pool(function, {name: jobs[name]}, memory, 1).run(collect)
        if outcomes[name].kind == "died":
            free, need = available_memory() / GIB, memory[name] / GIB
            estimate = f", {need:.1f} GB estimated" if need else ""
            collect(name, Outcome("died", f"{outcomes[name].value}, also when tried alone ({free:.1f} GB of memory available{estimate})"))


class _Pool:
    """Runs jobs on worker processes, one thread each; jobs start in order as soon as a worker and enough memory are free."""

    def __init__(
        self, function: Callable[..., Any], jobs: Mapping[str, tuple[Any, ...]], memory: Mapping[str, int], workers: int | None
    ) -> None:
        self._waiting = {name: (function, arguments) for name, arguments in jobs.items()}
        self._memory = memory
        self._allowed = allowed_modules()  # known in this thread only
        self._budget = int(available_memory() * MEMORY_SHARE) if workers is None else None
        smallest = min((memory[name] for name in jobs), default=0)
        self._count = worker_count(len(jobs), smallest) if workers is None else min(workers, len(jobs))
        self._running: dict[str, int] = {}
        self._changed = threading.Condition()
        self._finished: queue.SimpleQueue[tuple[str, Outcome]] = queue.SimpleQueue()
        self._workers: set[_Worker] = set()

    def run(self, collect: Callable[[str, Outcome], None]) -> None:
        """Works through all jobs and hands each outcome to `collect`, in this thread."""
        total = len(self._waiting)
        threads = [threading.Thread(target=self._drive, daemon=True) for _ in range(self._count)]
        try:
            for thread in threads:
                thread.start()
            for _ in range(total):
                collect(*self._finished.get())
        finally:
            with self._changed:
                self._waiting.clear()
                for worker in self._workers:
                    worker.kill()
                self._changed.notify_all()
            for thread in threads:
                thread.join()

    def _drive(self) -> None:
        worker: _Worker | None = None
        while (job := self._next()) is not None:
            name, function, arguments = job
            try:
                worker = worker or self._hire()
                outcome = worker.run(function, arguments)
            except Exception as error:  # arguments that cannot travel, or no process to be had: this case fails, the pool goes on
                outcome = Outcome("error", f"cannot be handed to a worker process: {type(error).__name__}: {error}")
            if outcome.kind == "died" and worker is not None:
                self._dismiss(worker)
                worker = None
            with self._changed:
                del self._running[name]
                self._changed.notify_all()
            self._finished.put((name, outcome))
        if worker is not None:
            self._dismiss(worker)

    def _next(self) -> tuple[str, Callable[..., Any], tuple[Any, ...]] | None:
        with self._changed:
            while self._waiting:
                for name in self._waiting:
                    if self._fits(name):
                        function, arguments = self._waiting.pop(name)
                        self._running[name] = self._memory[name]
                        return name, function, arguments
                self._changed.wait()
        return None

    def _fits(self, name: str) -> bool:
        return not self._running or self._budget is None or sum(self._running.values()) + self._memory[name] <= self._budget

    def _hire(self) -> _Worker:
        worker = _Worker(threads=max(1, cpu_count() // self._count), allowed=self._allowed)
        with self._changed:
            self._workers.add(worker)
        return worker

    def _dismiss(self, worker: _Worker) -> None:
        with self._changed:
            self._workers.discard(worker)
        worker.close()


class _Worker:
    """A child process and the pipes to it."""

    def __init__(self, threads: int, allowed: tuple[str, ...] = ()) -> None:
        self._allowed = allowed
        limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS"), str(threads))
        limits["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(threads)
        self._process = start_child("autoseg.runtime.worker_pool:serve", environment={**os.environ, **limits})
        self._jobs, self._answers = cast(IO[bytes], self._process.stdin), cast(IO[bytes], self._process.stdout)

    def run(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Outcome:
        """Sends a job and waits for its outcome; log lines that arrive meanwhile are logged here."""
        payload = pickle.dumps((function, arguments, self._allowed), protocol=pickle.HIGHEST_PROTOCOL)
        try:
            _write(self._jobs, payload)
            while (answer := _read(self._answers)) is not None:
                kind, value = pickle.loads(answer)
                if kind != "log":
                    return Outcome(kind, value)
                name, level, text, kind_of_many = value
                logging.getLogger(name).log(level, "%s", text, extra=one_of_many(kind_of_many))
        except OSError:
            pass  # the pipe broke because the process ended: reported below
        return Outcome("died", _exit_reason(self._process.wait()))

    def kill(self) -> None:
        """Ends the process at once."""
        self._process.kill()

    def close(self) -> None:
        """Lets the process end (it does when its input closes) and waits for it."""
        for stream in (self._jobs, self._answers):
            with contextlib.suppress(OSError):
                stream.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _exit_reason(code: int) -> str:
    if code == -getattr(signal, "SIGKILL", 9):
        return "the worker process was killed (signal 9), most likely by the system because memory ran out"
    return f"the worker process was ended by signal {-code}" if code < 0 else f"the worker process ended by itself with code {code}"


def serve() -> None:
    """Runs a worker process: takes jobs from standard input until it closes, which also happens when the parent dies."""
    jobs, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not mix with the answers
    lock = threading.Lock()

    def answer(kind: str, value: Any) -> None:
        message = pickle.dumps((kind, value), protocol=pickle.HIGHEST_PROTOCOL)
        with lock:
            _write(answers, message)

    logging.getLogger().addHandler(_Forward(answer))
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(jobs, inbox), daemon=True).start()
    while True:
        payload = inbox.get()
        try:
            function, arguments, modules = pickle.loads(payload)
        except Exception as error:
            answer("error", f"a worker process cannot load the job: {type(error).__name__}: {error}")
            continue
        with allowed_code(modules):
            outcome = _call(function, arguments)
        try:
            answer(outcome.kind, outcome.value)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            answer("error", f"the result cannot be sent back: {type(error).__name__}: {error}")


def _listen(jobs: IO[bytes], inbox: queue.SimpleQueue[bytes]) -> None:
    """Passes jobs on and, being awake while a job is computed, ends the process the moment the parent closes the pipe or dies."""
    while (payload := _read(jobs)) is not None:
        inbox.put(payload)
    os._exit(0)


class _Forward(logging.Handler):
    """Sends log records to the parent."""

    def __init__(self, answer: Callable[[str, Any], None]) -> None:
        super().__init__()
        self._answer = answer

    def emit(self, record: logging.LogRecord) -> None:
        """Sends one record as logger name, level, text, and what it is one of many of."""
        with contextlib.suppress(OSError):
            self._answer("log", (record.name, record.levelno, record.getMessage(), getattr(record, "one_of_many", "")))


def _write(stream: IO[bytes], payload: bytes) -> None:
    stream.write(LENGTH.pack(len(payload)))
    stream.write(payload)
    stream.flush()


def _read(stream: IO[bytes]) -> bytes | None:
    """One message, or None at the end of the stream, also where that comes in the middle of a message."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (size,) = LENGTH.unpack(head)
    payload = stream.read(size)
    return payload if len(payload) == size else None
