"""Splits into training and validation cases, one a fold of the cross-validation."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from ..schema import Fingerprint, Split

log = logging.getLogger(__name__)


def make_splits(fingerprint: Fingerprint, groups: Mapping[str, str], *, n_folds: int = 5, seed: int = 12345) -> list[Split]:
    """Folds in which no group (patient) is on both sides, and rare organs and the number of cases are balanced.

    Where every case is its own group and has every organ, the folds are those of a shuffled `sklearn.model_selection.KFold` over the
    sorted names, which nnU-Net uses.

    Args:
        fingerprint: The cases and the organs in them.
        groups: Case to group; a case that is missing (or has an empty group) is its own group.
        n_folds: With fewer groups there are as many folds as groups.
        seed: Of the shuffle.

    Returns:
        One split a fold, names sorted; empty where there is just one group, which cannot be split.

    Raises:
        ValueError: Fewer than two folds wanted.
    """
    if n_folds < 2:
        raise ValueError(f"folds: expected at least 2, got {n_folds}")
    organs = {case.name: tuple(count > 0 for count in case.voxels) for case in fingerprint.cases}
    members: dict[str, list[str]] = defaultdict(list)
    for name in sorted(organs):
        members[groups.get(name) or name].append(name)
    if len(members) < 2:
        log.warning("%d group(s) of cases: no cross-validation is possible; train with fold 'all'", len(members))
        return []
    if len(members) < n_folds:
        log.warning("%d groups of cases are too few for %d folds: making %d folds", len(members), n_folds, len(members))
    folds = min(n_folds, len(members))
    simple = len({len(cases) for cases in members.values()}) == 1 and all(all(present) for present in organs.values())
    # in the order and of the sizes that scikit-learn's KFold gives them
    shuffled = [sorted(members)[index] for index in np.random.RandomState(seed).permutation(len(members))]
    parts = [part.tolist() for part in np.array_split(shuffled, folds)] if simple else _balanced_parts(members, shuffled, organs, folds)
    return [_split(members, part) for part in parts]


def _split(members: Mapping[str, Sequence[str]], part: Sequence[str]) -> Split:
    """The split whose validation cases are those of the groups in `part`."""
    chosen = set(part)
    val = sorted(case for group in chosen for case in members[group])
    train = sorted(case for group, cases in members.items() if group not in chosen for case in cases)
    return Split(tuple(train), tuple(val))


def _balanced_parts(
    members: Mapping[str, Sequence[str]], names: Sequence[str], organs: Mapping[str, Sequence[bool]], folds: int
) -> list[list[str]]:
    """Deals out the groups one by one, those with the rarest organ first, to the fold that lacks their organs most.

    After Sechidis et al., "On the stratification of multi-label data", ECML PKDD 2011.
    """
    counts = np.array([np.sum([organs[case] for case in members[name]], axis=0) for name in names], dtype=float)
    counts = counts.reshape(len(names), -1)
    sizes = np.array([len(members[name]) for name in names])
    has = counts > 0
    rarity = np.where(has, has.sum(axis=0), len(names)).min(axis=1, initial=len(names))
    total = np.maximum(counts.sum(axis=0), 1)
    room = np.array([len(part) for part in np.array_split(np.arange(sizes.sum()), folds)], dtype=float)
    held = np.zeros((folds, counts.shape[1]))
    parts: list[list[str]] = [[] for _ in range(folds)]
    for index in sorted(range(len(names)), key=lambda i: (rarity[i], -sizes[i])):
        fold = _least_filled_fold(held / total, counts[index] / total, room, sizes[index])
        parts[fold].append(names[index])
        held[fold] += counts[index]
        room[fold] -= sizes[index]
    return parts


def _least_filled_fold(held: np.ndarray, added: np.ndarray, room: np.ndarray, size: int) -> int:
    """The fold with room whose organs become most even by adding a group of `size` cases; without any room, the emptiest fold.

    `held` ``(folds, organs)`` and `added` ``(organs,)`` are shares of each organ's cases; `room` ``(folds,)`` is in cases.
    """
    # Adding `added` raises the sum of squared shares by 2 held added + const: least where the fold lacks these organs.
    excess = np.where(room >= size, held @ added, np.inf) if (room >= size).any() else -room
    candidates = np.flatnonzero(np.isclose(excess, excess.min(), atol=1e-12))
    return int(candidates[np.argmax(room[candidates])])
