"""How threads of torch wait for their next work, on a processor that other programs use, too."""

from __future__ import annotations

import os
import time
from pathlib import Path

SPINS = "2000"
"""Times, of about 50 ns each, that a thread looks for new work before it sleeps; by default 300000."""

SAMPLES, BETWEEN = 4, 0.003
"""Looks at what runs, and seconds between them."""

STATISTICS = Path("/proc/stat")


def let_waiting_threads_sleep() -> None:
    """Where other programs compute now, has torch, which is not loaded yet, wait without using up the time that its work then needs.

    A thread that waits in a loop for milliseconds has spent its share of the processor when there is work, and all others wait for it. On
    an idle machine waiting in a loop is a little quicker, and stays. What the user set (``GOMP_SPINCOUNT``, ``OMP_WAIT_POLICY``) holds.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ) and others_compute():
        os.environ["GOMP_SPINCOUNT"] = SPINS


def others_compute() -> bool:
    """Whether something beside this thread is running at each of several looks; False where the system does not tell (Linux does)."""
    for number in range(SAMPLES):
        if number:
            time.sleep(BETWEEN)
        if _running() < 2:
            return False
    return True


def _running() -> int:
    """Threads that run or could run now, this one included."""
    try:
        lines = STATISTICS.read_text(encoding="ascii").splitlines()
    except OSError:
        return 1
    return next((int(line.split()[1]) for line in lines if line.startswith("procs_running ")), 1)
