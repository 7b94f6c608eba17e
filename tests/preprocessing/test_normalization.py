from __future__ import annotations

import numpy as np
import pytest

from autoseg.preprocessing.normalization import PARAMETRIC, SCHEMES, default_scheme, find_scheme, is_for_ct
from autoseg.schema import Intensity

CT = Intensity(mean=50.0, median=50.0, std=20.0, min=-900.0, max=900.0, percentile_00_5=-10.0, percentile_99_5=110.0)


def test_scheme_follows_from_the_channel_name() -> None:
    assert [default_scheme(name) for name in ("CT", "ct", "T1", "MRI", "noNorm", "rescale_to_0_1", "RGB_to_0_1", "zscore")] == [
        "ct", "ct", "zscore", "zscore", "nonorm", "rescale_to_0_1", "rgb_to_0_1", "zscore",
    ]  # fmt: skip


def test_ct_clips_and_uses_the_dataset() -> None:
    found = SCHEMES["ct"](np.float32([-1000, 50, 70, 3000]), None, CT)
    np.testing.assert_allclose(found, [-3, 0, 1, 3], rtol=1e-6)


def test_zscore_with_and_without_mask() -> None:
    values = np.random.default_rng(0).normal(5, 3, (4, 5, 6)).astype(np.float32)
    whole = SCHEMES["zscore"](values, None, CT)
    assert abs(whole.mean()) < 1e-5 and abs(whole.std() - 1) < 1e-5
    mask = values > 5
    masked = SCHEMES["zscore"](values, mask, CT)
    assert abs(masked[mask].mean()) < 1e-5 and abs(masked[mask].std() - 1) < 1e-5
    np.testing.assert_array_equal(masked[~mask], values[~mask])


def test_images_without_contrast_stay_finite() -> None:
    for scheme in ("zscore", "rescale_to_0_1"):
        assert np.isfinite(SCHEMES[scheme](np.full((2, 3), 7, np.float32), None, CT)).all()
    assert np.isfinite(SCHEMES["zscore"](np.ones((2, 3), np.float32), np.zeros((2, 3), bool), CT)).all()


def test_ranges() -> None:
    values = np.float32([[0, 51], [102, 255]])
    np.testing.assert_allclose(SCHEMES["rgb_to_0_1"](values, None, CT), values / 255)
    np.testing.assert_allclose(SCHEMES["rescale_to_0_1"](values + 20, None, CT), values / 255, atol=1e-6)
    np.testing.assert_array_equal(SCHEMES["nonorm"](values, None, CT), values)
    with pytest.raises(ValueError, match="0..255"):
        SCHEMES["rgb_to_0_1"](values + 20, None, CT)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_window_goes_from_black_to_white(dtype: type) -> None:
    """Crespi et al. 2023: the heart's 350/50 shows -125 to 225 HU."""
    found = find_scheme("window:350:50")(np.array([-1000, -125, 50, 137.5, 225, 3000]).astype(dtype), None, CT)
    np.testing.assert_allclose(found, [0, 0, 0.5, 0.75 if dtype is np.float32 else (137 + 125) / 350, 1, 1], rtol=1e-6)
    lungs = find_scheme("window:1500:-600")(np.float32([-1350, -600, 150]), None, CT)
    np.testing.assert_allclose(lungs, [0, 0.5, 1])


def test_clip_has_mean_0_and_deviation_1_of_the_image() -> None:
    """Fang & Yan 2020: -200 to 200 HU."""
    values = np.random.default_rng(0).normal(0, 400, (6, 7, 8)).astype(np.float32)
    found = find_scheme("clip:-200:200")(values, None, CT)
    clipped = values.clip(-200, 200).astype(np.float64)
    np.testing.assert_allclose(found, (clipped - clipped.mean()) / clipped.std(), atol=1e-5)
    assert len(np.unique(found[values > 200])) == 1


def test_scale_divides_and_clips() -> None:
    """Thaler et al. 2021: by 2048, to -1 .. 1."""
    found = find_scheme("scale:2048")(np.int16([-3024, -2048, -1024, 0, 512, 3071]), None, CT)
    np.testing.assert_array_equal(found, np.float32([-1, -1, -0.5, 0, 0.25, 1]))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("zscor", "expected one of clip:LOW:HIGH, .*, got 'zscor'. Did you mean 'zscore'"),
        ("window", "expected window:WIDTH:LEVEL with numbers, got 'window'"),
        ("window:400", "expected window:WIDTH:LEVEL with numbers"),
        ("window:400:wide", "expected window:WIDTH:LEVEL with numbers"),
        ("window:400:nan", "expected window:WIDTH:LEVEL with numbers"),
        ("window:0:50", "expected a width above 0 HU, got 0"),
        ("clip:200:-200", "expected a low end below the high one, got 200 and -200"),
        ("scale:-1", "expected a divisor above 0, got -1"),
        ("no_such_module:scheme", "cannot be imported"),
    ],
)
def test_wrong_schemes_are_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_scheme(name)


def test_schemes_are_found_by_name() -> None:
    assert find_scheme("ct") is SCHEMES["ct"]
    assert find_scheme("autoseg.preprocessing.normalization:nonorm") is SCHEMES["nonorm"]
    assert [is_for_ct(name) for name in ("window:400:50", "clip:0:1", "scale:2", "ct", "zscore")] == [True, True, True, False, False]


@pytest.mark.parametrize("name", [*sorted(SCHEMES), "window:10:5", "window8:10:5", "clip:2:20", "scale:10"])
def test_schemes_leave_their_input_alone(name: str) -> None:
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert find_scheme(name)(values, values > 3, CT).dtype == np.float32
    np.testing.assert_array_equal(values, np.arange(24).reshape(2, 3, 4))


def test_every_scheme_with_numbers_is_tried_above() -> None:
    assert set(PARAMETRIC) == {"window", "window8", "clip", "scale"}
