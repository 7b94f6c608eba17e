"""Predictions of several models as channels of one array."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from factories import labels, make_geometry, regions, whole_trace

from autoseg.ensembling.stacking import Layout, as_stored, in_eight_bits, stacked
from autoseg.inference.log_odds import SUREST
from autoseg.inference.logits import Logits
from autoseg.networks.combiners import MAX_LOG_RATIO
from autoseg.schema import Trace
from autoseg.schema.run_record import EIGHT_BITS, LOG_ODDS

BALL, BAR, BOTH = labels(ball=1), labels(bar=2), labels(ball=1, bar=2)


def trace(shape: tuple[int, int, int] = (1, 1, 4), **changes: object) -> Trace:
    spacing = tuple(2.0 * full / size for full, size in zip((2, 2, 8), shape, strict=True))
    whole = whole_trace((2, 2, 8), case="a", geometry=make_geometry((2, 2, 8), (2.0, 2.0, 2.0)))
    return replace(whole, **{"shape": shape, "spacing": spacing, **changes})


def stored(*shares: list[int], shape: tuple[int, int, int] = (1, 1, 4), **changes: object) -> Logits:
    return Logits(np.array(shares, np.uint8).reshape(-1, *shape), trace(shape, **changes), kind="probability8")


def test_channels_are_logarithms_of_how_much_likelier_an_organ_is_than_background() -> None:
    found = stacked([stored([255, 51, 0, 100], [0, 204, 255, 100], [0, 0, 0, 55])], [BOTH], trace())[:, 0, 0]
    expected = [
        [0, MAX_LOG_RATIO + math.log(4), 2 * MAX_LOG_RATIO, MAX_LOG_RATIO],
        [0, MAX_LOG_RATIO + math.log(0.5 / 51), MAX_LOG_RATIO, MAX_LOG_RATIO + math.log(0.55)],
    ]
    assert found.dtype == np.float16
    assert np.allclose(found, expected, atol=0.01)
    assert found[0, 0] == found[1, 0] == 0, "certain background is exactly what patches are padded with"


def test_a_region_is_compared_with_its_absence() -> None:
    found = stacked([stored([0, 51, 204, 255])], [regions(whole=(1, 2))], trace())[0, 0, 0]
    assert np.allclose(found, [0, MAX_LOG_RATIO - math.log(4), MAX_LOG_RATIO + math.log(4), 2 * MAX_LOG_RATIO], atol=0.01)


def test_members_follow_one_another_and_coarser_ones_are_interpolated() -> None:
    fine, coarse = stored([255, 255, 0, 0], [0, 0, 255, 255]), stored([255, 0], [0, 255], shape=(1, 1, 2))
    found = stacked([fine, coarse], [BALL, BAR], trace())[:, 0, 0]
    assert found.shape == (2, 4)
    assert np.allclose(found[0], [0, 0, 2 * MAX_LOG_RATIO, 2 * MAX_LOG_RATIO], atol=0.01)
    quarter = math.log(1 / 3)
    assert np.allclose(found[1], [0, MAX_LOG_RATIO + quarter, MAX_LOG_RATIO - quarter, 2 * MAX_LOG_RATIO], atol=0.01)


def raw(*organs: list[float], shape: tuple[int, int, int] = (1, 1, 4)) -> Logits:
    """Logits of organs, that of background is 0."""
    return Logits(np.array([[0.0] * len(organs[0]), *organs], np.float32).reshape(-1, *shape), trace(shape))


def kept(*organs: list[float], shape: tuple[int, int, int] = (1, 1, 4)) -> Logits:
    return as_stored(raw(*organs, shape=shape), BOTH if len(organs) > 1 else BALL, LOG_ODDS)


def test_predictions_become_what_validation_would_have_stored() -> None:
    found = as_stored(raw([-9.0, 0.0, math.log(3), 9.0]), BALL, EIGHT_BITS)
    assert found.kind == "probability8"
    assert found.array[1].flatten().tolist() == [0, 128, 191, 255]
    assert as_stored(found, BALL, EIGHT_BITS) is found
    now = kept([-9.0, 0.0, math.log(3), 9.0])
    assert np.allclose(now.array[1].flatten(), [0, 127.5, 191.25, 255], atol=0.07)
    assert in_eight_bits(now).array.dtype == np.uint8
    assert in_eight_bits(now).array[1].flatten().tolist() == [0, 128, 191, 255]
    assert in_eight_bits(found) is found


def test_seven_and_twelve_differ_for_what_learns_nothing_and_background_does_not() -> None:
    seven, twelve, none = (kept([value] * 4) for value in (7.0, 12.0, -12.0))
    found = stacked([seven, twelve, none], [BALL] * 3, trace(), most=SUREST)[:, 0, 0, 0]
    assert np.allclose(found, [MAX_LOG_RATIO + 7, MAX_LOG_RATIO + 12, 0], atol=0.02)
    assert found[2] == 0, "certain background is exactly what patches are padded with"
    assert np.allclose(
        stacked([seven, twelve, none], [BALL] * 3, trace())[:, 0, 0, 0], [2 * MAX_LOG_RATIO, 2 * MAX_LOG_RATIO, 0], atol=0.01
    )


def test_how_sure_a_model_of_several_organs_is_counts_against_the_likeliest_other() -> None:
    """Of two organs, both more likely than background, and of one that is sure of itself."""
    found = stacked([kept([9.0, 12.0, -9.0, 0.0], [7.0, -12.0, -9.0, 0.0])], [BOTH], trace(), most=SUREST)[:, 0, 0] - MAX_LOG_RATIO
    assert found[0, 0] - found[1, 0] == pytest.approx(2, abs=0.02)
    assert found[0, 1] == pytest.approx(12, abs=0.02)
    assert found[0, 2] == found[1, 2] == pytest.approx(-MAX_LOG_RATIO)
    assert np.allclose(found[:, 3], 0, atol=0.02)


def test_of_a_region_and_between_grids_sure_stays_sure() -> None:
    logits = Logits(np.array([-12.0, 0.0, 7.0, 12.0], np.float32).reshape(1, 1, 1, 4), trace())
    region = regions(whole=(1, 2))
    found = stacked([as_stored(logits, region, LOG_ODDS)], [region], trace(), most=SUREST)[0, 0, 0] - MAX_LOG_RATIO
    assert np.allclose(found, [-MAX_LOG_RATIO, 0, 7, 12], atol=0.02)
    coarse = stacked([kept([12.0, -12.0], shape=(1, 1, 2))], [BALL], trace(), most=SUREST)[0, 0, 0] - MAX_LOG_RATIO
    assert coarse[0] == pytest.approx(12, abs=0.05)
    assert coarse[1] == pytest.approx(math.log(3), abs=0.02), "probabilities are interpolated, of presence and absence alike"


def test_other_images_are_refused() -> None:
    with pytest.raises(ValueError, match="a: models of one ensemble disagree about the crop"):
        stacked([stored([255] * 4, [0] * 4, crop=((0, 2), (0, 2), (1, 8)))], [BALL], trace())


def test_layout_says_where_each_organ_lies() -> None:
    layout = Layout(("one", "two", "three"), (BALL, BOTH, BAR), ("ball", "bar"))
    assert layout.spans == [[0, 1], [1, 3], [3, 4]]
    assert layout.names == ("ball of one", "ball of two", "bar of two", "bar of three")
    assert layout.channels() == [[0, 1], [2, 3]]
    assert layout.channels({"ball": "two", "bar": "three"}) == [[1], [3]]
