"""The first stage's label map on the second stage's grid, and back."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from factories import labels as organs
from factories import make_configuration, make_geometry, make_plan, regions

from autoseg.inference.cascade import on_grid, organs_as_channels
from autoseg.inference.export import export_labels
from autoseg.inference.logits import Logits
from autoseg.preprocessing.preprocess import preprocess_case
from autoseg.schema import Image

SIDES = organs(a=3, b=8)

KINDS = {
    "same grid": ((12, 14, 16), (1.0, 1.0, 1.0), (0, 1, 2), (1.0, 1.0, 1.0)),
    "finer": ((12, 14, 16), (2.0, 2.0, 2.0), (0, 1, 2), (1.1, 1.3, 1.2)),
    "coarser": ((30, 28, 26), (1.0, 1.0, 1.0), (0, 1, 2), (1.5, 1.5, 1.5)),
    "anisotropic": ((8, 30, 32), (8.0, 1.0, 1.0), (0, 1, 2), (8.0, 0.8, 0.8)),
    "anisotropic, other slices": ((8, 30, 32), (8.0, 1.0, 1.0), (0, 1, 2), (5.0, 0.9, 0.9)),
    "transposed": ((30, 8, 32), (1.0, 6.0, 1.2), (1, 0, 2), (6.0, 0.9, 1.0)),
    "transposed in a circle": ((14, 16, 12), (1.0, 1.5, 2.0), (2, 0, 1), (2.0, 1.0, 1.5)),
    "2D configuration of volumes": ((8, 30, 32), (5.0, 1.0, 1.0), (0, 1, 2), (0.7, 0.8)),
    "2D images": ((30, 34), (0.5, 0.6), (0, 1), (0.4, 0.5)),
}
"""Name to file shape, file spacing, the plan's transposition, and the configuration's spacing."""


@pytest.fixture(params=KINDS)
def prepared(request):
    """A file's labels (internal values), and what preprocessing makes of them: labels and trace."""
    shape, spacing, transpose, target = KINDS[request.param]
    labels = np.zeros(shape, np.int16)
    labels[tuple(slice(n // 5, n // 5 + (n * 2) // 5) for n in shape)] = 1
    labels[tuple(slice(n - (n * 2) // 5, n - n // 8) for n in shape)] = 2
    image = np.ones((1, *shape), np.float32) + labels
    image[(slice(None), 0)] = 0  # an empty border that is cropped away
    one = make_configuration(len(target), spacing=target)
    plan = dataclasses.replace(make_plan(one, labels=SIDES), transpose=transpose)
    _, stored, trace = preprocess_case(Image(image, make_geometry(shape, spacing)), labels, plan, one, case="a")
    return labels, stored, trace


def test_it_lands_exactly_where_preprocessing_puts_the_reference(prepared):
    labels, stored, trace = prepared
    found = on_grid(labels, trace)
    assert found.shape == trace.shape
    assert found.dtype == np.int16
    assert set(np.unique(found)) == {0, 1, 2}
    np.testing.assert_array_equal(found, np.maximum(stored, 0))


def test_there_and_back_gives_the_same_organs(prepared):
    labels, _, trace = prepared
    grid = torch.from_numpy(on_grid(labels, trace)).long()
    logits = 20 * torch.nn.functional.one_hot(grid, 3).movedim(-1, 0).float()
    back = export_labels([Logits(logits, trace)], SIDES)
    assert back.shape == labels.shape
    same_grid = trace.spacing == tuple(trace.geometry.spacing[axis] for axis in trace.transpose)
    if same_grid:
        np.testing.assert_array_equal(back, labels)
    for value in (1, 2):
        a, b = back == value, labels == value
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.85


def test_one_channel_a_foreground_value():
    segmentation = torch.tensor([[[[0, 1, 2], [2, 0, 1]]]], dtype=torch.int16)
    found = organs_as_channels(segmentation, SIDES)
    assert found.dtype == torch.float32
    assert found.tolist() == [[[[[0, 1, 0], [0, 0, 1]]], [[[0, 0, 1], [1, 0, 0]]]]]
    overlapping = regions(whole=(4, 5), core=(5,), rim=(4,))
    shape = organs_as_channels(torch.zeros((5, 2, 3, 4), dtype=torch.int16), overlapping).shape
    assert shape == (5, 2, 2, 3, 4), "a channel for each value, not for each region"
