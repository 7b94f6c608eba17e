"""The middle of slices, slices of a fixed number of pixels, and the way back to the file."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from factories import ORGANS, make_configuration, make_geometry, make_plan

from autoseg.inference.export import export_labels
from autoseg.inference.fold_agreement import data_of
from autoseg.inference.logits import Logits
from autoseg.pipeline import TrainSettings
from autoseg.preprocessing.normalization import find_scheme
from autoseg.preprocessing.preprocess import preprocess_case, recipe_of
from autoseg.preprocessing.slice_grids import kept_box, with_center_crop, with_slice_shape
from autoseg.runtime.provenance import value_id
from autoseg.schema import Configuration, Image, Intensity
from autoseg.trainers.training_spec import training_spec

FLAT = make_configuration(2, median_shape=(40, 50), spacing=(2.0, 2.0), normalization=("nonorm",))


def image(*shape: int, spacing: tuple[float, ...] = (3.0, 2.0, 2.0)) -> Image:
    array = np.random.default_rng(0).uniform(1, 9, (1, *shape)).astype(np.float32)
    return Image(array, make_geometry(shape, spacing), "here")


def preprocessed(one: Configuration, case: Image):
    labels = (case.array[0] > 5).astype(np.int16)
    return labels, *preprocess_case(case, labels, make_plan(one), one)


def test_a_centre_crop_keeps_the_middle_of_each_slice_in_the_images_own_pixels() -> None:
    one, suffix = with_center_crop(FLAT, (32, 20))
    assert (suffix, one.data, one.median_shape) == ("c32x20", "2d_c32x20", (32, 20))
    case = image(4, 40, 50)
    truth, array, labels, trace = preprocessed(one, case)
    assert trace.crop == ((0, 4), (4, 36), (15, 35))
    assert np.array_equal(array, case.array[:, :, 4:36, 15:35]) and np.array_equal(labels, truth[:, 4:36, 15:35])
    fine = preprocessed(one, image(4, 80, 100, spacing=(3.0, 1.0, 1.0)))[-1]
    assert (fine.crop, fine.shape) == (((0, 4), (24, 56), (40, 60)), (4, 16, 10)), "of 32 x 20 pixels before resampling to 2 mm"


def test_what_is_cropped_away_is_background_in_the_file() -> None:
    one, _ = with_center_crop(FLAT, (32, 20))
    trace = preprocessed(one, image(4, 40, 50))[-1]
    organ = torch.stack([torch.zeros(trace.shape), torch.ones(trace.shape), -torch.ones(trace.shape)])
    found = export_labels([Logits(organ, trace)], ORGANS)
    assert found.shape == (4, 40, 50) and (found[:, 4:36, 15:35] == 1).all() and found.sum() == 4 * 32 * 20


def test_a_slice_smaller_than_the_crop_is_kept_whole_and_zeros_around_are_still_cut() -> None:
    one = with_center_crop(FLAT, (64, 64))[0]
    assert kept_box(((0, 4), (3, 30), (5, 40)), (4, 40, 50), one) == ((0, 4), (3, 30), (5, 40))
    one = with_center_crop(FLAT, (10, 10))[0]
    assert kept_box(((0, 4), (0, 5), (0, 5)), (4, 40, 50), one) == ((0, 4), (15, 25), (20, 30)), "without data the middle itself"
    assert kept_box(((0, 41), (0, 51)), (41, 51), one) == ((15, 26), (20, 31)), "of an odd number one more"


def test_slices_get_a_fixed_number_of_pixels_whatever_their_size_in_mm() -> None:
    one, suffix = with_slice_shape(FLAT, (20, 25))
    assert (suffix, one.data, one.median_shape, one.spacing) == ("s20x25", "2d_s20x25", (20, 25), (4.0, 4.0))
    for shape, spacing, expected in (((4, 40, 50), (3.0, 2.0, 2.0), 4.0), ((4, 80, 100), (3.0, 0.5, 0.5), 2.0)):
        truth, array, labels, trace = preprocessed(one, image(*shape, spacing=spacing))
        assert array.shape == (1, 4, 20, 25) == (1, *labels.shape)
        assert trace.spacing == (3.0, expected, expected)
        logits = torch.stack([torch.from_numpy(labels != 1), torch.from_numpy(labels == 1), torch.zeros(labels.shape)]).float()
        assert np.mean(export_labels([Logits(logits, trace)], ORGANS)) == pytest.approx(labels.mean(), abs=0.1)
    zeros = image(4, 40, 50)
    zeros.array[:, :, :10] = 0
    assert preprocessed(one, zeros)[-1].crop == ((0, 4), (0, 40), (0, 50)), "with its margin of zeros"


def test_the_data_of_plain_configurations_stay_what_they_are() -> None:
    plan = make_plan(FLAT)
    assert set(dataclasses.asdict(recipe_of(plan, FLAT))).isdisjoint({"center_crop", "slice_shape"})
    cropped = with_center_crop(FLAT, (32, 20))[0]
    assert value_id(recipe_of(plan, cropped)) != value_id(recipe_of(plan, FLAT))
    assert data_of(plan, cropped)["center_crop"] == [32, 20] and data_of(plan, FLAT)["center_crop"] == []


def test_a_window_of_eight_bits_has_256_grey_values() -> None:
    values = np.linspace(-400, 500, 5000, dtype=np.float32)
    fine, coarse = (find_scheme(f"{name}:350:50")(values, None, Intensity(*(0.0,) * 7)) for name in ("window", "window8"))
    assert len(np.unique(coarse)) == 256 and np.abs(fine - coarse).max() <= 0.5 / 255 + 1e-6
    assert np.array_equal(np.round(coarse * 255), np.round(fine * 255)) and (coarse.min(), coarse.max()) == (0, 1)


class TestAskedFor:
    PLAN = make_plan(make_configuration(2, median_shape=(40, 50), normalization=("ct",)), make_configuration(), channels=("CT",))

    def test_each_is_in_the_name_of_the_model_and_of_its_data(self) -> None:
        settings = TrainSettings(window=(350.0, 50.0), window_bits=8, center_crop=(32, 32), slice_shape=(16, 16), patch=(8, 16))
        asked = training_spec(self.PLAN, "2d", settings)
        assert asked.words == ("w350_l50_8bit", "c32x32", "s16x16")
        one = asked.configuration
        assert (one.data, one.normalization) == ("2d_w350_l50_8bit_c32x32_s16x16", ("window8:350:50",))
        assert (one.patch_size, one.center_crop, one.slice_shape) == ((8, 16), (32, 32), (16, 16))

    @pytest.mark.parametrize(
        ("configuration", "settings", "message"),
        [
            ("2d", {"center_crop": (32,)}, "--center-crop: expected two numbers of pixels"),
            ("2d", {"center_crop": (0, 32)}, "--center-crop: expected two numbers of pixels"),
            ("3d_fullres", {"slice_shape": (16, 16)}, r"--slice-shape: expected a configuration of slices \(2d, 2.5d\)"),
            ("2d", {"patch": (8, 8, 8)}, "--patch: expected 2 sizes for 2d"),
            ("2d", {"patch": (8, 7)}, "--patch: expected multiples of 2 2 for this network, got 8 7"),
            ("2d", {"window_bits": 8}, "--window-bits: expected 8, together with --window"),
            ("2d", {"window": (350.0, 50.0), "window_bits": 7}, "--window-bits: expected 8"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, configuration, settings, message) -> None:
        with pytest.raises(ValueError, match=message):
            training_spec(self.PLAN, configuration, TrainSettings(**settings))

    def test_networks_that_take_any_size_take_any_patch(self) -> None:
        assert training_spec(self.PLAN, "2d", TrainSettings(network="se_resunet", patch=(7, 9))).configuration.patch_size == (7, 9)
