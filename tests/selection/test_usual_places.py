"""A mask of a usual volume in a wholly wrong place, and the normal variety of right places."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from autoseg.inference.organ_places import OrganPlace
from autoseg.inference.organ_statistics import OrganStatistics
from autoseg.inference.uncertainty import OrganUncertainty
from autoseg.runtime.serialization import from_jsonable, to_jsonable
from autoseg.schema import Choice, DiceRegression, UsualPlace
from autoseg.selection.case_ranking import ranked
from autoseg.selection.dice_regression import QualityEstimate, estimated_dice, fit_dice_regression
from autoseg.selection.usual_places import FEWEST_PLACES, MARGIN_ALONE, MARGIN_OF_FEW, possible_dice, usual_place

SPREAD, IMAGE = (12.0, 12.0, 12.0), (300.0, 300.0, 200.0)


def places(count: int, *, seed: int = 0, others: bool = True, around: tuple[float, ...] = (20.0, -10.0, 0.0)) -> list[OrganPlace]:
    """Where an organ lies in `count` references: its centre varies by 10 mm, its distance from the others by 5 mm."""
    rng = np.random.default_rng(seed)
    found = []
    for centre, apart in zip(rng.normal(around, 10.0, (count, 3)), rng.normal((30, 0, 5), 5.0, (count, 3)), strict=True):
        found.append(OrganPlace(tuple(centre), tuple(apart) if others else (), SPREAD, IMAGE, 1.0))
    return found


def moved(place: OrganPlace, *by: float, with_others: bool = False) -> OrganPlace:
    apart = place.from_others_mm if with_others else tuple(a + b for a, b in zip(place.from_others_mm, by, strict=False))
    return replace(place, centre_mm=tuple(a + b for a, b in zip(place.centre_mm, by, strict=True)), from_others_mm=apart)


@pytest.mark.parametrize("others", [True, False])
@pytest.mark.parametrize("count", [FEWEST_PLACES, 30, 100])
def test_of_organs_in_their_normal_places_hardly_any_is_out_of_place(count: int, others: bool) -> None:
    usual = [usual_place(places(count, seed=seed, others=others)) for seed in range(30)]
    new = places(100, seed=99, others=others)
    possible = np.array([possible_dice(one, some) for some in usual for one in new])
    assert np.mean(possible < 1) < 0.02 and np.mean(possible < 0.9) < 0.005
    assert usual_place(places(FEWEST_PLACES - 1)) is None


@pytest.mark.parametrize("others", [True, False])
def test_far_from_every_usual_place_no_dice_is_possible(others: bool) -> None:
    usual, (new,) = usual_place(places(40, others=others)), places(1, seed=5, others=others)
    possible = [possible_dice(moved(new, 0, distance, 0), usual) for distance in (0, 30, 60, 90, 150)]
    assert possible == sorted(possible, reverse=True)
    assert possible[0] == 1 and 0.2 < possible[2] < 0.95 and possible[-1] == 0


def test_what_a_shift_leaves_is_that_of_two_balls() -> None:
    """A ball of radius 12 √5 whose centre is one radius beyond the last usual place and its margin."""
    usual = UsualPlace((-10.0,) * 3, (10.0,) * 3, (), (), IMAGE, IMAGE, 200)
    radius, margin = 12 * math.sqrt(5), 20 * (MARGIN_ALONE + MARGIN_OF_FEW / 200)
    place = OrganPlace((10 + margin + radius, 0.0, 0.0), (), SPREAD, IMAGE, 1.0)
    assert possible_dice(place, usual) == pytest.approx(1 - 1.5 / 2 + 0.5 / 8)


def test_another_field_of_view_is_no_wrong_place() -> None:
    """All organs elsewhere but side by side as ever; or an image of another size, whose middle is another place of the body."""
    usual, (new,) = usual_place(places(40)), places(1, seed=5)
    assert possible_dice(moved(new, 0, 150, 0, with_others=True), usual) == 1
    alone = moved(replace(new, from_others_mm=()), 0, 0, 150)
    usual = usual_place(places(40, others=False))
    assert possible_dice(alone, usual) == 0
    assert possible_dice(replace(alone, image_mm=(300.0, 300.0, 500.0)), usual) == 1


def test_an_image_of_fewer_axes_is_not_compared() -> None:
    assert possible_dice(OrganPlace((500.0, 0.0), (), (3.0, 3.0), (100.0, 100.0), 1.0), usual_place(places(20))) == 1


def held_out(count: int = 40) -> list[QualityEstimate]:
    """Good masks in usual places, some less good."""
    rng, found = np.random.default_rng(3), []
    for number, place in enumerate(places(count)):
        low = rng.uniform(0.5, 0.9)
        mask = OrganStatistics(rng.uniform(0.85, 0.95), 100.0, 0.5 + low / 2, low, rng.uniform(0.2, 0.3), 0.8, place)
        found.append(QualityEstimate(f"c{number}", mask.expected_dice, low + 0.05, mask, 100.0, "", place))
    return found


def test_an_organ_in_a_wholly_wrong_place_is_named_first() -> None:
    cases = held_out()
    regression = fit_dice_regression(cases)
    best = max(cases, key=lambda one: one.true_dice).mask
    masks = {f"n{number}": one.mask for number, one in enumerate(cases)}
    masks["elsewhere"] = replace(best, place=moved(best.place, -150, 0, 30))
    rows = [OrganUncertainty(case, "liver", 100.0, mask.expected_dice, statistics=mask) for case, mask in masks.items()]
    first = ranked(rows, Choice({}, (), {}, 0, dice_regression={"liver": regression}))[0]
    assert (first.uncertainty.case, first.dice) == ("elsewhere", 0.0)
    assert estimated_dice(regression, best) > 0.85
    assert from_jsonable(to_jsonable(regression), DiceRegression) == regression


def test_files_of_earlier_versions_know_no_places() -> None:
    """Neither a choice nor masks without places are judged by them, and a regression fitted without them is not changed."""
    cases = held_out()
    regression = fit_dice_regression(cases)
    stored = to_jsonable(regression)
    del stored["place"]
    mask = to_jsonable(cases[0].mask)
    del mask["place"]
    old = from_jsonable(mask, OrganStatistics)
    assert from_jsonable(stored, DiceRegression).place is None and math.isnan(old.largest_share)
    assert 0 < estimated_dice(regression, old) < 1
    without = [replace(one, statistics=replace(one.mask, place=None), reference_place=None) for one in cases]
    assert fit_dice_regression(without).place is None and "largest_share" not in fit_dice_regression(without).features


def test_a_mask_in_pieces_is_estimated_lower() -> None:
    rng = np.random.default_rng(0)
    cases = []
    for one in held_out():
        share = rng.uniform(0.4, 1.0)
        place = replace(one.mask.place, largest_share=share)
        cases.append(replace(one, true_dice=share - 0.05, statistics=replace(one.mask, place=place)))
    regression = fit_dice_regression(cases)
    whole, pieces = (replace(cases[0].mask, place=replace(cases[0].mask.place, largest_share=share)) for share in (0.95, 0.5))
    assert estimated_dice(regression, whole) > estimated_dice(regression, pieces) + 0.3
