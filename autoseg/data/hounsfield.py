"""Whether an image called CT can be one: whether its values can be Hounsfield units."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np

log = logging.getLogger(__name__)

CT_CHANNEL = "ct"


def is_ct(channel: str) -> bool:
    """Whether a channel's name says that it is a CT."""
    return channel.strip().casefold() == CT_CHANNEL


def not_in_hounsfield_units(array: np.ndarray) -> str:
    """Describes the values of an image where they cannot be Hounsfield units; empty where they can.

    Every CT that was not cut to positive values shows air or fat, both below 0; an MR, and a CT stored with an offset, has nothing there.
    """
    low = array.min(initial=np.inf)
    if low < 0 and np.isfinite(low):  # as every CT has it: nothing is copied to see that
        return ""
    finite = array[np.isfinite(array)]
    if not finite.size or finite.min() == finite.max() or finite.min() < 0:
        return ""
    return f"values from {finite.min():.4g} to {finite.max():.4g}"


def warn_of_other_units(found: Mapping[str, str], n_cases: int) -> None:
    """Says which of a dataset's cases have a channel called CT that cannot be in Hounsfield units; `found` is what each of them has."""
    if found:
        name, values = next(iter(found.items()))
        log.warning(
            "%d of %d cases have a channel called CT without a value below 0 (%s: %s), which Hounsfield units have (air -1000, fat -100). "
            "If it is an MR, call it MR in dataset.json; if it is a CT, undo its offset.",
            len(found),
            n_cases,
            name,
            values,
        )
