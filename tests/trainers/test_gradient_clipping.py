"""Gradients are clipped at a fixed norm, or at a multiple of what is usual, to the digit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autoseg.trainers.gradient_clipping import GradientClip


def clipped(clip: GradientClip, size: float) -> float:
    """Norm after clipping of a gradient of norm `size`."""
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([0.6, 0.8]) * size
    assert float(clip([weight])) == pytest.approx(size)
    return float(weight.grad.norm())


@pytest.mark.parametrize(
    ("largest", "relative", "sizes", "expected"), [(12.0, 0.0, (3.0, 24.0), [3.0, 12.0]), (2.0, 5.0, (3.0, 4.0), [2.0, 2.0])]
)
def test_the_fixed_norm_is_never_exceeded(largest, relative, sizes, expected):
    clip = GradientClip(largest, relative)
    assert [clipped(clip, size) for size in sizes] == pytest.approx(expected, rel=1e-5)
    assert (clip.average is None) == (relative == 0)


def test_a_multiple_of_the_moving_average():
    clip = GradientClip(12.0, 5.0)
    assert clipped(clip, 1.0) == pytest.approx(1.0)
    assert clipped(clip, 9.0) == pytest.approx(5.0, rel=1e-5)
    assert clip.average == pytest.approx(0.99 + 0.01 * 5.0), "the outlier counts as what it was clipped to"
    assert clipped(clip, 3.0) == pytest.approx(3.0)


def test_a_gradient_that_is_not_finite_is_forgotten():
    clip, weight = GradientClip(12.0, 5.0), nn.Parameter(torch.zeros(1))
    clipped(clip, 1.0)
    weight.grad = torch.tensor([torch.nan])
    assert not torch.isfinite(clip([weight]))
    assert clip.average == 1.0
    fresh = GradientClip(12.0, 5.0)
    assert [clipped(fresh, size) for size in (0.0, 3.0)] == pytest.approx([0.0, 3.0])
