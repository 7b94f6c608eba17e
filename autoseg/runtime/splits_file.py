"""``splits.json``: the folds of a dataset, made by planning or written by the user; what is wrong in it is refused by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..schema import Split
from ..schema.names import check_name
from .strict_json import read_strict_json, shown

FORM = 'a list of objects such as {"train": ["case_1", "case_2"], "val": ["case_3"]}, one for each fold'


def read_splits(path: Path, cases: Iterable[str] | None = None) -> list[Split]:
    """Reads and checks the folds of a dataset.

    Args:
        path: In the format of nnU-Net's ``splits_final.json``.
        cases: Those that can be trained on; None leaves unchecked which there are.

    Raises:
        ValueError: It is no such list, or a fold has no training or no validation cases, a case twice or on both sides, or one that is
            none of `cases`. The message says which fold and case.
    """
    entries = read_strict_json(path)
    if not isinstance(entries, list):
        raise ValueError(f"{path}: expected {FORM}; found {shown(entries)}")
    splits = [_split(entry, f"{path}: fold {number}") for number, entry in enumerate(entries)]
    if cases is not None:
        check_known(splits, cases, str(path))
    return splits


def check_known(splits: Iterable[Split], cases: Iterable[str], source: str) -> None:
    """Raises a ValueError where a fold names a case that is none of `cases`."""
    known = set(cases)
    for number, split in enumerate(splits):
        unknown = [name for name in (*split.train, *split.val) if name not in known]
        if unknown:
            raise ValueError(
                f"{source}: fold {number}: expected cases of the dataset that can be read ({len(known)}), found {unknown[0]!r}, which is"
                f" none of them{f', and {len(unknown) - 1} more' if len(unknown) > 1 else ''}; correct the file, or move it away to have"
                " folds made"
            )


def without_cases(splits: Iterable[Split], left_out: Iterable[str], source: str) -> list[Split]:
    """Folds without cases that cannot be used; a ValueError where nothing is left of one side of a fold."""
    gone, kept = set(left_out), []
    for number, split in enumerate(splits):
        one = Split(*(tuple(name for name in side if name not in gone) for side in (split.train, split.val)))
        if not one.train or not one.val:
            names = ", ".join(sorted(gone & {*split.train, *split.val}))
            what = "validation" if one.train else "training"
            raise ValueError(f"{source}: fold {number}: expected a {what} case that can be used, but {names} cannot; repair one of them")
        kept.append(one)
    return kept


def _split(entry: Any, source: str) -> Split:
    if not isinstance(entry, dict) or set(entry) != {"train", "val"}:
        raise ValueError(f"{source}: expected {FORM}; found {shown(entry)}")
    sides = {side: _names(entry[side], f"{source}: {side}") for side in ("train", "val")}
    both = sorted(set(sides["train"]) & set(sides["val"]))
    if both:
        raise ValueError(
            f"{source}: expected cases that are either trained on or validated, found {both[0]!r} in both train and val"
            f"{f', and {len(both) - 1} more' if len(both) > 1 else ''}; remove it from one of them"
        )
    return Split(**sides)


def _names(entry: Any, source: str) -> tuple[str, ...]:
    if not isinstance(entry, list) or not all(isinstance(name, str) for name in entry):
        wrong = entry if not isinstance(entry, list) else next(name for name in entry if not isinstance(name, str))
        raise ValueError(f"{source}: expected a list of names of cases, found {shown(wrong)}")
    if not entry:
        raise ValueError(f"{source}: expected at least one case, found an empty list")
    twice = [name for name, count in Counter(entry).items() if count > 1]
    if twice:
        raise ValueError(f"{source}: expected each case once, found {twice[0]!r} {Counter(entry)[twice[0]]} times")
    try:
        return tuple(check_name(name, "case") for name in entry)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
