"""What the probabilities of held-out cases promised their Dice to be, beside what it was: kept with the choice, for the report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..runtime.serialization import read_json, write_json
from .dice_regression import foretold_by_others

FORETOLD = "foretold_dice.json"
"""In ``results/<dataset>``: organ to its `Foretold`."""


@dataclass(frozen=True)
class Foretold:
    """One organ of one held-out case.

    Attributes:
        case: Its name.
        promised: Dice that the calibrated probabilities promise; NaN where they know nothing of the organ.
        true: Dice after post-processing; NaN where the organ is absent from prediction and reference.
    """

    case: str
    promised: float
    true: float


def note_foretold(results: Path, found: dict[str, list[Foretold]]) -> None:
    """Writes what was foretold beside the choice."""
    write_json(results / FORETOLD, found)


def read_promises(results: Path) -> dict[str, tuple[Promise, ...]]:
    """Organ to the predicted and the true Dice of its held-out cases; each is predicted by a line through the others."""
    path = results / FORETOLD
    if not path.is_file():
        return {}
    found = read_json(path, dict[str, list[Foretold]])
    return {organ: promises for organ, some in found.items() if (promises := _promises(some))}


def _promises(some: list[Foretold]) -> tuple[Promise, ...]:
    promised, true = (np.array([getattr(one, name) for one in some], float) for name in ("promised", "true"))
    known = np.flatnonzero(~(np.isnan(promised) | np.isnan(true)))
    expected = foretold_by_others(promised[known], true[known]).tolist()
    return tuple(Promise(some[place].case, dice, float(true[place])) for place, dice in zip(known, expected, strict=True))


@dataclass(frozen=True)
class Promise:
    """What an organ's Dice in one held-out case was predicted to be without its reference, and what it was."""

    case: str
    predicted: float
    true: float
