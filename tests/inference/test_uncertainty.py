"""Entropy, disagreement and expected Dice of probabilities that are written down."""

from __future__ import annotations

import math

import numpy as np
import pytest
from factories import ORGANS, REGIONS, labels, make_geometry, whole_trace

from autoseg.inference import uncertainty
from autoseg.inference.lazy_logits import with_temperature
from autoseg.inference.logits import Logits
from autoseg.inference.uncertainty import MIN_PROBABILITY, CandidatePrediction, along_organ, expected_dice, uncertainty_maps
from autoseg.schema import Labels, PostProcessing


def line(*shares: list[float], shape: tuple[int, ...] | None = None) -> Logits:
    """Probabilities ``shares[channel][voxel]`` along a line of voxels."""
    array = np.array(shares, np.float32)[:, None, None] * 255
    return Logits(array, whole_trace(array.shape[1:], geometry=make_geometry(shape) if shape else None), kind="probability8")


def candidate(*networks: Logits, labels: Labels = ORGANS) -> CandidatePrediction:
    """Several networks, whose mean is the prediction."""
    return CandidatePrediction(labels, labels.names, networks, networks)


def bits(p: float) -> float:
    return -sum(q * math.log2(q) for q in (p, 1 - p) if q)


def test_entropy_of_known_probabilities() -> None:
    third = 1 / 3
    entropy, disagreement = uncertainty_maps([candidate(line([1, 0.5, third, 0], [0, 0.5, third, 0], [0, 0, third, 1]))])
    assert entropy.shape == (1, 1, 4)
    np.testing.assert_allclose(entropy[0, 0], [0, 1 / math.log2(3), 1, 0], atol=1 / 500)
    assert not disagreement.any(), "a single network cannot disagree with itself"
    levels = entropy * 255
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-4)


def test_equal_networks_agree_and_opposite_ones_do_not() -> None:
    first, second = line([0.9, 1, 0.9], [0.1, 0, 0.1], [0, 0, 0]), line([0.9, 0, 0.5], [0.1, 1, 0.5], [0, 0, 0])
    _, none = uncertainty_maps([candidate(first, first, first)])
    assert not none.any()
    entropy, disagreement = uncertainty_maps([candidate(first, second)])
    np.testing.assert_allclose(disagreement[0, 0], [0, 1, bits(0.3) - (bits(0.1) + bits(0.5)) / 2], atol=1 / 500)
    np.testing.assert_allclose(entropy[0, 0, 1], 1 / math.log2(3), atol=1 / 500)


def test_organs_of_different_candidates_are_taken_together() -> None:
    """The ball with 0.25 and the block with 0.25 leave 0.5 for background; where both are certain, each has half."""
    prediction = line([0.75, 0], [0.25, 1])
    entropy, _ = uncertainty_maps([candidate(prediction, labels=one) for one in (labels(ball=2), labels(block=5))])
    np.testing.assert_allclose(entropy[0, 0], [1.5 / math.log2(3), 1 / math.log2(3)], atol=1 / 500)


def test_regions_are_each_in_doubt_by_themselves_and_pictures_have_two_axes() -> None:
    entropy, disagreement = uncertainty_maps([candidate(line([0.5, 0.9], [0.1, 0.1], shape=(1, 2)), labels=REGIONS)])
    assert entropy.shape == disagreement.shape == (1, 2)
    np.testing.assert_allclose(entropy[0], [1, bits(0.1)], atol=1 / 500)


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
    read = uncertainty.probabilities
    monkeypatch.setattr(uncertainty, "probabilities", lambda some, labels: shapes.append(some[0].array.shape) or read(some, labels))
    found = {name: expected_dice(members, labels, steps, organs=[name])[name] for name in labels.names}
    assert max(math.prod(shape[1:]) for shape in shapes) < math.prod(size) / 4
    monkeypatch.setattr(uncertainty, "_cropped_to_channels", lambda some, channels: list(some))
    assert found == pytest.approx(expected_dice(members, labels, steps))
    assert 0 < found[labels.names[-1]] < 1


def test_along_an_organ_counts_its_mask_and_what_touches_it() -> None:
    label_map = np.zeros((3, 5), np.int16)
    label_map[1, 1] = 1
    doubt = np.arange(15, dtype=np.float32).reshape(3, 5)
    count, (mean, zero) = along_organ(label_map, ORGANS, "ball", [doubt, np.zeros_like(doubt)])
    assert (count, zero) == (1, 0)
    assert mean == pytest.approx(doubt[:3, :3].mean())
    count, means = along_organ(label_map, ORGANS, "block", [doubt])
    assert count == 0
    assert math.isnan(means[0])
