"""Predictions that are changed where they are read, without a copy: with a temperature, averaged, on another grid, or cropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..data.label_subsets import labels_as_in
from ..schema import Geometry, Labels, Trace
from .log_odds import StoredLogOdds
from .logits import Logits


@dataclass(frozen=True, eq=False)
class _TemperatureScaled:
    """An array of logits, or of probabilities times 255, whose slices come with a temperature. All channels are read together."""

    array: Any
    kind: str
    temperature: float
    regions: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    @property
    def same_winners(self) -> Any:
        """A temperature changes no winner of a single model."""
        return self.array

    def __getitem__(self, index: Any) -> np.ndarray:
        if self.kind == "logits":
            return _numbers(self.array[index]) / np.float32(self.temperature)
        part = _numbers(self.array[index]) if self.regions else _complete(self.array, index)
        part /= 255
        power, tiny = np.float32(1 / self.temperature), np.finfo(np.float32).tiny
        rest = np.power(1 - part, power) if self.regions else None
        share = np.power(part, power, out=part)
        total = share.sum(axis=0) if rest is None else np.add(rest, share, out=rest)
        share *= 255 / np.maximum(total, tiny, out=total)
        return share


@dataclass(frozen=True, eq=False)
class _LazyMean:
    """The mean of several arrays of one shape, computed where it is read."""

    arrays: tuple[Any, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.arrays[0].shape)

    def __getitem__(self, index: Any) -> np.ndarray:
        total = _numbers(self.arrays[0][index]).copy()
        for array in self.arrays[1:]:
            total += _numbers(array[index])
        return total / np.float32(len(self.arrays))


@dataclass(frozen=True, eq=False)
class _Reordered:
    """An array whose channels come in another order."""

    array: Any
    order: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.order), *self.array.shape[1:])

    def __getitem__(self, index: Any) -> np.ndarray:
        channels, *rest = index if isinstance(index, tuple) else (index,)
        whole = (slice(None), *rest)
        part = self.array[whole]
        return (part.numpy() if isinstance(part, torch.Tensor) else np.asarray(part))[list(self.order)][channels]


@dataclass(frozen=True, eq=False)
class _LazyCrop:
    """A box of an array ``(K, Z, Y, X)``; it is read with slices from one number to another, or whole axes."""

    array: Any
    box: tuple[slice, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.array.shape[0], *(side.stop - side.start for side in self.box))

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        channels, *parts = index
        bounds = [(side.start, *part.indices(side.stop - side.start)) for part, side in zip(parts, self.box, strict=True)]
        z, y, x = (slice(first + low, first + high) for first, low, high, _ in bounds)
        return self.array[channels, z, y, x]


def crop_logits(logits: Logits, box: tuple[slice, ...]) -> Logits:
    """A prediction in a box of its grid. Its trace holds the size of the box, but no longer where that lies in the file."""
    crop = _LazyCrop(logits.array, box)
    return replace(logits, array=crop, trace=replace(logits.trace, shape=crop.shape[1:]))


def with_temperature(logits: Logits, temperature: float, labels: Labels) -> Logits:
    """A prediction whose logits are divided by a temperature above 0; probabilities become ``p^(1/T)``, normalised.

    The logits are not changed; the labels say whether channels are independent regions.
    """
    if temperature == 1:
        return logits
    return replace(logits, array=_TemperatureScaled(logits.array, logits.kind, temperature, labels.regions))


def in_order_of(logits: Logits, labels: Labels, target: Labels) -> Logits:
    """A prediction with its channels in the order of `data.label_subsets.labels_as_in`; `logits` itself where they have it already.

    Args:
        labels: Of the model that made it.
        target: Of the dataset.
    """
    wanted = labels_as_in(labels, target)
    if wanted.names == labels.names:
        return logits
    background = () if labels.regions else (0,)
    order = (*background, *(len(background) + labels.names.index(name) for name in wanted.names))
    return replace(logits, array=_Reordered(logits.array, order))


def lazy_mean(predictions: Sequence[Logits]) -> Logits:
    """The mean of several networks' predictions on one grid.

    Raises:
        ValueError: They are not of one kind, or not on one grid.
    """
    first = predictions[0]
    for one in predictions[1:]:
        if one.kind != first.kind or tuple(one.array.shape) != tuple(first.array.shape):
            raise ValueError(
                f"{first.trace.case}: mean of predictions: expected {first.kind} of shape {tuple(first.array.shape)} from every network, "
                f"found {one.kind} of shape {tuple(one.array.shape)}"
            )
    return first if len(predictions) == 1 else replace(first, array=_LazyMean(tuple(one.array for one in predictions)))


def on_first_grid(members: Sequence[Logits]) -> list[Logits]:
    """Predictions of one case with traces that lead to the grid of the first of them instead of the file's.

    What is exported then has the shape of the first one's logits (a 2D image's without the axis of its one slice), at their resolution.
    """
    trace = members[0].trace
    dim = trace.geometry.dim
    geometry = Geometry(tuple(trace.shape[-dim:]), tuple(trace.spacing[-dim:]), (0.0,) * dim, tuple(np.eye(dim).ravel().tolist()))
    crop = tuple((0, size) for size in trace.shape)

    def on_grid(other: Trace) -> Trace:
        order = tuple(range(dim))
        return replace(other, geometry=geometry, transpose=order, flips=(), shape_before_crop=tuple(trace.shape), crop=crop)

    return [replace(member, trace=on_grid(member.trace)) for member in members]


def complete_shares(logits: Logits, labels: Labels) -> Logits:
    """A prediction whose stored probabilities, where an organ wins, add up to 1 (`log_odds.StoredLogOdds.complete`)."""
    if labels.regions or logits.kind == "logits":
        return logits
    return replace(logits, array=_TemperatureScaled(logits.array, logits.kind, 1.0, labels.regions))


def _complete(array: Any, index: Any) -> np.ndarray:
    """A slice of probabilities times 255 of all channels of a softmax, with what was too small to be stored."""
    if isinstance(array, _Reordered):
        return _complete(array.array, index)[list(array.order)]
    return array.complete(index) if isinstance(array, StoredLogOdds) else _numbers(array[index])


def _numbers(part: Any) -> np.ndarray:
    array = part.numpy() if isinstance(part, torch.Tensor) else np.asarray(part)
    return array.astype(np.float32)
