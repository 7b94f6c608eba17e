"""Arrays as images: order of axes, channels, and places in the patient as nibabel and MONAI write them."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.data.array_images import from_array, in_order_of_array, is_array_with_place
from autoseg.preprocessing.orientation import orientation_of

RAS = np.array([[2.0, 0, 0, -10], [0, 3, 0, 5], [0, 0, 4, 7], [0, 0, 0, 1]])


def test_an_array_with_spacing_has_no_orientation() -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    image = from_array(array, (2.5, 0.8, 0.7))
    assert image.array.shape == (1, 2, 3, 4)
    assert image.geometry.spacing == (2.5, 0.8, 0.7)
    assert orientation_of(image.geometry) == ""
    assert from_array(np.stack([array, array]), [2.5, 0.8, 0.7]).array.shape == (2, 2, 3, 4)
    assert from_array(array[0], (0.8, 0.7)).array.shape == (1, 3, 4)
    assert in_order_of_array(array, (1, 1, 1)) is array


def test_an_affine_places_an_array_as_nibabel_does() -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    image = from_array(array, RAS)
    assert np.array_equal(image.array[0], array.transpose(2, 1, 0))
    assert image.geometry.spacing == (4, 3, 2)
    assert image.geometry.origin == (10, -5, 7)  # to left and posterior
    assert orientation_of(image.geometry) == "SAR"
    assert np.array_equal(in_order_of_array(image.array[0], RAS), array)
    assert from_array(np.stack([array, array]), RAS).array.shape == (2, 4, 3, 2)


@pytest.mark.parametrize(
    ("array", "place", "message"),
    [
        (np.zeros((2, 3, 4)), (1.0, 1.0), None),
        (np.zeros((2, 3)), (1.0, 1.0, 1.0), "expected 3 or 4 axes"),
        (np.zeros((2, 3, 4)), (1.0, 0.0, 1.0), "millimetres above 0"),
        (np.zeros((2, 3, 4)), (1.0,), "2 or 3 numbers"),
        (np.zeros((2, 3, 4)), RAS[:3], "four rows and columns"),
        (np.zeros((2, 3, 4)), RAS + np.eye(4)[0][:, None] * np.eye(4)[1], "perpendicular"),
    ],
)
def test_what_does_not_fit_is_explained(array: np.ndarray, place: object, message: str | None) -> None:
    assert is_array_with_place((array, place))
    if message is None:
        assert from_array(array, place).array.shape == array.shape, "two channels of a picture"
    else:
        with pytest.raises(ValueError, match=message):
            from_array(array, place)
