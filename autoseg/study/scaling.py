"""Whether trainings go quicker side by side, on a share of the cores each, or one after the other on all of them: measured by steps.

A step on all cores is never twice as quick as one on half of them; two trainings at a time on half the cores each lose less, but share the
caches and the memory, and wait for each other in the end. So a step is measured alone, and as many at once as there would be lanes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from ..runtime.hardware import StepCost
from .local import core_groups

WORTHWHILE = 1.1
"""Steps a second, in all, that lanes must do more than one training alone."""
LANES = (2, 4)
MEMORY_SHARE = 0.6
"""Of the available memory that trainings at a time may use."""

Measure = Callable[[], StepCost | None]


def chosen_lanes(measure: Measure, *, trainings: int, memory: int, lanes: Sequence[int] = LANES) -> tuple[int, str]:
    """Finds how many trainings go on at a time, and says why.

    Args:
        measure: Cost of a training step on the cores that the calling thread may use; None where it cannot be taken.
        trainings: That there are to do: not more lanes than these.
        memory: Bytes that are available.
        lanes: Numbers that are tried, rising.
    """
    alone = measure()
    best, words = 1, "trainings go one after the other"
    if alone is None or not alone.measured:
        return best, words
    most = 1.0
    for count in lanes:
        groups = core_groups(count)
        if count > trainings or not all(groups) or count * alone.peak_bytes > MEMORY_SHARE * memory:
            break
        together = _at_once(measure, groups)
        if not all(cost is not None and cost.measured for cost in together):
            break
        slowest = max(cost.seconds for cost in together if cost is not None)
        gain = count * alone.seconds / slowest
        takes = f"a step takes {slowest:.3g} s instead of {alone.seconds:.3g} s"
        words = f"{count} trainings at a time do {gain:.2f} times the steps of one ({takes})"
        if gain < WORTHWHILE * most:
            return best, f"{words}, so {'they go one after the other' if best == 1 else f'{best} go at a time'}"
        best, most = count, gain
    return best, f"{words}, so {best} go at a time" if best > 1 else words


def _at_once(measure: Measure, groups: Sequence[Sequence[int]]) -> list[StepCost | None]:
    """A step on each group of cores, all at once."""

    def pinned(cores: Sequence[int]) -> StepCost | None:
        with _on_cores(cores):
            return measure()

    with ThreadPoolExecutor(len(groups)) as pool:
        return list(pool.map(pinned, groups))


@contextlib.contextmanager
def _on_cores(cores: Sequence[int]) -> Iterator[None]:
    """Lets this thread, and the processes that it starts, use some cores only (Linux)."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
