"""Surface elements: areas of every neighbourhood, worked out by hand, by marching cubes and as in the public package."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from skimage.measure import marching_cubes, mesh_surface_area

from autoseg.evaluation.surface import SurfaceDistances, element_areas, neighbour_codes, surface_elements


def voxels(code, dim=3):
    """The 2 x 2 x 2 voxels of a code."""
    mask = np.zeros((2,) * dim, bool)
    for bit, corner in enumerate(itertools.product((0, 1), repeat=dim)):
        mask[corner[::-1]] = bool(code >> bit & 1)
    return mask


def test_code_of_a_corner_names_its_voxels():
    assert [neighbour_codes(voxels(code))[1, 1, 1] for code in range(256)] == list(range(256))
    assert [neighbour_codes(voxels(code, 2))[1, 1] for code in range(16)] == list(range(16))


def test_areas_by_hand():
    areas, lengths = element_areas((1.0, 1.0, 1.0)), element_areas((2.0, 3.0))
    corner = math.sqrt(3) / 8
    np.testing.assert_allclose(areas[[0, 255, 1, 0b11, 0b1111, 0b10010110]], [0, 0, corner, math.sqrt(0.5), 1, 4 * corner])
    np.testing.assert_allclose(lengths[[0, 1, 3, 5, 6, 15]], [0, math.sqrt(13) / 2, 2.0, 3.0, math.sqrt(13), 0])


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.7, 1.3)])
def test_areas_are_those_of_marching_cubes(spacing):
    areas = element_areas(spacing)
    for code in range(1, 255):
        inside = [corner for corner in itertools.product((0, 1), repeat=3) if voxels(code)[corner]]
        if len(inside) in (1, 2, 7) and areas[code] > 0:
            found, faces, *_ = marching_cubes(voxels(code).astype(float), 0.5, spacing=spacing, method="lorensen")
            assert areas[code] == pytest.approx(mesh_surface_area(found, faces), rel=1e-6)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.7, 1.3)])
def test_areas_equal_the_public_package(spacing):
    tables = pytest.importorskip("surface_distance.lookup_tables")
    areas = tables.create_table_neighbour_code_to_surface_area(spacing), tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL
    lengths = tables.create_table_neighbour_code_to_contour_length(spacing[:2]), tables.ENCODE_NEIGHBOURHOOD_2D_KERNEL
    for dim, (theirs, kernel) in ((3, areas), (2, lengths)):
        expected = [theirs[int((voxels(code, dim) * kernel).sum())] for code in range(2**2**dim)]
        assert element_areas(spacing[:dim]) == pytest.approx(np.array(expected), abs=1e-9)


def test_elements_of_one_voxel():
    mask = np.zeros((5, 6, 7), bool)
    mask[2, 3, 4] = True
    points, areas = surface_elements(mask, (1.0, 1.0, 1.0))
    np.testing.assert_array_equal(points, list(itertools.product((2, 3), (3, 4), (4, 5))))
    np.testing.assert_allclose(areas, math.sqrt(3) / 8)


def test_empty_mask_has_no_elements():
    points, areas = surface_elements(np.zeros((3, 4), bool), (1.0, 1.0))
    assert points.shape == (0, 2) and areas.shape == (0,)


def test_statistics_weigh_by_area():
    side = SurfaceDistances(np.array([0.0, 1.0, 5.0]), np.array([6.0, 3.0, 1.0]))
    assert side.mean == pytest.approx(0.8)
    assert side.maximum == 5.0
    assert [side.percentile(percent) for percent in (50, 60, 61, 90, 91, 100)] == [0.0, 0.0, 1.0, 1.0, 5.0, 5.0]
    assert [side.area_within(tolerance) for tolerance in (0.5, 1.0, 9.0)] == [6.0, 9.0, 10.0]
