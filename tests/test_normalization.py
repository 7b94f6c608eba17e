from __future__ import annotations

import numpy as np
import pytest

from autoseg.model import Intensity
from autoseg.normalization import SCHEMES, scheme_for

CT = Intensity(mean=50.0, median=50.0, std=20.0, min=-900.0, max=900.0, percentile_00_5=-10.0, percentile_99_5=110.0)


def test_scheme_follows_from_the_channel_name() -> None:
    assert [scheme_for(name) for name in ("CT", "ct", "T1", "MRI", "noNorm", "rescale_to_0_1", "RGB_to_0_1", "zscore")] == [
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


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_schemes_leave_their_input_alone(scheme: str) -> None:
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    before = values.copy()
    assert SCHEMES[scheme](values, values > 3, CT).dtype == np.float32
    np.testing.assert_array_equal(values, before)
