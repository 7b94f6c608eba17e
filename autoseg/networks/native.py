"""C sources of this room, translated by the computer's own compiler when they are first needed, and kept in the user's cache.

A compiler may be absent: then, and wherever else anything is in the way, there is no library, and torch computes what it would compute.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from torch import Tensor

log = logging.getLogger(__name__)

FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-fopenmp", "-fPIC", "-shared")

VECTORS = ({"avx512f"}, {"avx2", "fma"})
"""Instruction sets, as Linux calls them, of which the sources (``vectors.h``) need either."""

SECONDS = 120
"""Most that translating may take."""


@functools.cache
def vector_library(source: Path) -> ctypes.CDLL | None:
    """The translated source on a Linux computer with AVX-512 or AVX2; None where there is no compiler or it does not succeed.

    Its threads are those of torch, whose OpenMP library it uses: a second one's would wait in loops while torch computes.
    """
    threads, features = _openmp_of_torch(), _features()
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler or not threads or not any(needed <= set(features.split()) for needed in VECTORS):
        return None
    code = source.read_bytes() + b"".join(path.read_bytes() for path in sorted(source.parent.glob("*.h")))
    key = hashlib.sha256(code + repr((FLAGS, compiler, threads, features)).encode()).hexdigest()[:24]
    for folder in (_cache(), Path(tempfile.gettempdir()) / f"autoseg-{os.getuid()}"):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            return ctypes.CDLL(str(_translated(source, folder / f"{source.stem}-{key}.so", [compiler, threads])))
    log.info("%s: could not be translated by %s; convolutions are computed by torch alone, more slowly", source.name, compiler)
    return None


def call(source: Path, name: str, *arguments: Any) -> int:
    """Calls a function of a source that is translated, which returns a whole number.

    Tensors are given by their address, None as no address; they lie in memory as the function expects, which checks nothing.
    """
    function = getattr(vector_library(source), name)
    return function(*(ctypes.c_void_p(one.data_ptr()) if isinstance(one, Tensor) else one for one in arguments))


def _translated(source: Path, target: Path, tools: list[str]) -> Path:
    compiler, threads = tools
    if target.is_file():
        return target
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if target.parent.stat().st_uid != os.getuid():
        raise PermissionError(f"{target.parent} belongs to another user")
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=target.stem)
    os.close(handle)
    try:
        command = [compiler, *FLAGS, str(source), "-o", name, "-nodefaultlibs", "-lc", "-lm", threads]
        subprocess.run(command, check=True, timeout=SECONDS, stdin=subprocess.DEVNULL, capture_output=True)
        os.replace(name, target)  # whole at once: another process may be at it, too
    finally:
        Path(name).unlink(missing_ok=True)
    return target


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "autoseg"


def _features() -> str:
    """The instruction sets of the processor, as Linux lists them on x86-64; elsewhere nothing."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return ""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("flags"))
    return ""


def _openmp_of_torch() -> str:
    """The OpenMP library that is loaded into this process, with torch; empty where none is found."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/maps").read_text().splitlines():
            name = line.rpartition(" ")[2]
            if "gomp" in Path(name).name or "iomp5" in Path(name).name:
                return name
    return ""
