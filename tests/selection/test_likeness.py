"""Estimated Dice of new images beside that of held-out cases: how often chance is taken for a difference, and what is said."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
import pytest

from autoseg.inference.organ_statistics import OrganStatistics
from autoseg.inference.uncertainty import OrganUncertainty
from autoseg.schema import Choice, DiceRegression
from autoseg.selection.case_ranking import compare_with_training, ranked, tell_likeness
from autoseg.selection.dice_regression import QualityEstimate
from autoseg.selection.likeness import CASE_LEVEL, SET_LEVEL, Likeness, describe_likeness, likeness
from autoseg.selection.quality_estimation import EstimatedDice, read_estimated_dice, write_quality_estimates

ORGANS = ("liver", "spleen")


def drawn(rng: np.random.Generator, count: int, *, lower: float = 0.0) -> np.ndarray:
    """Estimates ``(cases, organs)`` that go together, as the organs of one patient do."""
    return np.clip(0.85 - lower - 0.05 * rng.exponential(size=(count, 1)) - 0.03 * rng.exponential(size=(count, 2)), 0, 1)


def compared(new: np.ndarray, held_out: np.ndarray) -> Likeness:
    images = {f"new{place}": dict(zip(ORGANS, row, strict=True)) for place, row in enumerate(new.tolist())}
    columns = zip(ORGANS, held_out.T.tolist(), strict=True)
    return likeness(images, {organ: [EstimatedDice(f"c{i}", dice, dice) for i, dice in enumerate(column)] for organ, column in columns})


def test_of_images_like_the_training_images_few_are_said_to_be_unlike() -> None:
    rng, single, whole, repeats = np.random.default_rng(0), 0, 0, 60
    for _ in range(repeats):
        found = compared(drawn(rng, 10), drawn(rng, 60))
        single += len(found.unlike)
        whole += bool(found.unlike_organs)
    assert single / (10 * repeats) == pytest.approx(CASE_LEVEL, abs=0.03)
    assert whole <= 3, f"{SET_LEVEL:.0%} of {repeats}"


def test_images_of_another_kind_are_named_the_worst_first() -> None:
    rng = np.random.default_rng(1)
    new = np.concatenate([drawn(rng, 10), drawn(rng, 10, lower=0.3)])
    found = compared(new, drawn(rng, 60))
    assert set(found.unlike) >= {f"new{place}" for place in range(10, 20)}
    assert found.unlike_organs == ORGANS
    lines, warnings = describe_likeness(found)
    assert lines[0] == "Estimated mean Dice of 20 images, without references, beside the mean of 60 cases of the cross-validation:"
    assert lines[1].split()[:1] == ["liver"] and "clearly lower, p = 0.0" in lines[1]
    assert warnings[0].startswith("UNLIKE THE TRAINING IMAGES: the estimated Dice of liver, spleen is clearly lower")
    assert "new1" in warnings[1] and "(of images like them about 1)" in warnings[1]


def test_one_bad_organ_is_enough_and_one_image_is_compared_too() -> None:
    held_out = drawn(np.random.default_rng(2), 60)
    bad = compared(np.array([[0.8, 0.1]]), held_out)
    assert bad.unlike == ("new0",)
    lines, warnings = describe_likeness(bad)
    assert lines[0].startswith("Estimated Dice of the image, without references") and "0.1000" in lines[2]
    assert warnings == ["UNLIKE THE TRAINING IMAGES: new0 looks worse than 95% of them did. Check it."]
    assert describe_likeness(compared(np.array([[0.84, 0.84]]), held_out))[1] == []


def test_few_held_out_cases_say_so_and_none_say_nothing() -> None:
    rng = np.random.default_rng(3)
    lines, warnings = describe_likeness(compared(np.array([[0.1, 0.1]]), drawn(rng, 12)))
    assert all(warning.startswith("UNLIKE") for warning in warnings), "nothing is wrong with the images, so --quiet does not say it"
    assert lines[-1] == "Whether single images are unlike the training images, 12 held-out cases are too few to say."
    assert describe_likeness(likeness({"new0": {"liver": 0.5}}, {})) == ([], [])


def test_an_absent_organ_does_not_count() -> None:
    held_out = drawn(np.random.default_rng(4), 60)
    held_out[:50, 1] = math.nan
    held = {organ: [EstimatedDice(f"c{i}", v, v) for i, v in enumerate(held_out[:, k]) if v == v] for k, organ in enumerate(ORGANS)}
    found = likeness({"a": {"liver": 0.84, "spleen": math.nan}, "b": {"liver": math.nan, "spleen": math.nan}}, held)
    assert set(found.p_values) == {"a"} and found.unlike == ()
    assert [one.estimated for one in found.organs] == pytest.approx([0.84, math.nan], nan_ok=True)


def test_a_missed_organ_is_named_first_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing hints at the spleen of the first image, which all held-out cases have; a speck is left of that of the second."""
    usual = OrganStatistics(0.9, 100.0, 0.95, 0.8, 0.2, 0.9)
    held_out = {organ: [QualityEstimate(f"c{i}", 0.9, 0.85 + 0.001 * (i % 7), usual, 100.0) for i in range(40)] for organ in ORGANS}
    write_quality_estimates(tmp_path, held_out)
    line = DiceRegression(1.0, -0.04, 0.0, 1.0, 40, smallest_ml=90.0, largest_ml=110.0, missed=1.0)
    choice = Choice({}, (), {}, 0, dice_regression=dict.fromkeys(ORGANS, line))
    masks = {"a": OrganStatistics(math.nan), "b": OrganStatistics(0.95, 0.5), "c": usual, "d": usual}
    rows = [OrganUncertainty(case, "liver", 100.0, 0.9, statistics=usual) for case in masks]
    rows += [OrganUncertainty(case, "spleen", mask.volume_ml, mask.expected_dice, statistics=mask) for case, mask in masks.items()]
    first = ranked(rows, choice)[:2]
    assert [(row.uncertainty.case, row.uncertainty.organ) for row in first] == [("a", "spleen"), ("b", "spleen")]
    assert first[0].dice == 0 and first[1].dice == pytest.approx(2 * 0.5 / 90.5)
    found = compare_with_training(rows, choice, tmp_path)
    assert found.unlike == ("a", "b")
    with caplog.at_level(logging.INFO):
        tell_likeness(found)
    assert "Estimated mean Dice of 4 images" in caplog.text and "Check these first: a, b" in caplog.text


def test_a_model_that_was_asked_for_by_name_has_no_cross_validation_beside_it(tmp_path: Path) -> None:
    write_quality_estimates(tmp_path, {"liver": [QualityEstimate(f"c{i}", 0.9, 0.9) for i in range(9)]})
    assert compare_with_training([OrganUncertainty("a", "liver", 1.0, 0.5)], Choice({}, (), {}, 0), tmp_path).organs == ()


def test_estimates_of_another_choice_say_nothing_of_this_one(tmp_path: Path) -> None:
    points = {"liver": [QualityEstimate(f"c{i}", 0.9, 0.9) for i in range(9)]}
    this, other = (Choice({}, (), {}, 0, made_from={"3d__Trainer/0": identity}) for identity in ("1:1", "2:2"))
    write_quality_estimates(tmp_path, points, this.made_from)
    assert len(read_estimated_dice(tmp_path, this)["liver"]) == 9
    assert read_estimated_dice(tmp_path, other) == {}
    write_quality_estimates(tmp_path, points)  # as an earlier version, which noted nothing
    assert read_estimated_dice(tmp_path, other)
