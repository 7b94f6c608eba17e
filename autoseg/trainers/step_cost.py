"""The cost of a training step, measured by real steps on the device in a separate process.

It is a separate process because a step that is too large may be killed by the system, because its peak memory can then be read exactly,
and because nothing else can end a step that takes longer than there is time for.
"""

from __future__ import annotations

import contextlib
import json
import math
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from tqdm import tqdm

from ..inference.volume_predictor import Volume
from ..planners.memory import conv_elements
from ..runtime.hardware import StepCost, choose_device, is_out_of_memory, memory_format, peak_memory
from ..runtime.processes import end_when_closed, start_child
from ..runtime.registry import NetworkError, allowed_code, allowed_modules, lookup
from ..runtime.serialization import from_jsonable, to_jsonable
from ..schema import Configuration, Mirroring
from ..schema.run_record import RunRecord
from . import TRAINERS
from .batches import Batch
from .loading import loader_size
from .run_options import RunFolders
from .trainer import Trainer

STEPS = 3
"""Steps of the most frequent kind: the first warms up."""
OUT_OF_MEMORY = 3

FIRST_SHARE, FIRST_SECONDS = 0.6, 12.0
"""Of the time for the step of the plan, but so many seconds if there are: the rest measures a smaller one, where that is running then."""

MODEL_SECONDS, MODEL_SECONDS_GPU = 2e-8, 2e-10
"""Of a training step per element of its convolutions' outputs (of 3D kernels), on a processor and a GPU: where none was measured."""
TRIAL_VOXELS = 2**18
"""Of the tiles that a trial predicts at once, at the most."""

NETWORK_ERROR = f"{NetworkError.__module__}.{NetworkError.__qualname__}: "
"""How the last line of a traceback begins where a network cannot be built."""


class Probe:
    """Measures steps of several configurations of a training, each in a separate process, in a limited time.

    Whoever uses it as a context manager may leave it at any time: no process stays. When the time is used up, what was measured so far
    tells the cost of other steps, by the elements of their convolutions' outputs.

    Args:
        device: For `choose_device`.
        limit: Seconds for everything; None takes as long as it takes.
        progress: Show how long it takes.
    """

    def __init__(self, device: str, *, limit: float | None = None, progress: bool = False) -> None:
        self.device, self.limit, self.progress = device, math.inf if limit is None else limit, progress
        self._started = time.monotonic()
        self._known: tuple[RunRecord, StepCost] | None = None

    @property
    def left(self) -> float:
        """Seconds that it may still take."""
        return max(0.0, self.limit - (time.monotonic() - self._started))

    def cost(self, job: RunRecord) -> StepCost | None:
        """See `measure_step`."""
        seconds = self.left if self._known else max(FIRST_SHARE * self.left, min(self.left, FIRST_SECONDS))
        trial = _Trial(job, self.device, seconds)
        if seconds > 0:
            with self._bar(job, seconds) as bar:
                trial.run(bar)
        if not trial.fits:
            return None
        if trial.seconds is None:
            return self._estimated(job, at_least=trial.waited, peak=trial.peak)
        cost = StepCost(trial.seconds, trial.peak, trial.tile or 0.0)
        self._known = (job, cost)
        return cost

    def _estimated(self, job: RunRecord, *, at_least: float, peak: int) -> StepCost:
        """The cost of a step that did not end in time: by one that did, else as such steps cost elsewhere, and no less than was waited."""
        of_element = MODEL_SECONDS if choose_device(self.device).type == "cpu" else MODEL_SECONDS_GPU
        cost = StepCost(of_element * step_elements(job.configuration), peak, measured=False)
        if self._known is not None:
            known, measured = self._known
            share = step_elements(job.configuration) / step_elements(known.configuration)
            cost = replace(measured, seconds=measured.seconds * share, peak_bytes=peak, tile_seconds=0.0, measured=False)
        cost = replace(cost, seconds=max(cost.seconds, at_least))
        self._known = self._known or (job, cost)
        return cost

    def _bar(self, job: RunRecord, seconds: float) -> tqdm:
        one = job.configuration
        what = f"Trying steps of {one.name}, batch {one.batch_size}, patch {'x'.join(map(str, one.patch_size))}"
        most = " so far" if seconds == math.inf else f" of at most {seconds:.0f} s"
        return tqdm(bar_format=f"{what}: {{elapsed}}{most}", disable=not self.progress, leave=False)


def measure_step(job: RunRecord, probe: Probe) -> StepCost | None:
    """Takes a few steps of the job's trainer on random numbers in a separate process, with as many batches waiting as in training.

    Args:
        job: Trainer, configuration and options are used; no file is read or written.
        probe: With the device, and the time that is left.

    Returns:
        The cost, or None where the step does not fit into memory.

    Raises:
        NetworkError: The network cannot be built.
        RuntimeError: The step failed for another reason; the message carries it.
    """
    return probe.cost(job)


def step_elements(configuration: Configuration) -> float:
    """Elements of a step's convolution outputs; those of a 2D kernel count a third."""
    built = replace(configuration, width=1.0, network_options=configuration.built_options)
    return configuration.batch_size * conv_elements(built) / (3 if configuration.dim == 2 else 1)


class _Trial:
    """One process that takes steps of a job, and what it has said of them so far.

    Attributes:
        fits: False where memory was too small.
        seconds: Mean of a step; None until one was taken.
        waited: Seconds that the first step has taken, where it did not end.
        peak: Bytes.
        tile: Seconds; None until one was predicted.
    """

    def __init__(self, job: RunRecord, device: str, limit: float) -> None:
        self.job, self.device, self.limit = job, device, limit
        self.fits, self.waited, self.peak = True, 0.0, 0
        self.tile: float | None = None
        self._steps: dict[int, list[float]] = {}
        self._shares: dict[int, float] = {}

    @property
    def seconds(self) -> float | None:
        """Of a step: of each kind the quickest one that was warm counts, by how often it comes."""
        if not self._steps:
            return None
        warm = {number: min(found[1:] or found) for number, found in self._steps.items()}
        known = sum(self._shares[number] for number in warm)
        return sum(self._shares[number] * found for number, found in warm.items()) / known

    def run(self, bar: tqdm) -> None:
        """Measures until everything is known, or the time is over.

        Raises:
            NetworkError, RuntimeError: See `measure_step`.
        """
        request = json.dumps({"job": to_jsonable(self.job), "device": self.device, "allow_code": allowed_modules()})
        with tempfile.TemporaryFile() as errors, _started("autoseg.trainers.step_cost:run", errors) as child:
            status = self._listen(child, request, bar)
            errors.seek(0)
            text = errors.read().decode(errors="replace")
        if status in (OUT_OF_MEMORY, -9, 137):
            self.fits = False
        elif status:
            reason = (text.strip().splitlines() or ["no message"])[-1]
            if reason.startswith(NETWORK_ERROR):
                raise NetworkError(reason.removeprefix(NETWORK_ERROR))
            raise RuntimeError(f"a trial step of {self.job.configuration.name} failed: {reason}")

    def _listen(self, child: subprocess.Popen[bytes], request: str, bar: tqdm) -> int:
        """The exit status of the child; 0 where it is ended as time is over."""
        jobs, said = cast(IO[bytes], child.stdin), _lines(cast(IO[bytes], child.stdout))
        with contextlib.suppress(OSError):  # it ended before it read the request: its status says why
            jobs.write(request.encode() + b"\n")
            jobs.flush()  # and stays open, as the child ends when it closes
        started = last = time.monotonic()
        began: float | None = None
        while (now := time.monotonic()) - started < self.limit:
            bar.update(now - last)
            last = now
            with contextlib.suppress(queue.Empty):
                line = said.get(timeout=min(1.0, max(0.0, self.limit - (now - started))))
                if line is None:
                    return child.wait()
                began = self._take(json.loads(line), began)
        if began is not None and not self._steps:
            self.waited = time.monotonic() - began
        self.peak = self.peak or peak_memory(child.pid)
        return 0

    def _take(self, said: dict[str, Any], began: float | None) -> float | None:
        """Takes over what the child says; the time when the first step began."""
        if "shares" in said:
            self._shares = {int(number): share for number, share in said["shares"].items()}
            return time.monotonic()
        if "step" in said:
            self._steps.setdefault(said["step"], []).append(said["seconds"])
        self.tile = said.get("tile", self.tile)
        self.peak = said.get("peak", self.peak)
        return began


@contextlib.contextmanager
def _started(function: str, errors: IO[Any]) -> Iterator[subprocess.Popen[bytes]]:
    """A child process that is dead afterwards."""
    with start_child(function, errors=errors) as child:
        try:
            yield child
        finally:
            child.kill()


def _lines(stream: IO[bytes]) -> queue.Queue[bytes | None]:
    """The lines of a stream as they come, then None."""
    lines: queue.Queue[bytes | None] = queue.Queue()

    def read() -> None:
        """Until the stream ends."""
        with contextlib.suppress(ValueError, OSError):  # closed by who listens no more
            for line in stream:
                if line.startswith(b"{"):
                    lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    return lines


def run() -> None:
    """The separate process: reads job and device from standard input, and writes what it measures, a JSON object a line."""
    request = json.loads(sys.stdin.buffer.readline())
    end_when_closed(sys.stdin.buffer)
    try:
        with allowed_code(request["allow_code"]):
            for said in measured(from_jsonable(request["job"], RunRecord), choose_device(request["device"])):
                sys.stdout.write("\n" + json.dumps(said) + "\n")
                sys.stdout.flush()
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            sys.exit(OUT_OF_MEMORY)
        raise


def measured(job: RunRecord, device: torch.device) -> Iterator[dict[str, Any]]:
    """Takes steps of a job, and predicts tiles with its network.

    Yields:
        First ``shares``: number of an iteration to the share of all that cost as much (`Trainer.step_kinds`); then of every step ``step``
        (such a number) and ``seconds``, then ``peak`` in bytes, and at last ``tile`` in seconds.
    """
    with tempfile.TemporaryDirectory() as empty:
        folders = RunFolders(Path(empty), Path(empty))
        trainer: Trainer = lookup(TRAINERS, job.trainer, "trainer")(job, folders, device=device, progress=False)
        _, ahead = loader_size(job, device)
        waiting = [_random_batch(job, device) for _ in range(ahead)]
        kinds = trainer.step_kinds
        yield {"shares": kinds}
        first = True
        for number in sorted(kinds, key=lambda one: -kinds[one]):
            for attempt in range(STEPS):
                trainer.iteration = number
                started = time.perf_counter()
                for value in trainer.step(waiting[attempt % ahead]).values():
                    float(0.0 if value is None else value)  # waits for the device
                yield {"step": number, "seconds": time.perf_counter() - started}
                if first and device.type == "cuda":
                    # The first step also tries convolution algorithms, in whatever memory is free: that is not needed to train.
                    torch.cuda.reset_peak_memory_stats(device)
                first = False
        yield {"peak": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory()}
        del waiting
        yield {"tile": measured_tile(trainer)}


def measured_tile(trainer: Trainer) -> float:
    """Seconds of predicting one of several tiles with the network of a trainer, without mirrored copies, on random numbers."""
    job = trainer.job
    tiling = replace(job.configuration.tiling, step=1.0)
    configuration = replace(job.configuration, mirroring=Mirroring(), tiling=tiling)
    trainer.job = replace(job, configuration=configuration, validation=None)
    try:
        predictor = trainer.predictor(trainer.final_network().eval())
    finally:
        trainer.job = job
    patch = configuration.patch_size
    count = max(1, min(configuration.batch_size, TRIAL_VOXELS // math.prod(configuration.input_size)))
    shape = (count, *patch) if configuration.dim == 2 else (count * patch[0], *patch[1:])
    rng = np.random.default_rng(0)
    image = rng.normal(size=(len(job.plan.channels), *shape)).astype(np.float32)
    volume = Volume(image, np.zeros(shape, np.int16) if configuration.sees_previous else None, case="random")
    seconds = []
    for _ in range(2):  # the first warms up
        started = time.perf_counter()
        predictor.logits(volume)
        seconds.append(time.perf_counter() - started)
    return min(seconds) / count


def _random_batch(job: RunRecord, device: torch.device) -> Batch:
    configuration, highest = job.configuration, len(job.plan.labels.base_values)
    size, patch = configuration.batch_size, configuration.patch_size
    image = torch.randn((size, job.plan.in_channels(configuration), *configuration.input_size), device=device)
    segmentation = torch.randint(0, highest + 1, (size, *patch), dtype=torch.int16, device=device)
    return Batch(image.to(memory_format=memory_format(configuration.dim)), segmentation, ("random",) * size, (None,) * size)
