"""What masks and probabilities that are written down say of the Dice."""

from __future__ import annotations

import math

import numpy as np
import pytest
from factories import ORGANS, REGIONS, make_geometry, whole_trace

from autoseg.inference import organ_statistics
from autoseg.inference.lazy_logits import with_temperature
from autoseg.inference.logits import Logits
from autoseg.inference.organ_statistics import MIN_PROBABILITY, OrganStatistics
from autoseg.schema import PostProcessing


def line(*shares: list[float], shape: tuple[int, ...] | None = None) -> Logits:
    """Probabilities ``shares[channel][voxel]`` along a line of voxels."""
    array = np.array(shares, np.float32)[:, None, None] * 255
    return Logits(array, whole_trace(array.shape[1:], geometry=make_geometry(shape) if shape else None), kind="probability8")


def expected_dice(*arguments: object, **options: object) -> dict[str, float]:
    return {organ: one.expected_dice for organ, one in organ_statistics.organ_statistics(*arguments, **options).items()}


def test_expected_dice_by_hand() -> None:
    shares = [0.9, 0.6, 0.3, MIN_PROBABILITY / 2, 0.0]  # of a line of voxels
    prediction = line([1 - p for p in shares], shares, [0] * 5)
    found = expected_dice([prediction], ORGANS)
    assert found["ball"] == pytest.approx(2 * 1.5 / (1.8 + 2), abs=1e-5), "the mask is the first two voxels, the fourth does not count"
    assert math.isnan(found["block"])
    faint = line([0.75, 1], [0.25, 0], [0, 0])
    assert expected_dice([faint], ORGANS)["ball"] == 0


def test_expected_dice_of_regions_and_of_averages() -> None:
    assert expected_dice([line([0.9, 0.2], [0.6, 0.0])], REGIONS) == pytest.approx({"whole": 1.8 / 2.1, "core": 1.2 / 1.6}, abs=1e-5)
    both = [line([0.1], [0.9], [0]), line([0.3], [0.7], [0])]
    assert expected_dice(both, ORGANS)["ball"] == pytest.approx(1.6 / 1.8, abs=1e-5)


def test_what_post_processing_removes_does_not_count_and_what_it_fills_counts_little() -> None:
    ball = [0.9, 0.9, 0.1, 0.8]
    prediction = line([1 - p for p in ball], ball, [0] * 4)
    assert expected_dice([prediction], ORGANS)["ball"] == pytest.approx(2 * 2.6 / (2.6 + 3), abs=1e-5)
    largest = expected_dice([prediction], ORGANS, {"ball": PostProcessing(components=1)})
    assert largest["ball"] == pytest.approx(2 * 1.8 / (1.8 + 2), abs=1e-5)
    block = line([1, 0, 0], [0, 0, 0], [0, 1, 1])
    assert expected_dice([block], ORGANS)["block"] == 1
    assert math.isnan(expected_dice([block], ORGANS, {"block": PostProcessing(min_volume_mm3=3)})["block"])


@pytest.mark.parametrize("labels", [ORGANS, REGIONS], ids=["organs", "regions"])
@pytest.mark.parametrize("cleaned", [False, True])
def test_far_from_an_organ_nothing_is_computed_and_nothing_is_missed(labels, cleaned, monkeypatch) -> None:
    rng, shapes = np.random.default_rng(0), []
    size = (9, 20, 30)
    trace = whole_trace(size, geometry=make_geometry(size, (2.0, 1.0, 1.0)))
    members = []
    for seed in range(2):
        array = np.zeros((labels.n_outputs, *size), np.uint8)
        array[-1, 2:6, 3 + seed : 12, 20:28] = rng.integers(0, 180, (4, 9 - seed, 8))
        array[-2, 1:8, 2:19, 2:9] = rng.integers(0, 75, (7, 17, 7))
        if not labels.regions:
            array[0] = 255 - array[1:].sum(axis=0)
        members.append(with_temperature(Logits(array, trace, "probability8"), 1.5, labels))
    steps = {labels.names[-1]: PostProcessing(components=1, fill_holes=True)} if cleaned and not labels.regions else None
    read = organ_statistics.probabilities
    monkeypatch.setattr(organ_statistics, "probabilities", lambda some, labels: shapes.append(some[0].array.shape) or read(some, labels))
    found = {name: expected_dice(members, labels, steps, organs=[name])[name] for name in labels.names}
    assert max(math.prod(shape[1:]) for shape in shapes) < math.prod(size) / 4
    monkeypatch.setattr(organ_statistics, "_cropped_to_channels", lambda some, channels: list(some))
    assert found == pytest.approx(expected_dice(members, labels, steps))
    assert 0 < found[labels.names[-1]] < 1


def of_ball(share: np.ndarray, spacing: tuple[float, ...] = (2.0, 1.0, 1.0)) -> OrganStatistics:
    """Of an organ with these probabilities ``(Z, Y, X)``, in voxels of 2 mm3."""
    array = np.stack([1 - share, share, np.zeros_like(share)]).astype(np.float32) * 255
    geometry = make_geometry(share.shape if len(spacing) == 3 else share.shape[1:], spacing)
    trace = whole_trace(share.shape, geometry=geometry)
    return organ_statistics.organ_statistics([Logits(array, trace, "probability8")], ORGANS)["ball"]


def test_a_mask_is_measured() -> None:
    share = np.zeros((5, 8, 8))
    share[1, 1:6, 1:6] = share[2, 1:6, 1:6] = 0.9
    share[3, 1:6, 1:4] = 0.6
    found = of_ball(share)
    assert found.volume_ml == pytest.approx(65 * 2 / 1000)
    assert found.mean_probability == pytest.approx((50 * 0.9 + 15 * 0.6) / 65, abs=1e-4)
    assert found.low_probability == pytest.approx(0.6, abs=2e-3), "of a tenth of the voxels, those of the last slice"
    assert found.border_share == pytest.approx((2 * 16 + 12) / 65)
    assert found.slice_agreement == pytest.approx((1 + 30 / 40) / 2)


@pytest.mark.parametrize(("slices", "agreement"), [((2,), 0.0), ((1, 4), 0.0), ((2, 3), 1.0)])
def test_slices_without_the_organ_between_its_ends_do_not_agree(slices: tuple[int, ...], agreement: float) -> None:
    share = np.zeros((6, 8, 8))
    share[list(slices), 2:5, 2:5] = 0.9
    assert of_ball(share).slice_agreement == pytest.approx(agreement)


def test_an_image_of_one_slice_has_no_neighbours_and_an_empty_mask_nothing_to_measure() -> None:
    picture = np.full((1, 4, 4), 0.9)
    assert math.isnan(of_ball(picture, (1.0, 1.0)).slice_agreement)
    faint = of_ball(np.full((3, 4, 4), 0.3))
    assert (faint.expected_dice, faint.volume_ml) == (0, 0) and math.isnan(faint.mean_probability)
