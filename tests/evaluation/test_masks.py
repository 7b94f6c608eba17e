"""Distances and volumes of masks: answers known by hand, brute force, and the public packages."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist, directed_hausdorff
from skimage.metrics import hausdorff_distance

from autoseg.data.images import read_label
from autoseg.evaluation import masks
from autoseg.evaluation.masks import MaskPair, border

HEARTS = Path(os.environ.get("AUTOSEG_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")) / "Dataset027_ACDC" / "labelsTr"
SHAPES = [((9, 8, 10), (3.0, 0.7, 1.3)), ((7, 9, 8), (1.0, 1.0, 1.0)), ((17, 15), (0.5, 2.0))]
KINDS = ["blobs", "noise", "touching the border", "full"]


def two_masks(shape, kind, seed):
    """Two masks that are not empty: smooth blobs, noise, blobs cut by the image's border, or one that fills the image."""
    rng = np.random.default_rng(seed)
    smooth = [ndimage.gaussian_filter(rng.normal(size=shape), 1.5) for _ in range(2)]
    both = [one > np.quantile(one, 0.8) for one in (smooth[0], smooth[0] + 0.7 * smooth[1])]
    if kind == "noise":
        both = [rng.random(shape) < 0.2 for _ in range(2)]
    if kind == "touching the border":
        both = [np.roll(one, 2, axis=0) for one in both]
        both[0][:2], both[1][-2:] = True, True
    if kind == "full":
        both[0][:] = True
    return both


@pytest.mark.parametrize("kind", KINDS[:3])
@pytest.mark.parametrize(("shape", "spacing"), SHAPES)
def test_border_metrics_equal_brute_force(shape, spacing, kind):
    for seed in range(5):
        reference, prediction = two_masks(shape, kind, seed)
        pair = MaskPair.crop(reference, prediction, spacing, tolerance_mm=1.5)
        points, others = (np.argwhere(mask & ~ndimage.binary_erosion(mask, border_value=1)) * spacing for mask in (reference, prediction))
        there, back = cdist(points, others).min(1), cdist(points, others).min(0)
        pooled = np.concatenate([there, back])
        assert masks.hd_border(pair) == pytest.approx(pooled.max(), abs=1e-9)
        assert masks.hd95_border(pair) == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), abs=1e-9)
        assert masks.assd_border(pair) == pytest.approx(pooled.mean(), abs=1e-9)
        assert masks.nsd_border(pair) == pytest.approx((pooled <= 1.5).mean(), abs=1e-9)


def check_surface_metrics(package, reference, prediction, spacing, *, tolerance_mm):
    theirs = package.compute_surface_distances(reference, prediction, spacing)
    pair = MaskPair.crop(reference, prediction, spacing, tolerance_mm=tolerance_mm)
    assert masks.hd_surface(pair) == pytest.approx(package.compute_robust_hausdorff(theirs, 100), abs=1e-6)
    assert masks.hd95_surface(pair) == pytest.approx(package.compute_robust_hausdorff(theirs, 95), abs=1e-6)
    assert masks.assd_surface(pair) == pytest.approx(np.mean(package.compute_average_surface_distance(theirs)), abs=1e-6)
    assert masks.nsd_surface(pair) == pytest.approx(package.compute_surface_dice_at_tolerance(theirs, tolerance_mm), abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("shape", "spacing"), SHAPES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_surface_metrics_equal_the_public_package(shape, spacing, kind):
    package = pytest.importorskip("surface_distance")
    for seed in range(10):
        check_surface_metrics(package, *two_masks(shape, kind, seed), spacing, tolerance_mm=1.3)


@pytest.mark.parametrize(("shape", "spacing"), SHAPES)
def test_hausdorff_distance_equals_scikit_image_and_scipy(shape, spacing):
    reference, prediction = two_masks(shape, "blobs", 3)
    edges = border(reference), border(prediction)
    isotropic = MaskPair.crop(reference, prediction, (1.0,) * len(shape))
    assert masks.hd_border(isotropic) == pytest.approx(hausdorff_distance(*edges), abs=1e-9)
    points, others = (np.argwhere(edge) * spacing for edge in edges)
    expected = max(directed_hausdorff(points, others)[0], directed_hausdorff(others, points)[0])
    assert masks.hd_border(MaskPair.crop(reference, prediction, spacing)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.skipif(not HEARTS.is_dir(), reason="the ACDC data set is not there (AUTOSEG_TEST_DATA)")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_real_hearts_at_two_times_equal_the_public_package():
    package = pytest.importorskip("surface_distance")
    images = [read_label(file) for file in sorted(HEARTS.glob("patient001_*.nii.gz"))[:2]]
    spacing = images[0].geometry.spacing
    for organ in (1, 2, 3):
        reference, prediction = (image.array == organ for image in images)
        check_surface_metrics(package, reference, prediction, spacing, tolerance_mm=2.0)
        pair = MaskPair.crop(reference, prediction, spacing)
        edges = border(reference), border(prediction)
        far = [ndimage.distance_transform_edt(~other, sampling=spacing)[edge] for edge, other in (edges, edges[::-1])]
        assert masks.hd_border(pair) == pytest.approx(max(some.max() for some in far), abs=1e-6)
        assert masks.assd_border(pair) == pytest.approx(np.concatenate(far).mean(), abs=1e-6)


def cubes():
    """A cube of 4 x 4 x 4 voxels and the same one moved along z by a voxel, 2 mm."""
    reference, prediction = np.zeros((2, 12, 10, 10), bool)
    reference[3:7, 3:7, 3:7], prediction[4:8, 3:7, 3:7] = True, True
    return MaskPair.crop(reference, prediction, (2.0, 1.0, 1.0))


def test_two_cubes_by_hand():
    pair = cubes()
    assert masks.hd_border(pair) == masks.hd_surface(pair) == 2.0
    assert masks.volume(pair) == masks.reference_volume(pair) == pytest.approx(0.128)
    assert masks.volume_error(pair) == 0.0
    # of 56 border voxels the 16 of one end are 2 mm from the other cube; the inner 4 of the other end lie in it, 1 mm from its side
    assert masks.assd_border(pair) == pytest.approx((16 * 2 + 4 * 1) / 56)
    assert masks.nsd_border(pair) == pytest.approx(40 / 56)


def test_volume_error_is_signed():
    reference, prediction = np.zeros((2, 5, 5, 5), bool)
    reference[:2], prediction[:1] = True, True
    for first, second, expected in ((reference, prediction, -0.25), (prediction, reference, 0.25)):
        assert masks.volume_error(MaskPair.crop(first, second, (10.0, 1.0, 1.0))) == pytest.approx(expected)


def test_surface_of_a_plane_has_its_area_and_distance():
    reference, prediction = np.zeros((2, 20, 40, 40), bool)
    reference[4:8, 4:36, 4:36], prediction[4:11, 4:36, 4:36] = True, True
    pair = MaskPair.crop(reference, prediction, (1.5, 1.0, 1.0), tolerance_mm=1.0)
    assert masks.hd_surface(pair) == pytest.approx(4.5)
    side, _ = pair.surfaces
    # the top moved by 3 slices; corners and edges of the surface are cut off, which costs less than the sides' area
    assert 2 * 31**2 < side.areas.sum() < 2 * 32**2 + 4 * 32 * 6
    assert 0 < masks.nsd_surface(pair) < 1


def test_one_voxel_in_2d_by_hand():
    reference, prediction = np.zeros((2, 9, 9), bool)
    reference[2, 2], prediction[2, 5] = True, True
    pair = MaskPair.crop(reference, prediction, (1.0, 2.0))
    # four corners each, 6 mm apart; the two corners that face the other voxel are 4 mm away
    assert masks.hd_surface(pair) == 6.0
    assert masks.assd_surface(pair) == pytest.approx(5.0)
    assert masks.hd_border(pair) == masks.assd_border(pair) == 6.0


def test_tolerance_counts_what_is_exactly_as_far():
    reference, prediction = np.zeros((2, 30, 3), bool)
    reference[13], prediction[3] = True, True
    pairs = [MaskPair.crop(reference, prediction, (0.1, 1.0), tolerance_mm=tolerance) for tolerance in (1.0, 0.999)]
    assert [masks.nsd_border(pair) for pair in pairs] == [1.0, 0.0]


def test_tolerance_forgives_spacings_of_32_bits():
    reference, prediction = np.zeros((2, 12, 3), bool)
    reference[4:8], prediction[5:9] = True, True
    spacing = (float(np.float32(1.2)), 1.0)
    assert spacing[0] > 1.2
    right, strict = (MaskPair.crop(reference, prediction, spacing, tolerance_mm=tolerance) for tolerance in (1.2, 1.199))
    assert masks.nsd_border(right) == masks.nsd_surface(right) == 1.0
    assert masks.nsd_border(strict) == 0.0 and masks.nsd_surface(strict) < 0.8


def test_image_border_is_no_border_but_has_a_surface():
    mask = np.zeros((6, 6), bool)
    mask[:3] = True
    np.testing.assert_array_equal(np.argwhere(border(mask)), [[2, column] for column in range(6)])
    side, _ = MaskPair.crop(mask, mask, (1.0, 1.0)).surfaces
    assert side.areas.sum() == pytest.approx(2 * 5 + 2 * 2 + 4 * math.sqrt(0.5))  # straight pieces, and four corners that are cut off


def test_mask_that_fills_the_image_has_its_outermost_voxels_as_border():
    full, half = np.ones((5, 5), bool), np.zeros((5, 5), bool)
    half[:3] = True
    assert border(full).sum() == border(np.ones((1, 5, 5), bool)).sum() == 16
    assert [masks.hd_border(MaskPair.crop(full, other, (1.0, 1.0))) for other in (full, half)] == [0.0, 2.0]


def test_crop_changes_nothing():
    reference, prediction = two_masks((9, 8, 10), "blobs", 1)
    small = MaskPair.crop(reference, prediction, (3.0, 0.7, 1.3))
    wide = MaskPair.crop(np.pad(reference, 7), np.pad(prediction, 7), (3.0, 0.7, 1.3))
    assert wide.reference.shape <= tuple(length + 2 for length in reference.shape)
    assert masks.assd_surface(small) == pytest.approx(masks.assd_surface(wide), abs=1e-12)


def test_what_is_costly_is_computed_once(monkeypatch):
    pair, calls = cubes(), []
    search = masks.nearest_distances
    monkeypatch.setattr(masks, "nearest_distances", lambda *some: calls.append(1) or search(*some))
    for metric in (masks.hd_border, masks.hd95_border, masks.assd_border, masks.nsd_border, masks.chaos):
        metric(pair)
    assert len(calls) == 1


def test_masks_that_do_not_fit_are_refused():
    for shape, spacing in (((3, 4), (1.0, 1.0)), ((3, 3), (1.0, 1.0, 1.0))):
        with pytest.raises(ValueError, match=re.escape(f"(3, 3), a prediction of {shape} and the spacing {spacing}")):
            MaskPair.crop(np.zeros((3, 3), bool), np.zeros(shape, bool), spacing)
