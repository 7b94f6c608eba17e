"""Training options that are names: an unknown one is refused before anything else is done, also where nothing is left to train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..runtime.registry import lookup
from .case_sampling import CASE_SAMPLINGS
from .losses import LOSSES
from .losses.deep_supervision import SUPERVISIONS
from .optimizers import OPTIMIZERS
from .schedules import SCHEDULES

NAMED: dict[str, Mapping[str, Any]] = {
    "loss": LOSSES,
    "supervision": SUPERVISIONS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "case_sampling": CASE_SAMPLINGS,
}
"""Field of `TrainingOptions` to the table that it is looked up in."""


def check_option_names(changes: Mapping[str, Any]) -> None:
    """Raises a ValueError for a name that is neither in its table nor can be imported; `changes` are the user's options."""
    for field, table in NAMED.items():
        if field in changes:
            lookup(table, str(changes[field]), field)
