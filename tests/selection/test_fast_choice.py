"""Which candidates and which way of predicting are taken for speed."""

from __future__ import annotations

import math

import pytest

from autoseg.schema import CandidateComparison, Choice, Evidence
from autoseg.schema.cheaper_prediction import COARSE_TO_FINE, LARGER_STEPS, NO_MIRRORING, DiceLoss
from autoseg.selection.fast_choice import candidate_loss, fast_choice, fast_way

BOTH = "2d + 3d"


def choice(dice: dict[str, dict[str, float]], **changes: object) -> Choice:
    """The average of both models was chosen for each organ, with an interval of 0.03 on either side."""
    organs = next(iter(dice.values()))
    evidence = {
        organ: Evidence(
            BOTH, 9, {name: CandidateComparison(one[organ], one[organ] - 0.03, one[organ] + 0.03) for name, one in dice.items()}
        )
        for organ in organs
    }
    folds = dict.fromkeys(("2d", "3d"), ("0", "1", "2"))
    options = {"member_folds": folds, "evidence": evidence, "seconds": {"2d": 1.0, "3d": 5.0, BOTH: 6.0}}
    return Choice(dict.fromkeys(organs, ("2d", "3d")), ("0", "1", "2"), dice, 9, **options | changes)


def test_the_cheapest_within_the_interval_and_a_hundredth_stands_in_with_one_fold() -> None:
    found = fast_choice(choice({"2d": {"liver": 0.895}, "3d": {"liver": 0.9}, BOTH: {"liver": 0.9}}), ("2d", "3d"))
    assert found.organs == {"liver": ("2d",)} and found.member_folds == {"2d": ("0",)}
    assert candidate_loss(found, "liver", "2d") == pytest.approx(0.005)


def test_more_than_a_hundredth_is_not_given() -> None:
    found = fast_choice(choice({"2d": {"liver": 0.88}, "3d": {"liver": 0.895}, BOTH: {"liver": 0.9}}), ("2d", "3d"))
    assert found.organs == {"liver": ("3d",)}


def test_one_model_of_all_organs_is_cheaper_than_two() -> None:
    dice = {"2d": {"liver": 0.9, "vessel": 0.5}, "3d": {"liver": 0.9, "vessel": 0.7}, BOTH: {"liver": 0.9, "vessel": 0.7}}
    assert set(fast_choice(choice(dice), ("2d", "3d")).organs.values()) == {("3d",)}


@pytest.mark.parametrize("changes", [{"seconds": {}}, {"evidence": {}}])
def test_what_is_not_known_stays(changes: dict[str, object]) -> None:
    given = choice({"2d": {"liver": 0.9}, BOTH: {"liver": 0.9}}, **changes)
    assert fast_choice(given, ("2d", "3d")).organs == given.organs
    assert fast_choice(choice({"2d": {"liver": 0.9}, BOTH: {"liver": 0.9}}), ("3d",)).organs == given.organs, "a model that is not there"


def test_of_distances_small_ones_are_good() -> None:
    dice = {"2d": {"liver": 0.9}, BOTH: {"liver": 0.9}}
    far = {"2d": CandidateComparison(9.0, 8.0, 10.0), BOTH: CandidateComparison(3.0, 2.0, 4.0)}
    given = choice(dice, metric="hd95_surface", evidence={"liver": Evidence(BOTH, 9, far)})
    assert fast_choice(given, ("2d", "3d")).organs == given.organs


def test_the_cheapest_way_that_loses_a_hundredth_at_most() -> None:
    known = {
        way: DiceLoss(lost, math.nan, math.nan, 5) for way, lost in ((NO_MIRRORING, 0.0), (LARGER_STEPS, 0.005), (COARSE_TO_FINE, 0.02))
    }
    assert fast_way(known) == LARGER_STEPS
    assert fast_way({COARSE_TO_FINE: DiceLoss(0.02, 0.0, 0.1, 5)}) is None
    assert fast_way({}) == LARGER_STEPS, "nobody measured any"


def test_no_single_organ_is_lost_behind_the_mean_of_many() -> None:
    many = {f"organ {number}": 0.0 for number in range(13)}
    adrenal, even = ({**many, "adrenal": lost} for lost in (0.12, 0.02))
    ways = {NO_MIRRORING: DiceLoss(0.0, 0.0, 0.0, 5, many), COARSE_TO_FINE: DiceLoss(0.0086, 0.0, 0.01, 5, adrenal)}
    assert fast_way(ways) == NO_MIRRORING
    assert fast_way({**ways, COARSE_TO_FINE: DiceLoss(0.0014, 0.0, 0.01, 5, even)}) == COARSE_TO_FINE
