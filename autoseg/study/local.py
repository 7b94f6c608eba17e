"""Tasks as processes of this machine: one after the other with all cores, or some at a time with a share of them each.

A process ends when this one does: asked by SIGTERM, so that a training writes a checkpoint first, however this one died. What it says
goes to a file of its own, and on to the user.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import runpy
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, cast

from ..runtime.hardware import cpu_count
from ..runtime.processes import terminate_with_parent
from ..runtime.progress_bars import DRAWN, bars_are_drawn
from .tasks import Ended, Task

PROGRAM = """import json, sys
sys.path[:] = json.loads(sys.argv[1])
from autoseg.study.local import run_command
run_command(int(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4:])"""
STOP_SECONDS = 30.0
"""For so long a task may save what it has, once it was asked to end."""
TAIL_BYTES = 8000
PROGRAM_NAME = re.compile(r"^autoseg[ _][\w ]*: (?:error: )?")
IS_TASK = "AUTOSEG_STUDY_TASK"
"""Environment variable of a task's process: what comes next is the study's affair, so no command is proposed."""


def core_groups(lanes: int) -> list[list[int]]:
    """The cores of each lane; empty lists mean all of them, where there is one lane or the system cannot tell cores apart."""
    if lanes < 2 or not hasattr(os, "sched_getaffinity"):
        return [[] for _ in range(lanes)]
    cores = sorted(os.sched_getaffinity(0))
    each = max(1, min(len(cores), cpu_count()) // lanes)
    return [cores[index * each : (index + 1) * each] for index in range(lanes)]


class LocalExecutor:
    """An `Executor` of processes of this machine.

    Args:
        lanes: Tasks at a time.
        logs: Folder of a file for what each task says.
        show: Gets what tasks say; None shows nothing.
        program: Command that the task's arguments are appended to, with the cores it may use; None: this program.
    """

    def __init__(
        self,
        lanes: int,
        logs: Path,
        *,
        show: Callable[[bytes], object] | None = None,
        program: Callable[[Sequence[int]], list[str]] | None = None,
    ) -> None:
        self._lanes, self._logs, self._show = lanes, logs, show
        self._program = program or _this_program
        self._free = core_groups(lanes)
        self._running: dict[str, tuple[subprocess.Popen[bytes], list[int]]] = {}
        self._stopped: set[subprocess.Popen[bytes]] = set()
        self._ended: queue.Queue[tuple[Ended, list[int]]] = queue.Queue()

    @property
    def lanes(self) -> int:
        """How many tasks it carries out at a time."""
        return self._lanes

    def start(self, task: Task) -> None:
        """Begins a task on cores that are free."""
        cores = self._free.pop()
        environment = {**os.environ, IS_TASK: "1"}
        if cores:
            environment["OMP_NUM_THREADS"] = str(len(cores))
        if self._show is not None and bars_are_drawn():
            environment[DRAWN] = "1"
        process = subprocess.Popen(
            [*self._program(cores), *task.command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches this process alone, which asks the task to end
        )
        self._running[task.name] = process, cores
        threading.Thread(target=self._listen, args=(task, process, cores, time.monotonic()), daemon=True).start()

    def wait(self, seconds: float) -> list[Ended]:
        """Waits until a task has ended, at the most so long; gives those that have."""
        found: list[Ended] = []
        with contextlib.suppress(queue.Empty):
            found.append(self._taken(self._ended.get(timeout=max(0.0, seconds))))
            while True:
                found.append(self._taken(self._ended.get_nowait()))
        return found

    def stop(self) -> None:
        """Asks all tasks to save what they have and to end, and waits until they have."""
        self._stopped |= {process for process, _ in self._running.values()}
        for process, _ in self._running.values():
            with contextlib.suppress(OSError):
                process.terminate()
        end = time.monotonic() + STOP_SECONDS
        for process, cores in self._running.values():
            try:
                process.wait(timeout=max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            self._free.append(cores)
        self._running.clear()
        self.wait(0.0)  # what had ended by itself meanwhile

    def _taken(self, one: tuple[Ended, list[int]]) -> Ended:
        ended, cores = one
        if self._running.pop(ended.task.name, None) is not None:
            self._free.append(cores)
        return ended

    def _listen(self, task: Task, process: subprocess.Popen[bytes], cores: list[int], started: float) -> None:
        """Hands on what a task says until it ends; in a thread of its own."""
        tail = b""
        self._logs.mkdir(parents=True, exist_ok=True)
        with (self._logs / f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', task.name)}.log").open("ab") as log:
            while chunk := cast(IO[bytes], process.stdout).read1(4096):  # type: ignore[attr-defined]
                tail = (tail + chunk)[-TAIL_BYTES:]
                log.write(chunk)
                log.flush()
                if self._show is not None:
                    self._show(chunk)
        status = process.wait()
        if process not in self._stopped:
            ended = Ended(task=task, seconds=time.monotonic() - started, status=status, reason=reason_in(tail, status))
            self._ended.put((ended, cores))


def reason_in(said: bytes, status: int) -> str:
    """Why a task failed: the last line that it said, without the program's name; nothing where all is well."""
    if status == 0:
        return ""
    lines = [line.strip() for line in re.split(r"[\r\n]+", said.decode(errors="replace")) if line.strip()]
    found = PROGRAM_NAME.sub("", lines[-1]) if lines else "it said nothing"
    return f"{found} (ended by signal {-status})" if status < 0 else found


def _this_program(cores: Sequence[int]) -> list[str]:
    path = json.dumps([str(one) for one in sys.path])
    return [sys.executable, "-c", PROGRAM, path, str(os.getpid()), json.dumps(list(cores))]


def run_command(parent: int, cores: Sequence[int], words: Sequence[str]) -> None:
    """In the process of a task: runs a command of this program on some cores (none: all), until the process `parent` ends."""
    terminate_with_parent(parent)
    if cores:
        os.sched_setaffinity(0, cores)
    sys.argv = ["autoseg", *words]
    runpy.run_module("autoseg", run_name="__main__", alter_sys=True)
