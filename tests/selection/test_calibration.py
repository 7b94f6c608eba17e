"""Probabilities whose worth is known: drawn as they say, or made too sure on purpose."""

from __future__ import annotations

import math

import numpy as np
import pytest
from factories import labels, make_geometry

from autoseg.inference.lazy_logits import complete_shares
from autoseg.inference.log_odds import StoredLogOdds
from autoseg.inference.logits import Logits
from autoseg.inference.quantised_logits import quantise
from autoseg.inference.sampled_probabilities import probabilities_at
from autoseg.schema import Trace
from autoseg.selection.calibration import (
    COLDEST,
    Sample,
    allowed_outcomes,
    calibrate,
    calibration_error,
    fit_temperature,
    negative_log_likelihood,
    temperature_scaled,
)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def honest(seed: int, n: int = 20_000, *, sharper: float = 1.0) -> Sample:
    """Outcomes drawn with the probabilities of some logits; the sample's own are those of `sharper` times these logits."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (n, 3))
    outcome = (softmax(logits).cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=2)
    return Sample(softmax(sharper * logits), np.arange(3) == outcome[:, None])


def two(confident: float, right: list[bool]) -> Sample:
    shares = np.tile(np.array([[1 - confident, confident]], np.float32), (len(right), 1))
    return Sample(shares, np.array([[not one, one] for one in right]))


@pytest.mark.parametrize(
    ("sample", "temperature"),
    [*((honest(0, sharper=sharper), sharper) for sharper in (0.5, 1.0, 2.0, 3.0)), (two(0.9, [True] * 50), COLDEST)],
    ids=["unsure", "honest", "too sure", "far too sure", "never wrong"],
)
def test_the_temperature_is_what_made_them_too_sure(sample: Sample, temperature: float) -> None:
    assert fit_temperature(sample) == pytest.approx(temperature, rel=0.04)


HALF = [True] * 5 + [False] * 5


@pytest.mark.parametrize(
    ("sample", "error"),
    [
        (two(0.9, [True] * 9 + [False]), 0),
        (two(0.9, HALF), 0.4),
        (Sample.joined([two(0.9, HALF), two(0.7, [True] * 30)]), (10 * 0.4 + 30 * 0.3) / 40),
        (two(1.0, [True, False]), 0.5),
    ],
)
def test_error_by_hand(sample: Sample, error: float) -> None:
    assert calibration_error(sample) == pytest.approx(error, abs=1e-6)


def test_the_error_shrinks_with_the_temperature_of_other_folds_where_there_are_any() -> None:
    found = calibrate([honest(seed, 5000, sharper=3.0) for seed in range(3)])
    assert found.temperature == pytest.approx(3, rel=0.05)
    assert found.error_after < 0.03 < 0.1 < found.error_before
    single = calibrate([honest(0, 2000, sharper=2.0), Sample(np.empty((0, 3), np.float32), np.empty((0, 3), bool))])
    assert math.isnan(single.error_after)
    assert single.temperature == pytest.approx(2, rel=0.1)
    assert calibrate([]).temperature == 1


def test_what_was_not_annotated_may_be_background() -> None:
    """Background or organ 2: together 0.5, whichever temperature a voxel of two equal logits gets."""
    sample = Sample(np.array([[0.25, 0.5, 0.25]], np.float32), np.array([[True, False, True]]))
    assert negative_log_likelihood(sample, 1.0) == pytest.approx(math.log(2), rel=1e-5)
    assert calibration_error(sample) == pytest.approx(0.5)
    assert negative_log_likelihood(sample, 0.5) == pytest.approx(-math.log(0.125 / 0.375), rel=1e-5)


@pytest.mark.parametrize(
    ("names", "annotated", "organs", "allowed"),
    [
        ("lr", None, "l", "l"),
        ("lrs", ("l",), "", "brs"),
        ("lrs", ("l + r",), "lr", "lr"),
        ("lrs", ("l + r",), "", "bs"),
        ("ls", ("l + r",), "l", "bl"),
        ("ls", ("l + r", "s"), "", "bl"),
        ("ls", ("l + r", "s"), "s", "s"),
    ],
)
def test_of_organs_that_were_annotated_together_each_is_right(names, annotated, organs, allowed) -> None:
    """Organs l, r and s, and background b; a model may have some of them only."""
    found = allowed_outcomes(np.array([[name in organs for name in names]]), tuple(names), annotated)
    assert "".join(name for name, is_right in zip("b" + names, found[0], strict=True) if is_right) == allowed


def test_a_probability_that_was_rounded_to_zero_costs_much_but_not_everything() -> None:
    sample = Sample(np.array([[1.0, 0.0]], np.float32), np.array([[False, True]]))
    assert 5 < negative_log_likelihood(sample, 1.0) < 7
    assert negative_log_likelihood(sample, 4.0) < 2


def test_the_temperature_of_stored_log_odds_is_that_of_the_logits() -> None:
    """Voxels of which a model is sure have their cost at every temperature: they are not 1 and 0."""
    rng = np.random.default_rng(3)
    odds = np.concatenate([rng.normal(8, 1, 1500), rng.normal(0.5, 1.5, 500)]).astype(np.float32)
    logits = np.stack([np.zeros_like(odds), odds])
    right = rng.random(len(odds)) < 1 / (1 + np.exp(-odds / 1.5))
    shape = (1, 1, len(odds))
    trace = Trace("a", make_geometry(shape), (0, 1, 2), shape, ((0, 1), (0, 1), (0, len(odds))), shape, (1.0,) * 3)
    organ = labels(liver=1)
    stored = Logits(StoredLogOdds(quantise(logits[:, None, None], organ)), trace, "probability8")
    points = np.stack([np.zeros(len(odds), int), np.zeros(len(odds), int), np.arange(len(odds))])
    allowed = np.stack([~right, right], axis=1)
    found = fit_temperature(Sample(probabilities_at([complete_shares(stored, organ)], points, organ), allowed))
    assert found == pytest.approx(fit_temperature(Sample(softmax(logits.T), allowed)), rel=0.01)


def test_temperature_keeps_winner_and_sum() -> None:
    shares = honest(1, 500).shares
    for temperature in (0.3, 2.0, 9.0):
        warm = temperature_scaled(shares, temperature)
        assert np.array_equal(warm.argmax(axis=1), shares.argmax(axis=1))
        np.testing.assert_allclose(warm.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(temperature_scaled(np.array([[0.0, 0.2, 0.8]]), 2.0), [[0.0, 1 / 3, 2 / 3]], rtol=1e-5)
