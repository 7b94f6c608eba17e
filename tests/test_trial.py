"""One real step in a process of its own, and what is cut when it does not fit."""

from __future__ import annotations

import math

import pytest

from autoseg.planners import trial
from autoseg.planners.trial import StepCost, fit_memory, measure_step, shrink

CHANNELS = {"in_channels": 1, "out_channels": 3}


def test_a_real_step_is_measured_in_a_process_of_its_own(tiny_configuration):
    cost = measure_step(tiny_configuration(2), **CHANNELS, device="cpu")
    assert cost.seconds > 0
    assert 2**20 < cost.peak_bytes < 2**40


def test_a_step_that_needs_more_memory_than_there_is_gives_none(tiny_configuration):
    vast = tiny_configuration(2, patch_size=(2**26, 2**26))
    assert measure_step(vast, **CHANNELS, device="cpu") is None


def test_another_failure_carries_its_reason(tiny_configuration):
    with pytest.raises(RuntimeError, match="trial step of 2d failed.*expected one of plain_unet"):
        measure_step(tiny_configuration(2, network="plane_unet"), **CHANNELS, device="cpu")


@pytest.mark.parametrize("code", [-9, 137, trial.OUT_OF_MEMORY])
def test_a_process_that_the_system_kills_did_not_fit(monkeypatch, tiny_configuration, code):
    class Killed:
        returncode, stdout, stderr = code, "", ""

    monkeypatch.setattr(trial.subprocess, "run", lambda *_, **__: Killed)
    assert measure_step(tiny_configuration(), **CHANNELS, device="cpu") is None


def chain(configuration):
    found = [configuration]
    while (smaller := shrink(found[-1])) is not None:
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
    assert [link.batch_size for link in links[:4]] == [13, 6, 3, 1]
    for before, after in zip(links[:-1], links[1:], strict=True):
        assert after.batch_size * math.prod(after.patch_size) < before.batch_size * math.prod(before.patch_size)
        assert all(size % divisor == 0 and size >= divisor for size, divisor in zip(after.patch_size, divisors, strict=True))
    assert all(size <= 2 * divisor for size, divisor in zip(links[-1].patch_size, divisors, strict=True))
    assert links[-1].batch_size == 1


def test_the_patch_is_cut_along_its_relatively_largest_axis(tiny_configuration):
    wide = tiny_configuration(patch_size=(8, 16, 8), batch_size=1)
    assert shrink(wide).patch_size == (8, 14, 8)


class TestFitMemory:
    def fit(self, monkeypatch, configuration, cost, limit_bytes=10**9):
        monkeypatch.setattr(trial, "measure_step", lambda one, **_: cost(one))
        return fit_memory(configuration, **CHANNELS, device="cpu", limit_bytes=limit_bytes)

    def test_what_fits_stays(self, monkeypatch, tiny_configuration):
        planned = tiny_configuration()
        assert self.fit(monkeypatch, planned, lambda _: StepCost(0.1, 5)) == (planned, StepCost(0.1, 5), "")

    def test_what_does_not_fit_is_cut_until_it_does(self, monkeypatch, tiny_configuration):
        planned = tiny_configuration(batch_size=8)
        fitted, _, why = self.fit(monkeypatch, planned, lambda one: StepCost(0.1, 5) if one.batch_size <= 2 else None)
        assert (fitted.batch_size, fitted.patch_size) == (2, planned.patch_size)
        assert "patch 8x8x8, batch 2 does" in why

    def test_the_memory_target_counts_too(self, monkeypatch, tiny_configuration):
        fitted, cost, _ = self.fit(
            monkeypatch, tiny_configuration(batch_size=8), lambda one: StepCost(0.1, 100 * one.batch_size), limit_bytes=450
        )
        assert (fitted.batch_size, cost.peak_bytes) == (4, 400)

    def test_when_nothing_fits_the_error_says_so(self, monkeypatch, tiny_configuration):
        with pytest.raises(RuntimeError, match=r"3d_fullres: not even batch 1 of patch \(4, 4, 4\) fits"):
            self.fit(monkeypatch, tiny_configuration(), lambda _: None)
