"""Folds: patients stay together, rare organs are spread, and simple datasets get the usual shuffled folds."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.planners.splits import make_splits
from autoseg.schema import CaseFingerprint, Fingerprint, Split


def fingerprint(organs: dict[str, tuple[int, ...]]) -> Fingerprint:
    """A dataset of which only the organs matter."""
    return Fingerprint(tuple(CaseFingerprint(name, (8, 8, 8), (1.0, 1.0, 1.0), 1.0, 2, voxels) for name, voxels in organs.items()), ())


def check_partition(splits: list[Split], names: list[str]) -> None:
    """Every case validates exactly once, and trains in all other folds."""
    assert sorted(name for split in splits for name in split.val) == sorted(names)
    for split in splits:
        assert sorted(split.train + split.val) == sorted(names)
        assert all(list(side) == sorted(side) for side in (split.train, split.val))


def test_simple_dataset_has_the_folds_of_a_shuffled_kfold() -> None:
    splits = make_splits(fingerprint({f"c{i:02d}": (5,) for i in range(12)}), {})
    # sklearn.model_selection.KFold(5, shuffle=True, random_state=12345) on 12 sorted names
    expected = [(0, 3, 8), (7, 10, 11), (6, 9), (1, 4), (2, 5)]
    assert [tuple(int(name[1:]) for name in split.val) for split in splits] == expected


def test_order_of_the_cases_does_not_matter() -> None:
    names = [f"c{i:02d}" for i in range(23)]
    assert make_splits(fingerprint(dict.fromkeys(names, (1,))), {}) == make_splits(fingerprint(dict.fromkeys(names[::-1], (1,))), {})


@pytest.mark.parametrize(("patients", "most", "spread"), [(60, None, 0), (30, 6, 3)], ids=["of two cases each", "of one to five"])
def test_patients_stay_together_and_folds_are_balanced(patients: int, most: int | None, spread: int) -> None:
    rng = np.random.default_rng(0)
    groups = {f"p{i:02d}_{j}": f"p{i:02d}" for i in range(patients) for j in range(int(rng.integers(1, most)) if most else 2)}
    splits = make_splits(fingerprint(dict.fromkeys(groups, (9, 9, 9))), groups)
    check_partition(splits, list(groups))
    for split in splits:
        assert not {groups[name] for name in split.train} & {groups[name] for name in split.val}
    sizes = [len(split.val) for split in splits]
    assert max(sizes) - min(sizes) <= spread


@pytest.mark.parametrize("seed", [1, 12345])
def test_rare_organs_are_in_every_fold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = [f"c{i:03d}" for i in range(63)]
    rare, rarer = set(rng.choice(names, 10, replace=False)), set(rng.choice(names, 5, replace=False))
    organs = {name: (100, int(name in rare), int(name in rarer), int(rng.random() < 0.5)) for name in names}
    splits = make_splits(fingerprint(organs), {}, seed=seed)
    check_partition(splits, names)
    assert sorted(len(split.val) for split in splits) == [12, 12, 13, 13, 13]
    for split in splits:
        assert sum(name in rare for name in split.val) in (1, 2, 3)
        assert sum(name in rarer for name in split.val) == 1
        assert 4 <= sum(organs[name][3] for name in split.val) <= 10


def test_case_without_any_organ() -> None:
    names = [f"c{i}" for i in range(10)]
    splits = make_splits(fingerprint({name: (int(name != "c3"),) for name in names}), {})
    check_partition(splits, names)
    assert [len(split.val) for split in splits] == [2] * 5


def test_few_groups_make_fewer_folds_and_one_none(caplog: pytest.LogCaptureFixture) -> None:
    names = ["a1", "a2", "b1", "c1"]
    with caplog.at_level(logging.WARNING):
        splits = make_splits(fingerprint(dict.fromkeys(names, (1,))), {name: name[0] for name in names})
        assert make_splits(fingerprint({"a": (1,), "b": (1,)}), {"a": "p", "b": "p"}) == []
    assert len(splits) == 3
    check_partition(splits, names)
    assert "making 3 folds" in caplog.text and "fold 'all'" in caplog.text
    with pytest.raises(ValueError, match="at least 2, got 1"):
        make_splits(fingerprint({"a": (1,), "b": (1,)}), {}, n_folds=1)


@given(
    sizes=st.lists(st.integers(1, 9), min_size=2, max_size=12),
    organs=st.lists(st.integers(0, 7), min_size=1, max_size=12),
    n_folds=st.integers(2, 7),
)
@settings(max_examples=60, deadline=None)
def test_no_fold_ends_empty(sizes: list[int], organs: list[int], n_folds: int) -> None:
    groups = {f"p{patient:02d}_{case}": f"p{patient:02d}" for patient, size in enumerate(sizes) for case in range(size)}
    present = {name: tuple(organs[i % len(organs)] >> bit & 1 for bit in range(3)) for i, name in enumerate(groups)}
    splits = make_splits(fingerprint(present), groups, n_folds=n_folds)
    assert len(splits) == min(n_folds, len(sizes))
    assert all(split.train and split.val for split in splits)
    check_partition(splits, list(groups))
