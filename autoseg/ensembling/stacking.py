"""Stacks several models' predictions of one case as channels of one array, the input of learned ensembles.

A channel is the logarithm of how much likelier one organ of one model is than background (of a region: than its absence), plus
`networks.combiners.CERTAIN`. It comes from probabilities in eight bits, in training as validation stored them, in prediction as it
would store them, so that both see the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..inference.logits import Logits, check_same_image
from ..inference.quantised_logits import quantise
from ..networks.combiners import MAX_LOG_RATIO
from ..preprocessing.resampling import resample_image
from ..schema import Labels, Trace

LEAST = 0.5
"""Of 255: the value of a probability that was rounded to 0."""


@dataclass(frozen=True)
class Layout:
    """Channels of each member's organs in the stack; of members with these labels, and for the organs of the ensemble."""

    members: tuple[str, ...]
    labels: tuple[Labels, ...]
    organs: tuple[str, ...]

    @property
    def spans(self) -> list[list[int]]:
        """For each member its first channel and the one after its last."""
        ends = np.cumsum([0, *(len(labels.names) for labels in self.labels)]).tolist()
        return [[start, stop] for start, stop in zip(ends[:-1], ends[1:], strict=True)]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the channels: the organ and its member."""
        return tuple(f"{organ} of {member}" for member, labels in zip(self.members, self.labels, strict=True) for organ in labels.names)

    def channels(self, only: Mapping[str, str] | None = None) -> list[list[int]]:
        """For each organ of the ensemble its channels: of all members that know it, or of the one that `only` names for it."""
        owners = list(zip(self.members, self.labels, self.spans, strict=True))
        return [
            [
                start + labels.names.index(organ)
                for name, labels, (start, _) in owners
                if organ in labels.names and (only is None or only[organ] == name)
            ]
            for organ in self.organs
        ]


def as_stored(logits: Logits, labels: Labels) -> Logits:
    """A prediction as `quantised_logits.save_logits` and `load_logits` would give it back."""
    return logits if logits.kind == "probability8" else replace(logits, array=quantise(logits.array, labels), kind="probability8")


def stacked(members: Sequence[Logits], labels: Sequence[Labels], trace: Trace) -> np.ndarray:
    """The channels of a case on one grid; members with other grids are interpolated linearly, as for export.

    Args:
        members: Of the same case, as `as_stored` gives them.
        labels: By member.
        trace: Of the grid that is wanted, a member's.

    Returns:
        ``(M, Z, Y, X)`` float16, M the organs of all members; 0 is background for certain.

    Raises:
        ValueError: The members do not show the same part of the same image.
    """
    result = np.empty((sum(len(one.names) for one in labels), *trace.shape), np.float16)
    channel = 0
    for member, organs in zip(members, labels, strict=True):
        check_same_image("models of one ensemble", trace, member.trace)
        background = None if organs.regions else _logarithm(_on_grid(member, 0, trace))
        for organ in range(len(organs.names)):
            share = _on_grid(member, organ + (not organs.regions), trace)
            rest = _logarithm(255 - share) if background is None else background
            result[channel] = np.clip(_logarithm(share) - rest + MAX_LOG_RATIO, 0, 2 * MAX_LOG_RATIO)
            channel += 1
    return result


def _on_grid(member: Logits, output: int, trace: Trace) -> np.ndarray:
    """255 times the probability of one output, on the wanted grid, float32."""
    values = np.asarray(member.array[output : output + 1])
    return resample_image(values, trace.shape, spacing=member.trace.spacing, new_spacing=trace.spacing, order=1)[0]


def _logarithm(share: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(share, LEAST) / 255)
