"""Means over a validation interval, of which some steps may lack values."""

from __future__ import annotations

import math

import pytest
import torch

from autoseg.trainers.interval_means import IntervalMeans


def test_a_step_without_a_value_does_not_count_in_its_mean():
    means = IntervalMeans()
    for value in (torch.tensor(1.0), None, torch.tensor(3.0)):
        means.add({"loss": torch.tensor(1.0), "score": value, "never": None})
    again = IntervalMeans()
    again.load(means.states(), torch.device("cpu"))
    for one in (means, again):
        assert one.is_finite
        assert one.means() == {"loss": 1.0, "score": 2.0, "never": pytest.approx(math.nan, nan_ok=True)}
    again.reset()
    assert again.means() == {}


def test_those_of_earlier_versions_are_read():
    means = IntervalMeans()
    means.load({"sums": {"loss": torch.tensor(4.0)}, "count": torch.tensor(2)}, torch.device("cpu"))
    assert means.means() == {"loss": 2.0}
