"""Learning rate as a share of its start value, a function of training progress 0..1. All reach zero exactly at the end of the budget."""

from __future__ import annotations

import math

from ..naming import lookup


def poly(progress: float) -> float:
    """``(1 - progress) ** 0.9`` (Chen et al. 2017; the reference's schedule)."""
    return (1.0 - progress) ** 0.9


def cosine(progress: float) -> float:
    """Half a cosine from 1 to 0 (Loshchilov & Hutter 2017)."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))


SCHEDULES = {"poly": poly, "cosine": cosine}


def learning_rate_factor(name: str, progress: float, *, warmup: float = 0.0) -> float:
    """Factor for the learning rate.

    Args:
        name: Of `SCHEDULES`, or ``module:function``.
        progress: Share of the budget used, 0..1.
        warmup: Share of the budget over which the factor rises linearly from near zero.
    """
    progress = min(max(progress, 0.0), 1.0)
    factor = lookup(SCHEDULES, name, "schedule")(progress)
    return factor if progress >= warmup else factor * max(progress / warmup, 0.01)
