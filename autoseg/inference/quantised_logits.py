"""Stores predictions as log-odds in sixteen bits (`log_odds`), which compress to a small part of float32 logits.

Earlier versions stored probabilities in eight bits, which are still read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from ..preprocessing.storage import read_array, write_array
from ..runtime.provenance import forget_id, record_id
from ..runtime.serialization import read_json, write_json
from ..schema import Labels, Trace
from .log_odds import StoredLogOdds, encoded
from .logits import Logits

SLAB = 2**22
"""Values converted at once."""

Values = TypeVar("Values", np.uint8, np.uint16)


def quantise(logits: torch.Tensor | np.ndarray, labels: Labels) -> np.ndarray:
    """Codes of log-odds (`log_odds.encoded`) of logits ``(K, Z, Y, X)``, uint16."""
    return _by_slabs(logits, np.uint16, lambda slab: encoded(slab, regions=labels.regions))


def quantise_8_bits(logits: torch.Tensor | np.ndarray, labels: Labels) -> np.ndarray:
    """Softmax (regions: sigmoid) of logits ``(K, Z, Y, X)`` times 255, rounded to uint8, as earlier versions stored it."""

    def convert(slab: torch.Tensor) -> npt.NDArray[np.uint8]:
        shares = slab.float().sigmoid() if labels.regions else slab.float().softmax(0)
        rounded: npt.NDArray[np.uint8] = (shares * 255).round().to(torch.uint8).numpy()
        return rounded

    return _by_slabs(logits, np.uint8, convert)


def _by_slabs(
    logits: torch.Tensor | np.ndarray, dtype: type[Values], convert: Callable[[torch.Tensor], npt.NDArray[Values]]
) -> npt.NDArray[Values]:
    classes, slices, *plane = logits.shape
    result = np.empty(tuple(logits.shape), dtype)
    rows = max(1, SLAB // max(1, classes * math.prod(plane)))
    for start in range(0, slices, rows):
        result[:, start : start + rows] = convert(torch.as_tensor(logits[:, start : start + rows]))
    return result


def save_logits(folder: Path, case: str, logits: Logits, labels: Labels) -> None:
    """Writes a prediction's log-odds and trace to ``<case>.b2nd`` and ``<case>.trace.json``, with the content id of the former."""
    forget_id(folder / f"{case}.b2nd")
    write_array(folder / f"{case}.b2nd", quantise(logits.array, labels))
    record_id(folder / f"{case}.b2nd")
    write_json(folder / f"{case}.trace.json", logits.trace)


def has_logits(folder: Path, case: str) -> bool:
    """Whether `save_logits` wrote that case, and nobody removed it since."""
    return (folder / f"{case}.b2nd").is_file() and (folder / f"{case}.trace.json").is_file()


def load_logits(folder: Path, case: str) -> Logits:
    """Opens what `save_logits` wrote, or an earlier version; raises ValueError, naming the file, where it is missing or damaged."""
    path, trace = folder / f"{case}.b2nd", folder / f"{case}.trace.json"
    if not has_logits(folder, case):
        missing = path if trace.is_file() else trace
        raise ValueError(f"{missing}: missing; validate this fold again (remove its validation folder and run the same autoseg_train)")
    array = read_array(path)
    return Logits(array if array.dtype == np.uint8 else StoredLogOdds(array), read_json(trace, Trace), kind="probability8")
