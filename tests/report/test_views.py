"""Display of volumes: orientation, cuts through the organs, intensity windows."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.report.views import cuts, grey, surroundings, upright, upright_spacing, window_for
from autoseg.schema import Geometry

IDENTITY = tuple(np.eye(3).ravel())
"""``SPL``: the axes of arrays grow to head, back and left."""


def test_volumes_are_turned_so_that_axes_grow_to_head_back_and_left() -> None:
    array = np.arange(24).reshape(2, 3, 4)
    assert np.array_equal(upright(array, Geometry(array.shape, (3.0, 2.0, 1.0), (0, 0, 0), IDENTITY)), array)
    # World x runs along the first array axis, z along the last, towards the feet.
    geometry = Geometry(array.shape, (3.0, 2.0, 1.0), (0, 0, 0), (0, 0, 1, 0, 1, 0, -1, 0, 0))
    turned = upright(array, geometry)
    assert turned.shape == (4, 3, 2)
    assert np.array_equal(turned, array.transpose(2, 1, 0)[::-1])
    assert upright_spacing(geometry) == (1.0, 2.0, 3.0)
    flat = Geometry((3, 4), (2.0, 1.0), (0, 0), (1, 0, 0, 1))
    assert upright(array[0], flat).shape == (3, 4) and upright_spacing(flat) == (2.0, 1.0)


def test_cuts_go_through_the_organ_with_the_head_up() -> None:
    labels = np.zeros((40, 50, 60), np.int16)
    labels[30:33, 20:25, 10:18] = 1
    axial, coronal, sagittal = cuts(labels, (2.0, 1.0, 1.0))
    assert [one.title.split()[0] for one in (axial, coronal, sagittal)] == ["axial", "coronal", "sagittal"]
    assert 30 <= axial.index < 33 and 20 <= coronal.index < 25 and 10 <= sagittal.index < 18
    assert axial.pixel == (1.0, 1.0) and coronal.pixel == (2.0, 1.0)
    volume = np.broadcast_to(np.arange(40.0)[:, None, None], labels.shape)
    rows = coronal.of(volume)[:, 0]
    assert rows[0] > rows[-1], "the head, where the first axis is largest, is up"
    assert axial.of(labels).shape == (5 + 24, 8 + 10 + 12), "12 mm around the organ, or to the edge of the image"
    assert [one.title for one in cuts(labels[31], (1.0, 1.0))] == [""]


def test_without_an_organ_all_is_shown() -> None:
    assert surroundings(np.zeros((4, 5), bool), (1.0, 1.0)) == ((0, 4), (0, 5))


def test_ct_is_shown_in_its_organs_window_and_other_images_between_percentiles() -> None:
    image = np.full((6, 30, 30), -1000.0)
    organ = np.zeros(image.shape, bool)
    organ[1:5, 5:25, 5:25] = True
    image[organ] = np.random.default_rng(0).normal(60, 10, organ.sum())
    assert window_for(image, organ, "CT", ("lung_left", "lung_right"), {})[0] == (-1350, 150)
    assert window_for(image, organ, "CT", ("liver",), {"liver": (100.0, 40.0)})[0] == (-10, 90)
    low, high = window_for(image, organ, "CT", ("thing", "liver"), {})[0]
    assert low < 60 < high and high - low == 350
    (low, high), words = window_for(image, organ, "MR", ("liver",), {})
    assert low == -1000 and 60 < high < 110 and "percentile" in words


def test_grey_values() -> None:
    assert grey(np.array([-5.0, 0.0, 5.0, 20.0, np.nan]), (0.0, 10.0)).tolist() == pytest.approx([0, 0, 128, 255, 0])
