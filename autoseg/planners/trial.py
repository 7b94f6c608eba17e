"""One real training step on the actual device, in a process of its own: what it costs, and whether it fits at all.

A process of its own because a step that is too large may be killed by the system, and because its peak memory can then be read exactly.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from dataclasses import dataclass

import torch

from ..machine import autocast, choose_device, is_out_of_memory, memory_format, peak_memory, prepare
from ..model import Configuration
from ..networks import build_network
from ..records import from_plain, to_plain
from .budget import cut_patch

STEPS = 3
OUT_OF_MEMORY = 3


@dataclass(frozen=True)
class StepCost:
    """What one step costs.

    Attributes:
        seconds: Of a step, warmed up.
        peak_bytes: Largest memory held during it (on a processor: of the whole process).
    """

    seconds: float
    peak_bytes: int


def measure_step(configuration: Configuration, *, in_channels: int, out_channels: int, device: str) -> StepCost | None:
    """Runs a few training steps on random numbers in a separate process.

    Args:
        configuration: Network, patch and batch.
        in_channels: Of the network's input.
        out_channels: Of its output.
        device: For `choose_device`.

    Returns:
        The cost, or None where the step does not fit into memory.

    Raises:
        RuntimeError: The step failed for another reason; the message carries it.
    """
    question = json.dumps(
        {"configuration": to_plain(configuration), "in_channels": in_channels, "out_channels": out_channels, "device": device}
    )
    done = subprocess.run([sys.executable, "-m", "autoseg.planners.trial"], input=question, capture_output=True, text=True, check=False)
    if done.returncode in (OUT_OF_MEMORY, -9, 137):
        return None
    if done.returncode != 0:
        raise RuntimeError(f"a trial step of {configuration.name} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return StepCost(**json.loads(done.stdout.splitlines()[-1]))


def fit_memory(
    configuration: Configuration, *, in_channels: int, out_channels: int, device: str, limit_bytes: int
) -> tuple[Configuration, StepCost, str]:
    """Makes batch and then patch smaller until a real step fits.

    Args:
        configuration: With the batch that is wanted.
        in_channels: See `measure_step`.
        out_channels: See `measure_step`.
        device: See `measure_step`.
        limit_bytes: What the device has to give.

    Returns:
        The configuration that fits, its cost, and a sentence for the user (empty where nothing was changed).

    Raises:
        RuntimeError: Even the smallest patch does not fit.
    """
    wanted = configuration
    while True:
        cost = measure_step(configuration, in_channels=in_channels, out_channels=out_channels, device=device)
        if cost is not None and cost.peak_bytes <= limit_bytes:
            changed = configuration != wanted
            patch = "x".join(map(str, configuration.patch_size))
            why = f"a step of the plan did not fit into memory: patch {patch}, batch {configuration.batch_size} does" if changed else ""
            return configuration, cost, why
        smaller = shrink(configuration)
        if smaller is None:
            raise RuntimeError(f"{configuration.name}: not even batch 1 of patch {configuration.patch_size} fits on {device}; close other programs")
        configuration = smaller


def shrink(configuration: Configuration) -> Configuration | None:
    """The next smaller step: half the batch, then the patch cut along its relatively largest axis; None when nothing is left to cut."""
    if configuration.batch_size > 1:
        return dataclasses.replace(configuration, batch_size=configuration.batch_size // 2)
    return cut_patch(configuration, (0.0,) * configuration.dim)


def _run(question: dict) -> StepCost:
    configuration, device = from_plain(question["configuration"], Configuration), choose_device(question["device"])
    prepare(device)
    network = build_network(
        configuration.network,
        dim=configuration.dim,
        in_channels=question["in_channels"],
        out_channels=question["out_channels"],
        **configuration.network_options,
    ).to(device, memory_format=memory_format(configuration.dim, device))
    optimizer = torch.optim.SGD(network.parameters(), 1e-4, momentum=0.9)
    shape = (configuration.batch_size, question["in_channels"], *configuration.patch_size)
    image = torch.randn(shape, device=device).to(memory_format=memory_format(configuration.dim, device))
    seconds = []
    for _ in range(STEPS):
        started = time.perf_counter()
        with autocast(device):
            outputs = network(image)
        outputs = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
        optimizer.zero_grad(set_to_none=True)
        sum(output.float().log_softmax(1).mean() for output in outputs).backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory()
    return StepCost(min(seconds[1:]), peak)


if __name__ == "__main__":
    try:
        answer = _run(json.loads(sys.stdin.read()))
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            sys.exit(OUT_OF_MEMORY)
        raise
    sys.stdout.write(json.dumps(to_plain(answer)) + "\n")
