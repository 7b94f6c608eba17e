"""Entropy and disagreement of probabilities that are written down."""

from __future__ import annotations

import math

import numpy as np
import pytest
from factories import ORGANS, REGIONS, labels, make_geometry, whole_trace

from autoseg.inference.logits import Logits
from autoseg.inference.uncertainty import CandidatePrediction, along_organ, uncertainty_maps
from autoseg.schema import Labels


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
