"""Where organs lie along the patient's axes, whatever the order of the axes in the file."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import SimpleITK as sitk
from factories import ORGANS, REGIONS, labels, make_geometry

from autoseg.data.geometry import to_world
from autoseg.inference.organ_places import OrganPlace, organ_places
from autoseg.schema import Geometry


def two_organs() -> np.ndarray:
    array = np.zeros((12, 14, 16), np.int16)
    array[2:8, 1:6, 3:7] = 1
    array[3, 4, 5:12] = 1
    array[9:11, 9:13, 10:15] = 2
    return array


def reordered(array: np.ndarray, geometry: Geometry, axes: tuple[int, ...], flips: tuple[bool, ...]) -> tuple[np.ndarray, Geometry]:
    """The same volume with its axes in another order and direction, by ITK, whose geometry follows."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(geometry.spacing[::-1])
    image.SetOrigin(geometry.origin)
    image.SetDirection(geometry.direction)
    image = sitk.Flip(sitk.PermuteAxes(image, axes), flips)
    spacing = tuple(image.GetSpacing()[::-1])
    return sitk.GetArrayFromImage(image), Geometry(image.GetSize()[::-1], spacing, image.GetOrigin(), image.GetDirection())


def numbers(place: OrganPlace) -> list[float]:
    return [*place.centre_mm, *place.from_others_mm, *place.spread_mm, *place.image_mm, place.largest_share]


@pytest.mark.parametrize("axes", itertools.permutations(range(3)))
@pytest.mark.parametrize("flips", [(False, False, False), (True, False, True), (False, True, False), (True, True, True)])
def test_a_turned_or_mirrored_copy_of_a_case_has_its_organs_in_the_same_places(axes, flips) -> None:
    oblique = sitk.Euler3DTransform()
    oblique.SetRotation(0.1, -0.2, 0.3)
    array, geometry = two_organs(), Geometry((12, 14, 16), (3.0, 1.5, 0.8), (5.0, -7.0, 40.0), tuple(oblique.GetMatrix()))
    expected = organ_places(array, ORGANS, geometry)
    copy, of_copy = reordered(array, geometry, axes, flips)
    found = organ_places(copy, ORGANS, of_copy)
    assert found.keys() == expected.keys() == {"ball", "block"}
    for organ, place in expected.items():
        assert numbers(found[organ]) == pytest.approx(numbers(place), abs=1e-6)


def test_places_are_those_of_all_voxels_in_space() -> None:
    array, geometry = (
        two_organs(),
        Geometry((12, 14, 16), (3.0, 1.5, 0.8), (5.0, -7.0, 40.0), (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)),
    )
    ball, block = (to_world(geometry, np.argwhere(array == value)[:, ::-1]) for value in (1, 2))
    middle = to_world(geometry, (np.array([[16, 14, 12]]) - 1) / 2)[0]
    place = organ_places(array, ORGANS, geometry)["ball"]
    assert place.centre_mm == pytest.approx(ball.mean(axis=0) - middle)
    assert place.from_others_mm == pytest.approx(ball.mean(axis=0) - block.mean(axis=0))
    assert place.spread_mm == pytest.approx(ball.std(axis=0))
    assert place.image_mm == pytest.approx((1.5 * 14, 0.8 * 16, 3.0 * 12))


def test_pieces_that_touch_in_a_corner_are_one() -> None:
    array = np.zeros((4, 6, 6), np.int16)
    array[1, 1, 1] = array[2, 2, 2] = array[2, 2, 3] = 1
    array[1, 5, 5] = 1
    assert organ_places(array, ORGANS, make_geometry((4, 6, 6)))["ball"].largest_share == pytest.approx(3 / 4)


def test_an_organ_alone_has_no_others_and_one_that_is_not_there_no_place() -> None:
    found = organ_places((two_organs() == 1).astype(np.int16), ORGANS, make_geometry((12, 14, 16)))
    assert set(found) == {"ball"} and found["ball"].from_others_mm == ()
    assert organ_places(np.zeros((5, 5, 5), np.int16), labels(liver=1), make_geometry((5, 5, 5))) == {}


def test_the_others_of_a_region_are_the_voxels_outside_it_and_an_image_may_have_two_axes() -> None:
    array = np.zeros((6, 8), np.int16)
    array[1:5, 1:7], array[2:4, 2:4] = 1, 2
    found = organ_places(array, REGIONS, make_geometry((6, 8), (2.0, 1.0)))
    assert found["whole"].from_others_mm == () and len(found["whole"].centre_mm) == 2
    whole, core = np.argwhere(array > 0).mean(axis=0), np.argwhere(array == 2).mean(axis=0)
    assert found["core"].from_others_mm == pytest.approx(((core - np.argwhere(array == 1).mean(axis=0)) * (2, 1))[::-1])
    assert found["whole"].centre_mm == pytest.approx(((whole - (2.5, 3.5)) * (2, 1))[::-1])
