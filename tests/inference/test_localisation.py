"""Where the organs are: the coarse grid that the locator sees, and the box around what it finds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from factories import LIVER_KIDNEYS, SHAPE, make_configuration, make_plan, voxelwise
from scipy import ndimage

from autoseg.inference.localisation import Localiser, LocatedPredictor, by_anatomy, coarse_shape, fitted_shape, plan_locator, to_coarse
from autoseg.inference.predictor import Predictor
from autoseg.inference.volume_predictor import Volume
from autoseg.schema import Locator

CPU = torch.device("cpu")


class TestGrid:
    @pytest.mark.parametrize(
        ("spacing", "cases", "coarse", "shape", "sigma"),
        [
            ((2.5, 0.8, 0.8), [(160, 500, 500), (200, 400, 512)], (6.0, 6.0, 6.0), (96, 80, 80), 3.0),  # 83 x 67 x 68 up to multiples of 16
            ((5.0, 1.0, 1.0), [(400, 600, 640)], (6.0, 6.0, 6.0), (256, 80, 80), 3.0),  # 2000 x 600 x 640 mm
            ((1.0, 1.0, 1.0), [(35, 51, 35), (30, 40, 36)], (51 / 32,) * 3, (32, 32, 32), 51 / 64),
            ((10.0, 1.0, 1.0), [(12, 256, 256)], (10.0, 6.0, 6.0), (16, 48, 48), 3.0),
            ((1.0, 1.0, 1.0), [SHAPE], (1.0, 1.0, 1.0), (16, 16, 16), 0.25),
        ],
        ids=["the paper's 6 mm", "too large: coarser", "small: finer", "no axis finer than the image", "nor a tiny image"],
    )
    def test_the_coarse_grid_follows_the_largest_case(self, spacing, cases, coarse, shape, sigma):
        locator = plan_locator(spacing, cases)
        assert locator.spacing == coarse
        assert locator.shape == shape
        assert locator.sigma == pytest.approx(sigma)

    def test_no_case_has_more_voxels_than_the_papers_80_80_256(self):
        locator = plan_locator((2.0, 1.0, 1.0), [(100, 300, 300)])
        assert (locator.spacing, locator.most) == ((6.0,) * 3, (256, 80, 80))
        assert coarse_shape(locator, (100, 300, 300), (2.0, 1.0, 1.0)) == (33, 50, 50)
        assert coarse_shape(locator, (100, 540, 300), (2.0, 1.0, 1.0)) == (30, 80, 44), "coarser along all axes, for y"
        assert coarse_shape(locator, (900, 480, 480), (2.0, 1.0, 1.0)) == (256, 68, 68)
        assert max(coarse_shape(locator, (100, 500, 9000), (2.0, 1.0, 1.0))) == 80

    def test_the_longest_axis_is_that_to_the_head_however_the_volumes_lie(self):
        plan = make_plan()
        assert by_anatomy((256, 80, 81), plan) == (256, 80, 81), "of unknown orientation: as the arrays run"
        lying = dataclasses.replace(plan, orientation="SAR", transpose=(2, 0, 1))
        assert by_anatomy((256, 80, 81), lying) == (81, 256, 80)

    def test_a_case_that_is_much_larger_than_any_before_gets_a_coarser_grid(self):
        """With a locator of an earlier version."""
        locator = Locator((6.0,) * 3, (32, 32, 32), 3.0)
        assert coarse_shape(locator, (64, 96, 96), (3.0, 2.0, 2.0)) == (32, 32, 32)
        assert coarse_shape(locator, (80, 96, 96), (3.0, 2.0, 2.0)) == (40, 32, 32)
        assert math.prod(coarse_shape(locator, (600, 600, 600), (1.0, 1.0, 1.0))) <= 2.1 * 32**3
        assert coarse_shape(locator, (1, 2, 600), (1.0, 1.0, 1.0))[:2] == (1, 1)

    def test_smoothing_keeps_the_mean_and_takes_the_noise(self):
        image = np.random.default_rng(0).normal(3, 1, (2, 24, 48, 48)).astype(np.float32)
        coarse = to_coarse(image, Locator((6.0,) * 3, (16, 16, 16), 3.0), (2.0, 1.0, 1.0))
        assert coarse.shape == (2, 8, 8, 8)
        assert coarse.dtype == np.float32
        assert coarse.mean() == pytest.approx(3, abs=0.05)
        assert coarse.std() < 0.15

    def test_a_grid_that_is_not_coarser_changes_nothing(self):
        image = np.random.default_rng(0).normal(size=(1, 6, 7, 8)).astype(np.float32)
        assert np.array_equal(to_coarse(image, Locator((1.0,) * 3, (16, 16, 16), 0.5), (1.0,) * 3), image)


def brighter_than(threshold: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """A network that calls an organ what is brighter."""
    return lambda x: torch.cat([torch.zeros_like(x), x - threshold], 1)


def located(threshold: float, *more: float, margin: int = 2, **changes: object) -> LocatedPredictor:
    locator = Locator((2.0,) * 3, (16, 16, 16), 0.0, margin, whole=bool(changes))
    configuration = make_configuration(locator=locator, **changes)
    networks = [partial(brighter_than, value) for value in (threshold, *more)]
    predictor = Predictor([voxelwise], configuration, LIVER_KIDNEYS, device=CPU, mirror=False)
    return LocatedPredictor(predictor, Localiser(networks, configuration, CPU))


@pytest.fixture
def volume() -> np.ndarray:
    """Dark, with a bright box of even borders."""
    image = np.random.default_rng(0).normal(0, 0.1, (1, 30, 40, 36)).astype(np.float32)
    image[:, 10:18, 12:24, 20:32] += 10
    return image


class TestBox:
    def test_around_what_was_found_with_the_margin_inside_the_image(self, volume):
        assert located(5).localiser.box(volume) == ((8, 20), (10, 26), (18, 34))
        assert located(5, margin=10).localiser.box(volume) == ((0, 28), (2, 34), (10, 36))

    def test_at_least_the_patch_where_the_image_has_it(self, volume):
        volume[:] = 0
        volume[:, 10:12, 38:, 34:] = 10
        assert located(5, margin=0).localiser.box(volume) == ((7, 15), (32, 40), (28, 36))
        thin = volume[:, 9:13]
        assert located(5, margin=0).localiser.box(np.ascontiguousarray(thin[:, 1:3]))[0] == (0, 2)

    def test_folds_are_averaged(self, volume):
        assert located(5, 6).localiser.box(volume) == located(5).localiser.box(volume)
        assert located(50, 50.0, 5).localiser.box(volume) is None

    def test_inside_as_the_predictor_says_outside_background(self, volume):
        shares = []
        logits = located(5).logits(Volume(volume, case="c"), progress=shares.append)
        inside = np.zeros(volume.shape[1:], bool)
        inside[8:20, 10:26, 18:34] = True
        expected = voxelwise(torch.from_numpy(volume)[None])[0]
        torch.testing.assert_close(logits[:, inside].float(), expected[:, inside], rtol=2e-3, atol=2e-3)
        assert (logits.float().softmax(0)[0, ~inside] == 1).all()
        assert sum(shares) == pytest.approx(1)

    def test_where_nothing_is_found_the_whole_volume_is_segmented(self, volume, caplog):
        logits = located(50).logits(Volume(volume, case="c7"))
        torch.testing.assert_close(logits.float(), voxelwise(torch.from_numpy(volume)[None])[0], rtol=2e-3, atol=2e-3)
        assert "c7: no organ was located" in caplog.text

    def test_a_region_is_cut_to_the_box(self, volume):
        region = np.zeros(volume.shape[1:], bool)
        region[10:12, 12:14, 20:22] = True
        logits = located(5).logits(Volume(volume, region=region))
        assert (logits.float().softmax(0)[0, ~region] == 1).all()
        assert (logits[0, region] > 5).all()


class TestWholeRegion:
    """The box as one input."""

    def seen(self, volume: np.ndarray, patch: tuple[int, ...], *, threshold: float = 5) -> tuple[torch.Tensor, list[tuple[int, ...]]]:
        sizes, one = [], located(threshold, margin=2, patch_size=patch)
        one.predictor.networks = [lambda x: sizes.append(tuple(x.shape[2:])) or voxelwise(x)]
        return one.logits(Volume(volume, case="c")), sizes

    def test_one_pass_over_the_box_of_at_least_32_voxels_an_axis(self, volume):
        logits, sizes = self.seen(volume, (64, 64, 64))
        assert sizes == [(30, 32, 32)], "all of the image's 30 along z"
        expected = voxelwise(torch.from_numpy(volume)[None])[0]
        box = np.s_[:, :, 2:34, 4:36]
        torch.testing.assert_close(logits[box].float(), expected[box], rtol=2e-3, atol=2e-3)
        assert (logits[:, :, :2].float().softmax(0)[0] == 1).all()

    def test_a_box_that_is_too_large_is_seen_coarser(self, volume):
        smooth = ndimage.gaussian_filter(volume[0], 3)[None]
        smooth[:, 10:18, 12:24, 20:32] += 30
        logits, sizes = self.seen(smooth, (16, 64, 16), threshold=20)
        assert sizes == [(15, 16, 16)], "32 voxels are twice the 16 of the patch"
        assert logits.shape == (4, 30, 40, 36)
        inner = np.s_[:, 12:16, 14:22, 22:30]
        expected = voxelwise(torch.from_numpy(smooth)[None])[0]
        torch.testing.assert_close(logits[inner].float(), expected[inner], rtol=0.05, atol=0.5)

    def test_where_nothing_is_found_the_whole_volume_is_one_input(self, volume):
        _, sizes = self.seen(volume, (20, 20, 20), threshold=500)
        assert sizes == [(15, 20, 18)]

    def test_the_papers_largest_region(self):
        assert fitted_shape((160, 128, 160), (160, 128, 160)) == (160, 128, 160)
        assert fitted_shape((320, 100, 100), (160, 128, 160)) == (160, 50, 50)
