"""How long is trained, in how many rounds, with how many patches a step; what is cut when a step does not fit into memory."""

from __future__ import annotations

import dataclasses
import math

import pytest

from autoseg.planners.budget import (
    CPU_BATCH,
    CPU_ELEMENTS,
    choose_budget,
    fit_batch,
    fit_memory,
    fit_time_budget,
    smaller_step,
    with_half_features,
)
from autoseg.planners.memory import conv_elements
from autoseg.runtime.hardware import StepCost
from autoseg.schema import Budget


def test_defaults_are_the_references_schedule_on_a_gpu_and_two_hours_on_a_processor():
    gpu, cpu = choose_budget("cuda"), choose_budget("cpu")
    assert (gpu.kind, gpu.amount, gpu.validation_intervals) == ("iterations", 250_000, 1000)
    assert (cpu.kind, cpu.amount) == ("time", 7200)
    assert all("default" in budget.why and "--time" in budget.why for budget in (gpu, cpu))


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_what_the_user_says_wins_on_every_device(device):
    assert (choose_budget(device, epochs=3).amount, choose_budget(device, epochs=3).validation_intervals) == (750, 3)
    assert choose_budget(device, iterations=123).amount == 123
    timed = choose_budget(device, seconds=90)
    assert timed.amount == 90 and "1.5 min as asked" in timed.why
    assert "2 h" in choose_budget(device, seconds=7200).why


@pytest.mark.parametrize("amount", [1, 3, 24, 25, 100, 499, 500, 10_000, 10**7])
def test_rounds_are_never_more_than_there_is_to_do(amount):
    by_steps, by_time = choose_budget("cpu", iterations=amount), choose_budget("cpu", seconds=amount)
    assert 1 <= by_steps.validation_intervals <= min(amount, 1000)
    assert 4 <= by_time.validation_intervals <= 1000


def test_progress_ends_exactly_with_the_budget():
    budget = choose_budget("cpu", iterations=40)
    assert [budget.progress(iteration, 1e9) for iteration in (0, 10, 40, 99)] == [0, 0.25, 1, 1]
    assert choose_budget("cpu", seconds=20).progress(10**9, 5) == 0.25


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 1, "seconds": 5}, "--epochs and --time"),
        ({"epochs": 0}, "--epochs: .* got 0"),
        ({"iterations": -3}, "--iterations: .* got -3"),
        ({"seconds": 0}, "--time: .* got 0"),
    ],
)
def test_contradictions_and_nonsense_are_refused_by_the_options_name(options, message):
    with pytest.raises(ValueError, match=message):
        choose_budget("cpu", **options)


def test_a_processor_gets_what_it_can_afford_but_at_least_two(tiny_configuration):
    small = tiny_configuration(batch_size=9)
    assert fit_batch(small, "cpu") == (small, "batch 9 as planned")
    fitted, why = fit_batch(tiny_configuration(batch_size=9, patch_size=(128, 128, 128)), "cpu")
    assert fitted.batch_size == 2 and "2 instead of the planned 9" in why
    assert fit_batch(tiny_configuration(batch_size=10**6), "cpu")[0].batch_size == CPU_BATCH
    some, _ = fit_batch(tiny_configuration(batch_size=10**3, patch_size=(64, 64, 64)), "cpu")
    assert 2 < some.batch_size < CPU_BATCH
    assert some.batch_size * conv_elements(some) <= CPU_ELEMENTS < (some.batch_size + 1) * conv_elements(some)
    assert fit_batch(tiny_configuration(batch_size=1, patch_size=(128, 128, 128)), "cpu")[0].batch_size == 1


def test_a_gpu_keeps_the_planned_batch_and_the_users_wins(tiny_configuration):
    assert fit_batch(tiny_configuration(batch_size=49), "cuda")[0] == tiny_configuration(batch_size=49)
    assert [fit_batch(tiny_configuration(), device, batch=7)[0].batch_size for device in ("cpu", "cuda")] == [7, 7]
    with pytest.raises(ValueError, match="--batch: expected at least 1, got 0"):
        fit_batch(tiny_configuration(), "cpu", batch=0)


def chain(configuration):
    found = [configuration]
    while (smaller := smaller_step(found[-1], configuration)) is not None:
        found.append(smaller)
        assert len(found) < 1000
    return found


@pytest.mark.parametrize(
    ("patch", "strides"),
    [
        ((8, 8, 8), [[1, 1, 1], [2, 2, 2]]),
        ((40, 56, 40), [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]),
        ((20, 256, 224), [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2]]),
        ((1, 16, 16), [[1, 1, 1], [1, 2, 2]]),
    ],
)
def test_shrinking_ends_and_every_link_is_a_valid_smaller_step(tiny_configuration, patch, strides):
    options = {**tiny_configuration().network_options, "strides": strides}
    links = chain(tiny_configuration(patch_size=patch, batch_size=13, network_options=options))
    divisors = [math.prod(stride[axis] for stride in strides) for axis in range(3)]
    assert [link.batch_size for link in links[:4]] == [13, 6, 3, 2]
    for before, after in zip(links[:-1], links[1:], strict=True):
        assert after.batch_size * math.prod(after.patch_size) < before.batch_size * math.prod(before.patch_size)
        assert all(size % divisor == 0 and size >= divisor for size, divisor in zip(after.patch_size, divisors, strict=True))
    assert all(size <= 2 * divisor for size, divisor in zip(links[-1].patch_size, divisors, strict=True))
    assert links[-1].batch_size == 1


def test_the_patch_is_cut_to_half_before_a_single_patch_is_taken(tiny_configuration):
    planned = tiny_configuration(patch_size=(32, 48, 20), batch_size=4)
    pairs, single = ([link.patch_size for link in chain(planned) if link.batch_size == batch] for batch in (2, 1))
    assert (pairs[0], pairs[-1]) == (planned.patch_size, (16, 24, 10))
    assert (single[0], single[-1]) == (pairs[-1], (4, 4, 4))


def test_a_batch_of_one_that_was_wanted_stays_one(tiny_configuration):
    wide = tiny_configuration(patch_size=(8, 16, 8), batch_size=1)
    assert smaller_step(wide, wide) == dataclasses.replace(wide, patch_size=(8, 14, 8))


class TestFitMemory:
    def test_what_fits_stays(self, tiny_configuration):
        planned = tiny_configuration()
        assert fit_memory(planned, lambda _: StepCost(0.1, 5), limit_bytes=100) == (planned, StepCost(0.1, 5), "")

    def test_what_does_not_fit_is_cut_until_it_does(self, tiny_configuration):
        planned = tiny_configuration(batch_size=8)
        fitted, _, why = fit_memory(planned, lambda one: StepCost(0.1, 5) if one.batch_size <= 2 else None, limit_bytes=100)
        assert fitted == dataclasses.replace(planned, batch_size=2) and "patch 8x8x8, batch 2 does" in why

    @pytest.mark.parametrize(("limit", "batch"), [(1000, 8), (900, 4), (480, 4), (460, 2)])
    def test_a_part_of_the_free_memory_stays_free(self, tiny_configuration, limit, batch):
        fitted, cost, _ = fit_memory(tiny_configuration(batch_size=8), lambda one: StepCost(0.1, 100 * one.batch_size), limit_bytes=limit)
        assert (fitted.batch_size, cost.peak_bytes) == (batch, 100 * batch)

    def test_when_nothing_fits_the_error_says_so(self, tiny_configuration):
        with pytest.raises(RuntimeError, match="3d_fullres: .*batch 1 of patch 4x4x4 .*2.0 GB"):
            fit_memory(tiny_configuration(), lambda _: None, limit_bytes=2 * 10**9)


class TestFitTime:
    """Costs go with voxels and, for half the features, are a third."""

    @staticmethod
    def measure(configuration):
        voxels = configuration.batch_size * math.prod(configuration.patch_size)
        return StepCost(voxels / 32_000 * (1 if configuration.width == 1 else 1 / 3), 5)

    @pytest.fixture
    def planned(self, tiny_configuration):
        options = {**tiny_configuration().network_options, "features": [32, 64]}
        return tiny_configuration(patch_size=(20, 20, 20), batch_size=8, network_options=options)  # two seconds a step

    def fit(self, planned, seconds, kind="time", **options):
        return fit_time_budget(planned, Budget(kind, seconds, 4), self.measure(planned), self.measure, **options)

    @pytest.mark.parametrize(
        ("seconds", "options"),
        [(4000, {}), (10, {"kind": "iterations"}), (3900, {"may_narrow": False})],
        ids=["enough", "steps", "weights"],
    )
    def test_enough_time_and_iterations_and_taken_over_weights_change_nothing(self, planned, seconds, options):
        assert self.fit(planned, seconds, **options) == (planned, StepCost(2.0, 5), "")

    def test_too_little_for_learning_well_makes_the_network_narrower(self, planned):
        fitted, cost, why = self.fit(planned, 3900)
        assert fitted == dataclasses.replace(planned, width=0.5)
        assert fitted.built_options["features"] == [16, 32]
        assert cost.seconds == pytest.approx(2 / 3)
        assert "features 16 and up" in why and "about 5850 steps instead of 1950" in why

    def test_the_batch_goes_first_and_the_patch_last(self, planned):
        fitted, cost, _ = self.fit(planned, 1500)
        assert fitted == dataclasses.replace(planned, width=0.5, batch_size=4)
        assert cost.seconds == pytest.approx(1 / 3)
        for options, batch in (({}, 4), ({"min_batch": 8}, 8)):  # the user's batch is kept
            fitted, cost, _ = self.fit(planned, 200, **options)
            assert (fitted.batch_size, fitted.width) == (batch, 0.5)
            assert 200 / cost.seconds >= 800 or batch == 8
            assert math.prod(fitted.patch_size) < 8000
        assert self.fit(planned, 1)[0].patch_size == (10, 10, 10)

    @pytest.mark.parametrize(
        ("spacing", "seconds", "patch"),
        [
            ((10.0, 1.5, 1.5), 800, (10, 20, 20)),
            ((10.0, 1.5, 1.5), 80, (6, 20, 20)),
            ((10.0, 1.5, 1.5), 1, (2, 10, 10)),
            ((4.5, 1.5, 1.5), 1, (6, 10, 10)),
            ((10.0, 10.0, 1.5), 1, (6, 10, 10)),
        ],
        ids=["enough", "fewer slices", "then a part of them", "slices that are not thick", "two coarse axes"],
    )
    def test_thick_slices_are_fewer_before_they_are_cut(self, planned, spacing, seconds, patch):
        """A network that never sees a whole slice draws organs where none are (measured on ACDC: docs/training.md)."""
        thick = dataclasses.replace(planned, spacing=spacing, patch_size=(10, 20, 20), batch_size=4)
        fitted, _, why = self.fit(thick, seconds)
        assert (fitted.patch_size, fitted.batch_dice) == (patch, spacing == (10.0, 1.5, 1.5) and seconds < 800)
        assert ("Dice over the batch" in why) == fitted.batch_dice
        asked, *_ = self.fit(thick, seconds, keep_patch=True)
        assert (asked.patch_size, asked.batch_dice) == ((10, 20, 20), False)

    @pytest.mark.parametrize(("fixed", "batch", "patch"), [(0.0, 4, (10, 10, 10)), (0.5, 4, (14, 16, 16)), (1.5, 8, (20, 20, 20))])
    def test_no_further_than_it_pays(self, planned, fixed, batch, patch):
        """Two seconds a step, of which a part, that of large weights, stays however few voxels there are."""
        asked = []

        def measure(one):
            asked.append(one)
            return StepCost(fixed + (2 - fixed) * one.batch_size * math.prod(one.patch_size) / 64_000, 5)

        fitted, cost, why = fit_time_budget(planned, Budget("time", 1, 4), StepCost(2.0, 5), measure, may_narrow=False)
        assert (fitted.batch_size, fitted.patch_size) == (batch, patch)
        assert cost.seconds == pytest.approx(measure(fitted).seconds)
        assert bool(why) == (fixed < 1)
        assert len(asked) <= 7, "a trial takes seconds"

    def test_a_moment_without_the_processor_decides_nothing(self, planned):
        """The first trial of the smaller step takes ten times as long as it should."""
        trials = []

        def measure(one):
            trials.append(one)
            return dataclasses.replace(self.measure(one), seconds=self.measure(one).seconds * (10 if len(trials) == 1 else 1))

        fitted, *_ = fit_time_budget(planned, Budget("time", 1000, 4), StepCost(2.0, 5), measure, may_narrow=False)
        assert fitted.batch_size == 4

    def test_a_network_that_would_be_too_narrow_or_is_no_faster_keeps_its_features(self, planned):
        slim = dataclasses.replace(planned, network_options={**planned.network_options, "features": [24, 48]})
        assert self.fit(slim, 3900)[0] is slim
        for cost in (StepCost(2.1, 5), None):
            assert fit_time_budget(planned, Budget("time", 3900, 4), StepCost(2.0, 5), lambda _, cost=cost: cost)[0] is planned
        assert with_half_features(dataclasses.replace(planned, network_options={})) is None
