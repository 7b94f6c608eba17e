"""Padding to sizes that a network can halve, and back."""

from __future__ import annotations

import pytest
import torch

from autoseg.networks.sizes import crop_to, pad_to_multiple


def test_zeros_are_appended_at_the_end_of_each_axis() -> None:
    x = torch.arange(1.0, 7.0).view(1, 1, 2, 3)
    padded = pad_to_multiple(x, (4, 2))
    assert padded.tolist() == [[[[1, 2, 3, 0], [4, 5, 6, 0], [0, 0, 0, 0], [0, 0, 0, 0]]]]
    assert torch.equal(crop_to(padded, (2, 3)), x)


@pytest.mark.parametrize("size", [(1, 1, 1), (7, 8, 9), (16, 4, 3)])
def test_three_axes_become_multiples_and_go_back(size: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, *size)
    padded = pad_to_multiple(x, (8, 4, 3))
    assert [n % m for n, m in zip(padded.shape[2:], (8, 4, 3), strict=True)] == [0, 0, 0]
    assert all(0 <= big - small < m for big, small, m in zip(padded.shape[2:], size, (8, 4, 3), strict=True))
    assert torch.equal(crop_to(padded, size), x)
    assert pad_to_multiple(padded, (8, 4, 3)) is padded
    assert crop_to(x, size) is x


@pytest.mark.parametrize(("size", "expected"), [(1, 1), (2, 17), (16, 17), (17, 17), (18, 33), (513, 513)])
def test_one_more_than_a_multiple(size: int, expected: int) -> None:
    assert pad_to_multiple(torch.zeros(1, 1, size, 1), (16, 16), remainder=1).shape == (1, 1, expected, 1)


def test_wrong_axes_are_refused() -> None:
    with pytest.raises(ValueError, match="2 spatial axes"):
        pad_to_multiple(torch.zeros(1, 1, 4, 4, 4), (2, 2))
    for size in ((5, 4), (4, 4, 4)):
        with pytest.raises(ValueError, match="at least"):
            crop_to(torch.zeros(1, 1, 4, 4), size)
