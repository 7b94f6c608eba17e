"""Warping against torch's own sampler and against interpolated one-hot maps, cropping, and how much a warp reads."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from autoseg.schema.conventions import OUTSIDE
from autoseg.trainers.augmentation.spatial import SpatialMap, center_crop, rotation_matrix, warp


def as_map(matrix: np.ndarray) -> SpatialMap:
    return SpatialMap(tuple(tuple(map(float, row)) for row in matrix))


def warp_one(image: torch.Tensor, labels: torch.Tensor, mapping: SpatialMap, patch: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    new_image, new_labels = warp(image[None], labels[None], [mapping], patch)
    return new_image[0], new_labels[0]


def blobs(size: tuple[int, ...], n_labels: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn((1, n_labels + 1, *[max(2, n // 6) for n in size]), generator=generator)
    fields = F.interpolate(coarse, size=size, mode="trilinear" if len(size) == 3 else "bilinear")[0]
    return torch.randn((2, *size), generator=generator), fields.argmax(0).to(torch.int16)


def sampled(array: torch.Tensor, matrix: np.ndarray, patch: tuple[int, ...]) -> torch.Tensor:
    """The same map through `grid_sample` (zeros outside) in double precision."""
    axes = [torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in patch]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1) @ torch.from_numpy(matrix).T
    grid = (grid / (torch.tensor(array.shape[1:], dtype=torch.float64) / 2)).flip(-1)
    return F.grid_sample(array[None].double(), grid[None], mode="bilinear", padding_mode="zeros", align_corners=False)[0]


CASES = [((30, 33, 26), (20, 24, 20)), ((12, 14, 11), (20, 24, 20)), ((40, 30), (28, 20)), ((10, 9), (28, 20))]


@pytest.mark.parametrize(("source", "patch"), CASES)
@pytest.mark.parametrize("n_labels", [1, 4, 12])
def test_warp_is_linear_interpolation_of_image_and_one_hot_labels(source, patch, n_labels):
    matrix = rotation_matrix([0.3, -0.4, 0.2] if len(patch) == 3 else [0.7]) * 1.15
    image, labels = blobs(source, n_labels)
    new_image, new_labels = warp_one(image, labels, as_map(matrix), patch)
    torch.testing.assert_close(new_image.double(), sampled(image, matrix, patch), atol=2e-4, rtol=0)

    shares = sampled(torch.stack([labels == value for value in range(n_labels + 1)]).float(), matrix, patch)
    shares = torch.cat([(1 - shares.sum(0, keepdim=True)), shares])  # what is missing is outside
    own = shares.gather(0, (new_labels.long() - OUTSIDE)[None])[0]
    assert (own >= shares.max(0).values - 1e-3).all()
    decided = shares.topk(2, 0).values.diff(dim=0).abs()[0] > 1e-3
    assert torch.equal(new_labels[decided].long(), shares.argmax(0)[decided] + OUTSIDE)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_quarter_turns_move_voxels(turns):
    image, labels = blobs((15, 15), 3)
    new_image, new_labels = warp_one(image, labels, as_map(rotation_matrix([turns * math.pi / 2])), (15, 15))
    torch.testing.assert_close(new_image, torch.rot90(image, -turns, (1, 2)), atol=1e-4, rtol=0)
    assert torch.equal(new_labels, torch.rot90(labels, -turns, (0, 1)))


def test_scale_above_one_shrinks():
    ball = (((torch.arange(31) - 15.0) ** 2)[:, None] + ((torch.arange(31) - 15.0) ** 2) <= 100).to(torch.int16)
    _, smaller = warp_one(ball.float()[None], ball, as_map(np.eye(2) * 1.4), (31, 31))
    assert (smaller == 1).sum().item() == pytest.approx((ball == 1).sum().item() / 1.4**2, rel=0.08)


def test_leading_axes_are_independent():
    image, labels = blobs((4, 20, 18), 3)
    matrix = as_map(rotation_matrix([0.5]) * 0.9)
    whole_image, whole_labels = warp_one(image, labels, matrix, (16, 12))
    for z in range(4):
        slice_image, slice_labels = warp_one(image[:, z], labels[z], matrix, (16, 12))
        assert torch.equal(whole_image[:, z], slice_image)
        assert torch.equal(whole_labels[z], slice_labels)


@pytest.mark.parametrize("scale", [0.7, 1.0, 1.4])
@pytest.mark.parametrize("patch", [(8, 11, 10), (15, 8)])
def test_source_size_is_enough_and_not_too_much(patch, scale):
    matrix = rotation_matrix([0.4, 0.3, -0.5] if len(patch) == 3 else [2.5]) * scale
    size = as_map(matrix).source_size(patch)
    assert all((n - p) % 2 == 0 for n, p in zip(size, patch, strict=True))
    ones, labels = torch.ones((1, *size)), torch.ones(size, dtype=torch.int16)
    image, warped = warp_one(ones, labels, as_map(matrix), patch)
    assert (warped == 1).all()
    torch.testing.assert_close(image, torch.ones_like(image), atol=1e-4, rtol=0)
    for axis in range(len(patch)):
        short = ones.narrow(axis + 1, 1, size[axis] - 2)
        missing, _ = warp_one(short, labels.narrow(axis, 1, size[axis] - 2), as_map(matrix), patch)
        assert missing.min() < 1 - 1e-4


def test_center_crop_takes_the_middle_and_pads():
    array = torch.arange(7.0)
    assert center_crop(array, [3], 0.0).tolist() == [2, 3, 4]
    assert center_crop(array, [4], 0.0).tolist() == [1, 2, 3, 4]
    assert center_crop(array, [10], -1.0).tolist() == [-1, -1, 0, 1, 2, 3, 4, 5, 6, -1]
    assert center_crop(torch.zeros(2, 5, 4), (3, 6), 0.0).shape == (2, 3, 6)
