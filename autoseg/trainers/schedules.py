"""Learning rate as a share of its start value, a function of training progress 0..1.

``poly`` and ``cosine`` reach zero exactly at the end of the budget and are the defaults; the others are those of papers.
"""

from __future__ import annotations

import math
from functools import partial

from ..runtime.registry import lookup


def poly(progress: float) -> float:
    """``(1 - progress) ** 0.9`` (Chen et al. 2017; the reference's schedule)."""
    return (1.0 - progress) ** 0.9


def cosine(progress: float) -> float:
    """Half a cosine from 1 to 0 (Loshchilov & Hutter 2017)."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def constant(progress: float) -> float:
    """Always 1 (Thaler et al. 2021), for training with a moving average of the weights."""
    return 1.0


def exponential(progress: float) -> float:
    """``0.01 ** progress``: a fall whose end is known beforehand, where ``plateau`` waits for the validation loss."""
    return 0.01**progress


def plateau(progress: float) -> float:
    """Always 1: the reductions on plateaus of the smoothed validation loss follow from the losses (`plateau.Plateau`)."""
    return 1.0


def percents(progress: float, *, epochs: int = 4000) -> float:
    """One percent less every 40 epochs, a hundred times in 4000, down to 0.37 (Fang & Yan 2020)."""
    return 0.99 ** math.floor(epochs / 40 * progress + 1e-9)


PLATEAU = "plateau"
SCHEDULES = {
    "poly": poly,
    "cosine": cosine,
    "constant": constant,
    "exponential": exponential,
    PLATEAU: plateau,
    "percents": percents,
    "percents_2500": partial(percents, epochs=2500),
}


def learning_rate_factor(name: str, progress: float, *, warmup: float = 0.0, start: float = 0.0) -> float:
    """Factor for the learning rate.

    Args:
        name: Of `SCHEDULES`, or ``module:function``.
        progress: Share of the budget used, 0..1.
        warmup: Share of the budget over which the factor rises linearly from near zero.
        start: Progress at which a training of trained networks began (`trainers.longer`), whose optimiser has no moments yet; `warmup` is
            then the share of the rest.
    """
    progress = min(max(progress, 0.0), 1.0)
    factor = lookup(SCHEDULES, name, "schedule")(progress)
    since, rising = progress - start, warmup * (1 - start)
    return factor if since >= rising else factor * max(since / rising, 0.01)
