"""Log-odds in sixteen bits: as fine as probabilities where classes compete, and apart where a network is sure, and surer, of an organ.

A probability in eight bits is 1 from a logit of 6.2 on, so of two sure models nobody knows which is the surer. The code of log-odds l is
``PROBABILITY_STEPS * sigmoid(l) + LOG_ODDS_STEPS * l``, rounded: near a border it is fine in the probability, far inside an organ in l.
What no decision needs is not kept, and costs no room: a probability below 1/510 is 0, and that of background above 509/510 is 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit

PROBABILITY_STEPS = 1020
"""Codes from probability 0 to 1, besides those of the log-odds: no probability is off by more than half of one part in so many."""

LOG_ODDS_STEPS = 64
"""Codes from one natural logarithm to the next, besides those of the probability."""

SUREST = 64.0
"""Largest log-odds that are told from larger ones."""

LEAST = 1 / 510
"""Smallest probability that is told from 0."""

FLOOR = float(np.log(LEAST / (1 - LEAST)))

EVEN = 910
"""Code of the probability one half: that of `FLOOR` is 1 or more."""

CERTAIN_BACKGROUND = np.iinfo(np.uint16).max
"""Code of background above ``1 - LEAST``."""


@dataclass(frozen=True, eq=False)
class StoredLogOdds:
    """Codes ``(K, Z, Y, X)`` uint16 whose slices are read as probabilities times 255, float32, or as log-odds."""

    codes: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.codes.shape)

    def __getitem__(self, index: Any) -> np.ndarray:
        found: np.ndarray = _tables()[0][np.asarray(self.codes[index])]
        return found

    def complete(self, index: Any) -> np.ndarray:
        """As a slice with all channels of a softmax, but background's share is not 0 where an organ wins: it is what is missing to 1.

        A temperature makes much of it: of two organs that are both sure it must not make two that are certain.
        """
        codes = np.asarray(self.codes[index])
        found, odds = _tables()[0][codes], _tables()[1][codes[1:]]
        winner = odds.argmax(0)[None]
        surest = np.take_along_axis(odds, winner, 0)[0]
        others = found[1:].copy()
        np.put_along_axis(others, winner, 0, 0)
        missing = np.maximum(255 * expit(-surest) - others.sum(0), 0)
        found[0] += np.where((surest > 0) & (found[0] == 0), missing, 0)
        return found

    def log_odds(self, index: Any) -> np.ndarray:
        """Log-odds of a slice, float32: minus infinity where the probability is 0, `-FLOOR` for certain background."""
        found: np.ndarray = _tables()[1][np.asarray(self.codes[index])]
        return found


def encoded(logits: torch.Tensor, *, regions: bool) -> npt.NDArray[np.uint16]:
    """Codes ``(K, ...)`` uint16 of logits ``(K, ...)``; the first channel is background unless they are regions."""
    odds = (logits if regions else _log_odds(logits)).float().clamp(max=SUREST)
    codes: npt.NDArray[np.uint16] = torch.where(odds >= FLOOR, EVEN + _position(odds).round(), 0.0).numpy().astype(np.uint16)
    if not regions:
        codes[0][(odds[0] > -FLOOR).numpy()] = CERTAIN_BACKGROUND
    return codes


def _position(log_odds: torch.Tensor) -> torch.Tensor:
    """Unrounded code, counted from that of the probability one half."""
    return PROBABILITY_STEPS * (torch.sigmoid(log_odds) - 0.5) + LOG_ODDS_STEPS * log_odds


def _log_odds(logits: torch.Tensor) -> torch.Tensor:
    """``log(p / (1 - p))`` of each class, p the softmax over the first axis."""
    shares = (logits.double() - logits.double().amax(0, keepdim=True)).exp()
    winner = logits.argmax(0, keepdim=True)
    others = shares.scatter(0, winner, 0.0).sum(0, keepdim=True)  # exact also where the sum of all is 1 but for rounding
    return (shares / (1 + others - shares)).log().scatter(0, winner, -others.log())


@lru_cache(maxsize=1)
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """Code to probability times 255, and to log-odds, ``(65536,)`` float32."""
    grid = torch.linspace(FLOOR, SUREST, 2**18, dtype=torch.float64)
    odds = np.interp(np.arange(CERTAIN_BACKGROUND + 1.0) - EVEN, _position(grid).numpy(), grid.numpy())
    odds[EVEN] = 0
    odds[0], odds[-1] = -np.inf, -FLOOR
    shares = 255 / (1 + np.exp(-odds))
    shares[-1] = 255
    return shares.astype(np.float32), odds.astype(np.float32)
