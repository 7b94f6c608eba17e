"""Logits of a case on its network's grid, and their probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..schema import Labels, Trace

KINDS = ("logits", "probability8")


@dataclass(frozen=True)
class Logits:
    """A model's prediction of a case, on the grid of its configuration.

    Attributes:
        array: ``(K, Z, Y, X)`` in `trace`'s axis order: a tensor, an array, or anything that gives arrays when sliced (blosc2).
        trace: Of the case.
        kind: ``logits``, or ``probability8`` for probabilities times 255, as stored predictions are read.

    Raises:
        ValueError: The kind is unknown, or the array has not the trace's shape.
    """

    array: Any
    trace: Trace
    kind: str = "logits"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.trace.case}: kind of logits: expected one of {', '.join(KINDS)}, got {self.kind!r}")
        if tuple(self.array.shape[1:]) != tuple(self.trace.shape):
            raise ValueError(f"{self.trace.case}: expected logits on the grid {tuple(self.trace.shape)}, got {tuple(self.array.shape)}")


def probability(values: torch.Tensor, kind: str, *, regions: bool) -> torch.Tensor:
    """Probabilities of logits ``(K, N)``: softmax over the channels (regions: sigmoid); of stored ones, 0..255 scaled to 0..1."""
    if kind == "probability8":
        return values / 255
    return torch.sigmoid(values) if regions else torch.softmax(values, 0)


def check_members(members: Sequence[Logits], labels: Labels) -> None:
    """Refuses members that do not belong together or to `labels`: raises ValueError."""
    if not members:
        raise ValueError("export: expected the logits of at least one model, got none")
    first = members[0].trace
    for member in members:
        case = member.trace.case
        if member.array.shape[0] != labels.n_outputs:
            organs = ", ".join(labels.names)
            raise ValueError(f"{case}: expected {labels.n_outputs} output channels for {organs}, got {member.array.shape[0]}")
        check_same_image("models to average", first, member.trace, also=("geometry",))


def check_same_image(models: str, first: Trace, other: Trace, *, also: Sequence[str] = ()) -> None:
    """Refuses predictions that do not show the same part of the same image: raises ValueError."""
    for field in ("case", *also, "transpose", "flips", "shape_before_crop", "crop"):
        expected, found = getattr(first, field), getattr(other, field)
        if expected != found:
            raise ValueError(f"{other.case}: {models} disagree about the {field}: expected {expected}, found {found}")
