"""Stacks several models' predictions of one case as channels of one array, the input of learned ensembles.

A channel is the logarithm of how much likelier one organ of one model is than background (of a region: than its absence), plus
`networks.combiners.MAX_LOG_RATIO`. It comes from log-odds in sixteen bits, in training as validation stored them, in prediction as it would
store them, so that both see the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit

from ..inference.log_odds import SUREST, StoredLogOdds
from ..inference.logits import Logits, check_same_image
from ..inference.quantised_logits import quantise, quantise_8_bits
from ..networks.combiners import MAX_LOG_RATIO
from ..preprocessing.resampling import resample_image
from ..schema import Labels, Trace
from ..schema.run_record import EIGHT_BITS

NONE_OF_255 = 0.5
"""Of 255: the value of a probability in eight bits that was rounded to 0."""

NONE = 1 / 512
"""Counts as the probability of what is not told from 0 (`log_odds.LEAST`), unless even less is left to it."""


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


def largest_ratio(stored: str, *, learns: bool) -> float:
    """Largest log-ratio in a stack: what learns sees both sides alike, as far as they are stored; what does not, how sure a model is."""
    return MAX_LOG_RATIO if learns or stored == EIGHT_BITS else SUREST


def as_stored(logits: Logits, labels: Labels, stored: str) -> Logits:
    """A prediction as validation would have stored it and `quantised_logits.load_logits` would give it back."""
    if logits.kind == "probability8":
        return logits
    eight = stored == EIGHT_BITS
    array = quantise_8_bits(logits.array, labels) if eight else StoredLogOdds(quantise(logits.array, labels))
    return replace(logits, array=array, kind="probability8")


def in_eight_bits(logits: Logits) -> Logits:
    """A stored prediction as earlier versions would have stored it."""
    return replace(logits, array=np.rint(logits.array[:]).astype(np.uint8)) if isinstance(logits.array, StoredLogOdds) else logits


def stacked(members: Sequence[Logits], labels: Sequence[Labels], trace: Trace, *, most: float = MAX_LOG_RATIO) -> np.ndarray:
    """The channels of a case on one grid; members with other grids are interpolated linearly, as for export.

    Args:
        members: Of the same case, as `as_stored` gives them.
        labels: By member.
        trace: Of the grid that is wanted, a member's.
        most: Largest log-ratio; larger ones become this.

    Returns:
        ``(M, Z, Y, X)`` float16, M the organs of all members; 0 is background for certain.

    Raises:
        ValueError: The members do not show the same part of the same image.
    """
    result = np.empty((sum(len(one.names) for one in labels), *trace.shape), np.float16)
    channel = 0
    for member, organs in zip(members, labels, strict=True):
        check_same_image("models of one ensemble", trace, member.trace)
        shares = _LogOddsShares.of(member) if isinstance(member.array, StoredLogOdds) else _EightBitShares(member)
        background = None if organs.regions else shares.logarithm(0, trace)
        for organ in range(len(organs.names)):
            share = shares.logarithm(organ + (not organs.regions), trace)
            rest = shares.logarithm(organ, trace, absence=True) if background is None else background
            result[channel] = np.clip(share - rest + MAX_LOG_RATIO, 0, MAX_LOG_RATIO + most)
            channel += 1
    return result


@dataclass(frozen=True, eq=False)
class _EightBitShares:
    """Probabilities that an earlier version stored."""

    member: Logits

    def logarithm(self, output: int, trace: Trace, *, absence: bool = False) -> np.ndarray:
        """Of the probability of one output, or that it is absent, on the wanted grid, float32."""
        share = _on_grid(np.asarray(self.member.array[output : output + 1]), self.member.trace, trace)
        found: np.ndarray = np.log(np.maximum(255 - share if absence else share, NONE_OF_255) / 255)
        return found


@dataclass(frozen=True, eq=False)
class _LogOddsShares:
    """Probabilities of stored log-odds, precise also next to 0 and 1; `none` ``(Z, Y, X)`` stands for one that is not told from 0."""

    member: Logits
    none: np.ndarray

    @classmethod
    def of(cls, member: Logits) -> _LogOddsShares:
        """Where one output leaves less than `NONE` to all others, each of them has at most that."""
        none = np.full(member.array.shape[1:], NONE, np.float32)
        for output in range(member.array.shape[0]):
            np.minimum(none, expit(-member.array.log_odds(np.s_[output])), out=none)
        return cls(member, none)

    def logarithm(self, output: int, trace: Trace, *, absence: bool = False) -> np.ndarray:
        """As `_EightBitShares.logarithm`."""
        odds = self.member.array.log_odds(np.s_[output : output + 1])
        none = np.isneginf(odds)
        if absence:
            share = np.where(none, np.float32(1 - NONE), expit(-odds))
        else:
            share = np.where(none, self.none, expit(odds))
        found: np.ndarray = np.log(_on_grid(share, self.member.trace, trace))
        return found


def _on_grid(values: np.ndarray, own: Trace, wanted: Trace) -> np.ndarray:
    """One output ``(1, Z, Y, X)`` on the wanted grid, ``(Z, Y, X)`` float32."""
    return resample_image(values, wanted.shape, spacing=own.spacing, new_spacing=wanted.spacing, order=1)[0]
