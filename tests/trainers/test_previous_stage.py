"""Spoiling a previous stage's organs: morphology against scikit-image, components, determinism."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.measure import label
from skimage.morphology import ball, dilation, erosion

from autoseg.trainers.cascade.augmentation import PreviousStageOptions, augment_previous, closed, dilate, erode, opened


def some_mask(share: float, seed: int = 0) -> np.ndarray:
    mask = np.zeros((16, 20, 18), bool)
    rng = np.random.default_rng(seed)
    while mask.mean() < share:
        mask |= sum((grid - rng.uniform(0, n)) ** 2 for grid, n in zip(np.ogrid[:16, :20, :18], mask.shape, strict=True)) < 12
    return mask


@pytest.mark.parametrize("share", [0.02, 0.3, 0.8])
@pytest.mark.parametrize("radius", [1, 3])
def test_dilation_and_erosion_are_by_a_ball(share, radius):
    mask = some_mask(share)
    assert np.array_equal(dilate(mask, radius), dilation(mask, ball(radius)))
    assert np.array_equal(erode(mask, radius), erosion(mask, ball(radius)))


def test_empty_and_full_masks_stay():
    for mask in (np.zeros((5, 6, 7), bool), np.ones((5, 6, 7), bool)):
        for operator in (dilate, erode, opened, closed):
            assert np.array_equal(operator(mask, 2.5), mask)


def test_opening_removes_and_closing_adds():
    mask = some_mask(0.2)
    assert not (opened(mask, 1.5) & ~mask).any()
    assert not (mask & ~closed(mask, 1.5)).any()


def test_same_generator_same_result_and_input_unchanged():
    organs = torch.from_numpy(np.stack([some_mask(0.1, 1), some_mask(0.1, 2)])).float()
    organs[1][organs[0] > 0] = 0
    before, changed = organs.clone(), 0
    for seed in range(40):
        one, two = (augment_previous(np.random.default_rng(seed), organs) for _ in range(2))
        assert torch.equal(one, two)
        assert torch.equal(organs, before)
        assert (one.shape, one.dtype) == (organs.shape, organs.dtype)
        assert one.sum(0).max() <= 1
        changed += not torch.equal(one, organs)
    assert 5 <= changed <= 30


def test_dropping_loses_one_small_component_and_never_a_large_one():
    options = PreviousStageOptions(operator_probability=0.0, drop_probability=1.0, drop_organ_probability=1.0)
    organs = torch.zeros((1, 10, 10, 10))
    organs[0, :2, :2, :2] = 1
    organs[0, 5:7, 5:7, 5:7] = 1
    rest = augment_previous(np.random.default_rng(0), organs, options)
    assert (label(rest[0].numpy() > 0).max(), rest.sum()) == (1, 8)
    large = torch.zeros((1, 10, 10, 10))
    large[0, :, :, :2] = 1
    assert torch.equal(augment_previous(np.random.default_rng(0), large, options), large)
