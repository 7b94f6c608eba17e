"""Learning rates: values, the end of the budget, warm-up."""

from __future__ import annotations

import pytest

from autoseg.runtime.registry import allowed_code
from autoseg.trainers.schedules import SCHEDULES, learning_rate_factor


@pytest.mark.parametrize(
    ("name", "factors"),
    [
        ("poly", {0.5: 0.5**0.9}),
        ("cosine", {0.5: 0.5, 1 / 3: 0.75}),
        ("constant", {0: 1, 0.5: 1, 1: 1}),
        ("plateau", {0: 1, 0.5: 1, 1: 1}),
        ("exponential", {0: 1, 0.5: 0.1, 1: 0.01}),
        # 40 epochs of 4000 are one hundredth.
        ("percents_2500", {0: 1, 39 / 2500: 1, 40 / 2500: 0.99, 80 / 2500: 0.99**2, 1: 0.99**62}),
        ("percents", {0: 1, 39 / 4000: 1, 40 / 4000: 0.99, 79 / 4000: 0.99, 80 / 4000: 0.99**2, 1: 0.99**100}),
    ],
)
def test_known_values(name, factors):
    assert [learning_rate_factor(name, progress) for progress in factors] == pytest.approx(list(factors.values()))


@pytest.mark.parametrize("name", ["poly", "cosine"])
def test_what_is_taken_by_itself_falls_from_one_to_exactly_zero(name):
    factors = [learning_rate_factor(name, step / 50) for step in range(51)]
    assert factors[0] == 1
    assert factors[-1] == pytest.approx(0, abs=1e-15)
    assert all(later < earlier for earlier, later in zip(factors[:-1], factors[1:], strict=True))


@pytest.mark.parametrize("name", SCHEDULES)
def test_progress_beyond_the_budget_counts_as_its_end(name):
    assert learning_rate_factor(name, 1.7) == learning_rate_factor(name, 1.0)
    assert learning_rate_factor(name, -0.1) == 1


@pytest.mark.parametrize("name", SCHEDULES)
def test_warm_up_rises_linearly_and_is_never_zero(name):
    bare = [learning_rate_factor(name, step / 100) for step in range(100)]
    warm = [learning_rate_factor(name, step / 100, warmup=0.1) for step in range(100)]
    assert warm[10:] == bare[10:]
    assert warm[5] == pytest.approx(bare[5] / 2)
    assert warm[0] == pytest.approx(0.01)
    assert all(factor > 0 for factor in warm)


def test_a_schedule_from_outside_the_table():
    with allowed_code(["math"]):
        assert learning_rate_factor("math:sqrt", 0.25) == 0.5
    with pytest.raises(ValueError, match="schedule: expected one of constant, cosine, exponential, percents, percents_2500, plateau, poly"):
        learning_rate_factor("step", 0.5)
