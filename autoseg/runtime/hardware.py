"""Cores, memory, devices and number formats of this computer, all found without configuration."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import os
import platform
import re
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..schema.run_record import RunEnvironment

if TYPE_CHECKING:
    import torch

GIB = 1024**3


@dataclass(frozen=True)
class StepCost:
    """Time and memory of one training step.

    Attributes:
        seconds: Of a step, warmed up; of a run whose steps differ their mean.
        peak_bytes: Largest memory held during it (on a processor: of the whole process); 0 where it was not seen.
        tile_seconds: Of predicting one tile with the same network, without mirrored copies; 0 where that was not measured.
        measured: Whether such steps were taken; False where time ran out, and other steps, or none, tell what it should be.
    """

    seconds: float
    peak_bytes: int
    tile_seconds: float = 0.0
    measured: bool = True


def current_environment(device: torch.device) -> RunEnvironment:
    """The present device and software, and the peak memory since `reset_peak_memory`."""
    import torch

    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory()
    return RunEnvironment(device_name(device), device.type, str(torch.__version__), peak)


def device_name(device: torch.device) -> str:
    """Model name of the device; of a processor also the number of usable cores."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    cores = cpu_count()
    return f"{name}, {cores} core{'s' if cores != 1 else ''}" + (" (MPS)" if device.type == "mps" else "")


def cpu_count() -> int:
    """Cores this process may use (affinity and cgroup quota respected)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    return max(1, cores)


def processor_share(seconds: float = 1.0) -> float:
    """Share of its cores that this process gets when it computes on all of them for some seconds: near 1 where nothing else computes."""
    import torch

    matrix = torch.ones(1024, 1024)
    started, used = time.monotonic(), time.process_time()
    while (passed := time.monotonic() - started) < seconds:
        matrix @ matrix
    return min(1.0, (time.process_time() - used) / (passed * min(cpu_count(), torch.get_num_threads())))


def available_memory() -> int:
    """Bytes of main memory that are available: the smaller of what the system and the cgroup leave."""
    free = _system_available()
    with contextlib.suppress(OSError, ValueError):
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if limit != "max":
            free = min(free, int(limit) - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    return max(0, free)


def _system_available() -> int:
    if (available := _listed_bytes("/proc/meminfo", "MemAvailable")) is not None:
        return available
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (ValueError, OSError, AttributeError):
        return 4 * GIB


def _listed_bytes(file: str, name: str) -> int | None:
    """A size that Linux lists in kB in one of its text files; None where it does not."""
    with contextlib.suppress(OSError):
        found = re.search(rf"^{name}:\s*(\d+) kB", Path(file).read_text(), re.MULTILINE)
        return int(found[1]) * 1024 if found else None
    return None


def peak_memory(process: int | None = None) -> int:
    """Peak resident size of this process, bytes; of another one, by its number, 0 where the system does not tell."""
    # Linux hands ru_maxrss on to a child through fork and exec: there it would be the parent's.
    if (listed := _listed_bytes(f"/proc/{process or 'self'}/status", "VmHWM")) is not None:
        return listed
    if process is not None:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def memory_in_use() -> int:
    """Resident size of this process, bytes; where the system does not tell (not Linux), its peak."""
    listed = _listed_bytes("/proc/self/status", "VmRSS")
    return peak_memory() if listed is None else listed


def reset_peak_memory() -> None:
    """Resets `peak_memory` (on Linux) and `peak_gpu_memory` to the present use."""
    import torch

    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        for index in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(index)


def peak_gpu_memory() -> int:
    """Peak memory of tensors on all CUDA GPUs together, bytes; 0 where none was used."""
    import torch

    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return 0
    return sum(torch.cuda.max_memory_allocated(index) for index in range(torch.cuda.device_count()))


def keep_freed_memory() -> bool:
    """Configures glibc's malloc to keep freed memory instead of returning it to the system after every activation.

    By default every tensor above 32 MiB is mapped and unmapped again, which costs a page fault per 4 KiB in each training step.

    Returns:
        True where it took effect (Linux with glibc).
    """
    return _set_malloc(mmap_threshold=GIB, trim_threshold=2**31 - 1, top_pad=64 * 1024**2)


def return_freed_memory() -> bool:
    """Configures glibc's malloc to return everything above 16 MiB to the system when it is freed: slower, in the least memory.

    By default it learns to keep blocks of up to 32 MiB, which add up.

    Returns:
        True where it took effect (Linux with glibc).
    """
    return _set_malloc(mmap_threshold=16 * 1024**2, trim_threshold=64 * 1024**2, top_pad=0)


def _set_malloc(*, mmap_threshold: int, trim_threshold: int, top_pad: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    m_trim_threshold, m_top_pad, m_mmap_threshold = -1, -2, -3
    try:
        libc = ctypes.CDLL("libc.so.6")
        pairs = ((m_mmap_threshold, mmap_threshold), (m_trim_threshold, trim_threshold), (m_top_pad, top_pad))
        return all(libc.mallopt(key, value) == 1 for key, value in pairs)
    except (OSError, AttributeError):
        return False


def prepare_device(device: torch.device) -> None:
    """Speeds up long work on `device`: freed memory is kept (CPU), the fastest convolution algorithms are measured (CUDA)."""
    import torch

    keep_freed_memory()
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True


def release_memory(device: torch.device) -> None:
    """Releases unused memory: collects garbage, and empties torch's cache of GPU memory."""
    import torch

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def choose_device(name: str = "auto") -> torch.device:
    """The device to compute on.

    Args:
        name: ``auto`` (CUDA, else CPU), or a torch device such as ``cuda:1``, ``cpu``, or Apple's ``mps`` (never automatic).

    Raises:
        ValueError: The name is unknown, or the device is not available.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"--device: expected auto, cpu, cuda, cuda:N or mps, got {name!r}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device {name}: this installation of torch finds no CUDA GPU; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device {name}: expected a GPU below cuda:{torch.cuda.device_count()}, the number of GPUs here")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"--device {name}: no MPS device here; use --device cpu")
    return device


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Dtype for autocast on `device`, or None where float32 is the better choice."""
    import torch

    if device.type == "cuda":
        # `is_bf16_supported` is true of older GPUs as well, which emulate the format and are slower with it.
        native = torch.version.hip is not None or torch.cuda.get_device_capability(device)[0] >= 8
        return torch.bfloat16 if native else torch.float16
    if device.type == "cpu" and torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return torch.bfloat16 if _is_bf16_faster() else None
    return None


@functools.cache
def _is_bf16_faster() -> bool:
    """Whether a processor that has bf16 instructions multiplies faster in bf16 than in float32.

    Intel's do by their matrix tiles (AMX). Without them (older ones, and virtual machines that hide them) they take twice as long for a
    bf16 product of vectors as for one in float32, and convolutions take 1.8 times as long. Others' do.
    """
    import torch

    return torch.cpu._is_amx_tile_supported() or "GenuineIntel" not in _processor()


def _processor() -> str:
    """What the system says of the processor, its maker among it."""
    with contextlib.suppress(OSError):
        return Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    return platform.processor()


def autocast(device: torch.device) -> contextlib.AbstractContextManager:
    """Context of mixed precision where the device gains from it, otherwise an empty one."""
    import torch

    dtype = autocast_dtype(device)
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def memory_format(dim: int) -> torch.memory_format:
    """Channels-last for `dim` spatial axes: the faster layout on GPUs and on processors with matrix tiles (AMX)."""
    import torch

    return torch.channels_last_3d if dim == 3 else torch.channels_last


def device_memory(device: torch.device) -> int:
    """Bytes that a training step may use on `device`: free GPU memory, or what main memory leaves."""
    import torch

    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()


def is_out_of_memory(error: BaseException) -> bool:
    """True for the errors that mean the device's memory was too small, and for no others."""
    import torch

    text = str(error).lower()
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in text or "out of memory" in text
