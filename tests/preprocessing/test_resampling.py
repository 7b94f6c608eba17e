from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.transform import resize

from autoseg.preprocessing.resampling import (
    axis_coordinates,
    nearest_indices,
    resample_image,
    resample_labels,
    resampled_shape,
    separate_z_axis,
)

ISOTROPIC = {"spacing": (1, 1, 1), "new_spacing": (1, 1, 1)}


def by_skimage(volume: np.ndarray, shape: tuple[int, ...], order: int = 3) -> np.ndarray:
    return resize(volume.astype(float), shape, order, mode="edge", anti_aliasing=False)


@pytest.mark.parametrize(
    ("shape", "new"),
    [
        ((30, 41, 52), (45, 40, 60)),
        ((7, 41, 70), (20, 100, 35)),
        ((1, 30, 30), (1, 44, 17)),
        ((5, 6, 7), (5, 12, 7)),
        ((9, 9, 9), (3, 1, 4)),
    ],
)
def test_images_equal_skimage(shape: tuple[int, ...], new: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    found = resample_image(array, new, **ISOTROPIC)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.stack([by_skimage(channel, new) for channel in array]), atol=1e-5)
    np.testing.assert_allclose(resample_image(array, new, **ISOTROPIC, order=1)[0], by_skimage(array[0], new, 1), atol=1e-5)


@pytest.mark.parametrize("depth", [4, 9, 20])
def test_separate_slices_equal_slice_by_slice_skimage(depth: int) -> None:
    array = np.random.default_rng(1).normal(size=(1, 9, 30, 24)).astype(np.float32)
    found = resample_image(array, (depth, 40, 18), spacing=(5, 1, 1), new_spacing=(5 * 9 / depth, 0.75, 1.33))
    slices = np.stack([by_skimage(plane, (40, 18)) for plane in array[0]])
    grid = np.mgrid[:depth, :40, :18].astype(float)
    grid[0] = 9 / depth * (grid[0] + 0.5) - 0.5
    np.testing.assert_allclose(found[0], ndimage.map_coordinates(slices, grid, order=0, mode="nearest"), atol=1e-5)


def blobs(shape: tuple[int, ...]) -> np.ndarray:
    smooth = ndimage.gaussian_filter(np.random.default_rng(2).normal(size=shape), 2)
    return np.clip(np.round(smooth * 30), -1, 5).astype(np.int16)


@pytest.mark.parametrize("new", [(45, 40, 60), (15, 20, 26), (33, 44, 55), (30, 41, 53)])
def test_labels_are_the_largest_share_of_skimage(new: tuple[int, ...]) -> None:
    labels = blobs((30, 41, 52))
    found, share = resample_labels(labels, new, **ISOTROPIC), np.stack([by_skimage(labels == value, new, 1) for value in range(-1, 6)])
    assert found.dtype == labels.dtype
    chosen = np.take_along_axis(share, found[None].astype(int) + 1, axis=0)[0]
    assert (chosen > share.max(axis=0) - 1e-5).all()
    clear = np.sort(share, axis=0)[-2] < share.max(axis=0) - 1e-5
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(found[clear], (share.argmax(axis=0) - 1)[clear])


def test_labels_with_separate_slices() -> None:
    labels = blobs((6, 30, 40))
    found = resample_labels(labels, (12, 44, 55), spacing=(6, 1, 1), new_spacing=(3, 0.7, 0.7))
    planes = [resample_labels(plane[None], (1, 44, 55), **ISOTROPIC)[0] for plane in labels]
    np.testing.assert_array_equal(found, np.stack(planes)[nearest_indices(6, 12)])


def test_a_tie_goes_to_the_nearest_voxel_and_nothing_to_do_gives_a_copy() -> None:
    line = np.array([1, 1, 2, 2, 0, 0], np.int16).reshape(1, 1, 6)
    assert resample_labels(line, (1, 1, 3), **ISOTROPIC).ravel().tolist() == [1, 2, 0]
    assert resample_labels(line[..., 1:3], (1, 1, 1), **ISOTROPIC).ravel().tolist() == [2]
    copy = resample_labels(line, line.shape)
    assert copy is not line and np.array_equal(copy, line)


@pytest.mark.parametrize(
    ("spacing", "new", "axis"),
    [
        ((5, 1, 1), (5, 1, 1), 0),
        ((1, 5, 1), (1, 1, 1), 1),
        ((2, 1, 1), (4, 1, 1), 0),
        ((2, 1, 1), (2, 1, 1), None),
        ((0.2, 1, 1), (1, 1, 1), None),
        ((1, 2), (1, 1), 0),
    ],
)
def test_separate_z_axis(spacing: tuple[float, ...], new: tuple[float, ...], axis: int | None) -> None:
    assert separate_z_axis(spacing, new) == axis


def test_coordinates_and_shapes() -> None:
    np.testing.assert_allclose(axis_coordinates(4, 2), [0.5, 2.5])
    np.testing.assert_allclose(axis_coordinates(2, 4), [0, 0.25, 0.75, 1])
    assert nearest_indices(4, 2).tolist() == [1, 3]
    assert nearest_indices(2, 4).tolist() == [0, 0, 1, 1]
    assert resampled_shape((10, 7), (1.0, 2.0), (2.0, 1.0)) == (5, 14)
    assert resampled_shape((1, 5), (1.0, 1.0), (3.0, 1.0)) == (1, 5)
