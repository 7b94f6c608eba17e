"""Stores predictions as eight-bit probabilities: a quarter of the size of float32 logits, and far better to compress."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..preprocessing.storage import read_array, write_array
from ..runtime.provenance import forget_id, record_id
from ..runtime.serialization import read_json, write_json
from ..schema import Labels, Trace
from .logits import Logits

SLAB = 2**22
"""Values converted at once."""


def quantise(logits: torch.Tensor | np.ndarray, labels: Labels) -> np.ndarray:
    """Softmax (regions: sigmoid) of logits ``(K, Z, Y, X)`` times 255, rounded to uint8: wrong by half a unit at most, one part in 510."""
    values = torch.as_tensor(logits)
    result = np.empty(tuple(values.shape), np.uint8)
    rows = max(1, SLAB // max(1, values[:, 0].numel()))
    for start in range(0, values.shape[1], rows):
        slab = values[:, start : start + rows].float()
        shares = slab.sigmoid() if labels.regions else slab.softmax(0)
        result[:, start : start + rows] = (shares * 255).round().to(torch.uint8).numpy()
    return result


def save_logits(folder: Path, case: str, logits: Logits, labels: Labels) -> None:
    """Writes a prediction's probabilities and trace to ``<case>.b2nd`` and ``<case>.trace.json``, with the content id of the former."""
    forget_id(folder / f"{case}.b2nd")
    write_array(folder / f"{case}.b2nd", quantise(logits.array, labels))
    record_id(folder / f"{case}.b2nd")
    write_json(folder / f"{case}.trace.json", logits.trace)


def has_logits(folder: Path, case: str) -> bool:
    """Whether `save_logits` wrote that case, and nobody removed it since."""
    return (folder / f"{case}.b2nd").is_file() and (folder / f"{case}.trace.json").is_file()


def load_logits(folder: Path, case: str) -> Logits:
    """Opens what `save_logits` wrote; raises ValueError, naming the file, where it is missing or damaged."""
    path, trace = folder / f"{case}.b2nd", folder / f"{case}.trace.json"
    if not has_logits(folder, case):
        missing = path if trace.is_file() else trace
        raise ValueError(f"{missing}: missing; validate this fold again (remove its validation folder and run the same autoseg_train)")
    return Logits(read_array(path), read_json(trace, Trace), kind="probability8")
