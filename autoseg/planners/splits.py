"""Splits into training and validation cases, one a fold of the cross-validation."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..runtime.provenance import Stamp, file_id, forget, record, recorded_stamp
from ..runtime.serialization import write_json
from ..runtime.splits_file import check_known, read_splits, without_cases
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


def planned_splits(
    path: Path,
    fingerprint: Fingerprint,
    groups: Mapping[str, str],
    made_before: Sequence[Split] | None,
    *,
    left_out: Collection[str] = (),
    dry: bool = False,
) -> list[Split]:
    """The folds that are there already, or new ones; a file that a person wrote or changed is used or refused, never replaced.

    Planning anew, with other organs say, then leaves the folds as they are, and models of before and after can be compared.

    Args:
        path: ``splits.json``.
        fingerprint: Of the cases.
        groups: Case to patient.
        made_before: What `make_splits` gave for the former plan, by which a file of earlier versions, which wrote no stamp, is known;
            None where there is no former plan.
        left_out: Cases of the dataset that cannot be used; of a user's folds they are taken out here, and stay in the file.
        dry: Write no stamp for a file of earlier versions.

    Raises:
        ValueError: The user's file is wrong, or does not fit the cases and patients.
    """
    if not path.is_file():
        return make_splits(fingerprint, groups)
    splits = read_splits(path)
    if _is_made(path, splits, made_before):
        reason = _misfit(splits, fingerprint, groups)
        if not reason:
            if not dry:
                _record(path)
            return splits or make_splits(fingerprint, groups)
        log.warning("%s: does not fit the dataset (%s); the cases are divided into folds again", path, reason)
        return make_splits(fingerprint, groups)
    check_known(splits, (*(case.name for case in fingerprint.cases), *left_out), str(path))
    if unused := sorted({name for split in splits for name in (*split.train, *split.val)} & set(left_out)):
        log.warning("%s: of its folds these cases cannot be used, and are left out: %s", path, ", ".join(unused))
    splits = without_cases(splits, left_out, str(path))
    reason = _misfit(splits, fingerprint, groups) or ("" if splits else "it has no fold")
    if reason:
        what = "was written or changed by hand, and does not fit the dataset"
        raise ValueError(f"{path}: {what} ({reason}); correct it, or move it away to have folds made")
    return splits


def write_splits(path: Path, splits: Sequence[Split], *, left_out: Collection[str] = ()) -> None:
    """Writes folds that `planned_splits` gave, with a stamp by which they are known as made by planning; the user's file stays."""
    if are_in_file(path, splits, left_out):
        return
    forget(path)
    write_json(path, splits, digest=False)  # the user may edit it
    _record(path)


def are_in_file(path: Path, splits: Sequence[Split], left_out: Collection[str]) -> bool:
    """Whether a file holds these folds, but for cases that are left out."""
    if not path.is_file():
        return False
    written = read_splits(path)
    try:
        return written == list(splits) or without_cases(written, left_out, str(path)) == list(splits)
    except ValueError:  # nothing is left of a fold
        return False


def _record(path: Path) -> None:
    record(path, Stamp({path.name: file_id(path)}))


def _is_made(path: Path, splits: Sequence[Split], made_before: Sequence[Split] | None) -> bool:
    """Whether planning wrote the file as it is."""
    stamp = recorded_stamp(path)
    if stamp is not None:
        return stamp.inputs.get(path.name) == file_id(path)
    return made_before is not None and list(splits) == list(made_before)


def _misfit(splits: Sequence[Split], fingerprint: Fingerprint, groups: Mapping[str, str]) -> str:
    """Why folds do not fit the cases and patients; empty where they do."""
    usable = {case.name for case in fingerprint.cases}
    for number, split in enumerate(splits):
        both = {groups[name] for name in split.train if name in groups} & {groups[name] for name in split.val if name in groups}
        unfit = {*split.train, *split.val} ^ usable
        if both:
            return f"fold {number}: patient {min(both)} is on both sides"
        if unfit:
            return f"fold {number}: case {min(unfit)} is new or gone"
    return ""


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
    for done, index in enumerate(sorted(range(len(names)), key=lambda i: (rarity[i], -sizes[i]))):
        empty = [fold for fold in range(folds) if not parts[fold]]
        # The last groups go where there is none yet: a fold without cases cannot validate.
        eligible = empty if len(names) - done <= len(empty) else list(range(folds))
        fold = eligible[_least_filled_fold(held[eligible] / total, counts[index] / total, room[eligible], sizes[index])]
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
