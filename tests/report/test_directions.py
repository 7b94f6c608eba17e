"""The letters at the edges of pictures and the places of slices are those of the patient, however the file lies."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from autoseg.report.directions import directions_of
from autoseg.report.views import NO_EDGES, Cut, cuts, upright, upright_spacing
from autoseg.schema import Geometry

SHAPE, SPACING = (20, 24, 28), (2.0, 1.5, 1.25)
TOWARDS = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
FILES = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))
"""The 48 ways in which a volume can lie along the patient's axes."""


def tilt(degrees: float) -> np.ndarray:
    """A rotation about the patient's x axis, and half as far about z."""
    a, b = np.deg2rad([degrees, degrees / 2])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    return about_x @ np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])


def volume(order: tuple[int, ...], signs: tuple[int, ...], degrees: float) -> tuple[np.ndarray, Geometry]:
    """World coordinates (x, y, z) of every voxel ``(Z, Y, X, 3)`` of a file that lies so, and its geometry."""
    direction = tilt(degrees) @ (np.eye(3)[:, list(order)] * signs)
    geometry = Geometry(SHAPE, SPACING, (-17.0, 8.0, 30.0), tuple(direction.ravel()))
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1)[..., ::-1] * SPACING[::-1]
    return index @ direction.T + np.array(geometry.origin), geometry


def shown(values: np.ndarray, geometry: Geometry) -> list[tuple[Cut, np.ndarray]]:
    """The planes of a volume with three numbers a voxel ``(Z, Y, X, 3)``, as they are drawn."""
    turned = np.stack([upright(values[..., i], geometry) for i in range(3)], -1)
    mask = np.zeros(turned.shape[:3], np.int16)
    mask[6:9, 5:9, 11:16] = 1
    planes = cuts(mask, upright_spacing(geometry), directions_of(geometry))
    return [(cut, np.stack([cut.of(turned[..., i]) for i in range(3)], -1)) for cut in planes]


@pytest.mark.parametrize("degrees", [0, 13, 31, 44])
def test_letters_and_places_are_right_for_every_plane_of_every_file(degrees: float) -> None:
    for order, signs in FILES:
        values, geometry = volume(order, signs, degrees)
        for cut, plane in shown(values, geometry):
            down, right = plane[-1, 0] - plane[0, 0], plane[0, -1] - plane[0, 0]
            for letters, vector in zip(cut.edges, (-down, down, -right, right), strict=True):
                share = vector / np.linalg.norm(vector)
                nearest = max(TOWARDS, key=lambda letter: float(share @ TOWARDS[letter]))
                assert letters[0] == nearest, (order, signs, cut)
                assert all((share @ TOWARDS[letter] > 0.33) for letter in letters)
                assert len(letters) == sum(share @ TOWARDS[letter] >= 0.34 for letter in TOWARDS)
            _, name, unit = cut.title.rpartition(", ")[2].rpartition(" ")
            side, number = cut.title.rpartition(", ")[2].removesuffix(" mm").split()
            normal = np.cross(right, down) / np.linalg.norm(np.cross(right, down))
            assert float(number) == pytest.approx(abs(plane[0, 0] @ normal), abs=0.06) and unit == "mm"
            assert TOWARDS[side[0]] @ (plane[0, 0] @ normal * normal) >= -1e-6


def test_a_volume_along_the_patients_axes_is_seen_as_a_radiologist_expects() -> None:
    values, geometry = volume((2, 0, 1), (-1, 1, -1), 0)
    axial, coronal, sagittal = (cut for cut, _ in shown(values, geometry))
    assert (axial.edges, coronal.edges, sagittal.edges) == (("A", "P", "R", "L"), ("S", "I", "R", "L"), ("S", "I", "A", "P"))
    assert [cut.title.split()[0] for cut in (axial, coronal, sagittal)] == ["axial", "coronal", "sagittal"]


def test_without_a_direction_there_are_no_letters() -> None:
    flat = Geometry((24, 28), (1.5, 1.0), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0))
    assert [cut.edges for cut in cuts(np.ones((24, 28), np.int16), flat.spacing, directions_of(flat))] == [NO_EDGES]
    for has_spacing, place in ((True, ", 0.0 mm"), (False, "")):
        made_up = Geometry(SHAPE, SPACING, (5.0, 5.0, 5.0), tuple(np.eye(3).ravel()), oriented=False, has_spacing=has_spacing)
        first = cuts(np.ones(SHAPE, np.int16), SPACING, directions_of(made_up))[0]
        assert first.edges == NO_EDGES and first.title == f"across z 1 / 20{place}"
