"""The cost of a training step, measured by real steps on the device in a separate process.

It is a separate process because a step that is too large may be killed by the system, and because its peak memory can then be read exactly.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, cast

import torch

from ..runtime.hardware import StepCost, choose_device, is_out_of_memory, memory_format, peak_memory
from ..runtime.processes import end_when_closed, start_child
from ..runtime.registry import NetworkError, allowed_code, allowed_modules, lookup
from ..runtime.serialization import from_jsonable, to_jsonable
from ..schema.run_record import RunRecord
from . import TRAINERS
from .batches import Batch
from .loading import loader_size
from .run_options import RunFolders

STEPS = 3
OUT_OF_MEMORY = 3

NETWORK_ERROR = f"{NetworkError.__module__}.{NetworkError.__qualname__}: "
"""How the last line of a traceback begins where a network cannot be built."""


def measure_step(job: RunRecord, device: str) -> StepCost | None:
    """Runs a few steps of the job's trainer on random numbers in a separate process, with as many batches waiting as in training.

    Args:
        job: Trainer, configuration and options are used; no file is read or written.
        device: For `choose_device`.

    Returns:
        The cost, or None where the step does not fit into memory.

    Raises:
        NetworkError: The network cannot be built.
        RuntimeError: The step failed for another reason; the message carries it.
    """
    status, output, errors = _in_child(json.dumps({"job": to_jsonable(job), "device": device, "allow_code": allowed_modules()}))
    if status in (OUT_OF_MEMORY, -9, 137):
        return None
    if status != 0:
        reason = (errors.strip().splitlines() or ["no message"])[-1]
        if reason.startswith(NETWORK_ERROR):
            raise NetworkError(reason.removeprefix(NETWORK_ERROR))
        raise RuntimeError(f"a trial step of {job.configuration.name} failed: {reason}")
    return StepCost(**json.loads(output.splitlines()[-1]))


def _in_child(request: str) -> tuple[int, str, str]:
    """Exit status, output and errors of `run` in a separate process, which ends when this one does."""
    with tempfile.TemporaryFile() as errors, start_child("autoseg.trainers.step_cost:run", errors=errors) as child:
        try:
            jobs, answers = cast(IO[bytes], child.stdin), cast(IO[bytes], child.stdout)
            with contextlib.suppress(OSError):  # it ended before it read the request: its status says why
                jobs.write(request.encode() + b"\n")
                jobs.flush()  # and stays open, as the child ends when it closes
            output = answers.read()
            status = child.wait()
        finally:
            child.kill()
        errors.seek(0)
        return status, output.decode(errors="replace"), errors.read().decode(errors="replace")


def run() -> None:
    """The separate process: reads job and device from standard input, and writes a `StepCost` to standard output."""
    request = json.loads(sys.stdin.buffer.readline())
    end_when_closed(sys.stdin.buffer)
    try:
        with allowed_code(request["allow_code"]):
            cost = _cost(from_jsonable(request["job"], RunRecord), choose_device(request["device"]))
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            sys.exit(OUT_OF_MEMORY)
        raise
    sys.stdout.write("\n" + json.dumps(to_jsonable(cost)) + "\n")


def _cost(job: RunRecord, device: torch.device) -> StepCost:
    seconds = []
    with tempfile.TemporaryDirectory() as empty:
        folders = RunFolders(Path(empty), Path(empty))
        trainer = lookup(TRAINERS, job.trainer, "trainer")(job, folders, device=device, progress=False)
        _, ahead = loader_size(job, device)
        waiting = [_random_batch(job, device) for _ in range(ahead)]
        for number in range(STEPS):
            if number == 1 and device.type == "cuda":
                # The first step also tries convolution algorithms, in whatever memory is free: that is not needed to train.
                torch.cuda.reset_peak_memory_stats(device)
            started = time.perf_counter()
            for value in trainer.step(waiting[number % ahead]).values():
                float(value)  # waits for the device
            trainer.iteration += 1
            seconds.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory()
    return StepCost(min(seconds[1:]), peak)


def _random_batch(job: RunRecord, device: torch.device) -> Batch:
    configuration, highest = job.configuration, len(job.plan.labels.base_values)
    size, patch = configuration.batch_size, configuration.patch_size
    image = torch.randn((size, job.plan.in_channels(configuration), *configuration.input_size), device=device)
    segmentation = torch.randint(0, highest + 1, (size, *patch), dtype=torch.int16, device=device)
    return Batch(image.to(memory_format=memory_format(configuration.dim)), segmentation, ("random",) * size, (None,) * size)
