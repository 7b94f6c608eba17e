"""Tiles cover every voxel evenly; the window is the reference's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from autoseg.inference.tiling import axis_starts, gaussian_window, tile_starts


@pytest.mark.parametrize(
    ("size", "patch", "step", "expected"),
    [
        (10, 10, 0.5, (0,)),
        (11, 10, 0.5, (0, 1)),
        (20, 10, 0.5, (0, 5, 10)),
        (21, 10, 0.5, (0, 4, 7, 11)),
        (123, 64, 0.5, (0, 30, 59)),
        (30, 10, 1, (0, 10, 20)),
    ],
)
def test_starts_are_those_of_the_rule(size, patch, step, expected):
    assert axis_starts(size, patch, step) == expected


@pytest.mark.parametrize("step", [0.1, 0.37, 0.5, 1.0])
def test_every_voxel_is_covered_and_no_step_is_larger_than_asked(step):
    for size in range(7, 60):
        starts = axis_starts(size, 7, step)
        assert (starts[0], starts[-1]) == (0, size - 7)
        assert all(0 <= gap <= np.ceil(7 * step) for gap in np.diff(starts))


def test_tiles_of_several_axes_are_all_combinations_in_order():
    assert tile_starts((6, 8), (4, 8)) == [(0, 0), (2, 0)]
    tiles = tile_starts((20, 21, 10), (10, 10, 10))
    assert len(tiles) == 3 * 4
    assert tiles == sorted(tiles)


@pytest.mark.parametrize(
    ("shape", "patch", "step", "message"),
    [((5,), (6,), 0.5, "size 5"), ((8,), (4,), 0, "step"), ((8, 8), (4,), 0.5, "axes")],
)
def test_what_cannot_be_tiled_is_refused(shape, patch, step, message):
    with pytest.raises(ValueError, match=message):
        tile_starts(shape, patch, step)


@pytest.mark.parametrize("patch", [(16,), (9, 14), (8, 12, 6), (32, 32, 32)])
def test_window_is_a_gaussian_of_an_eighth_of_the_patch_with_maximum_ten(patch):
    impulse = np.zeros(patch)
    impulse[tuple(edge // 2 for edge in patch)] = 1
    expected = gaussian_filter(impulse, [edge / 8 for edge in patch], mode="constant")
    window = gaussian_window(patch)
    assert window.dtype == torch.float32
    assert window.min() > 0, "so that no voxel is lost"
    np.testing.assert_allclose(window.numpy(), expected * (10 / expected.max()), rtol=1e-5, atol=1e-12)
