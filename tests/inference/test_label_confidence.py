"""The confidence of a label map, by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from factories import REGIONS, labels

from autoseg.inference.label_confidence import label_confidence


def ensemble(organs, *shares: tuple[int, int, list]):
    """Stands for an ensemble: organ, first slice, probabilities of a slab."""
    return SimpleNamespace(
        labels=organs, probabilities=lambda logits: ((index, start, np.array(slab, np.float32)) for index, start, slab in shares)
    )


def test_of_organs_it_is_the_probability_of_the_given_one_and_of_background_what_they_leave():
    found = label_confidence(
        ensemble(labels(liver=1, spleen=2), (0, 0, [[[0.7, 0.1, 0.3]]]), (1, 0, [[[0.2, 0.6, 0.5]]]), (0, 1, [[[0.9, 0, 1]]])),
        np.array([[[1, 0, 2]], [[0, 0, 1]]]),
        {},
    )
    np.testing.assert_allclose(found, [[[0.7, 0.3, 0.5]], [[0.1, 1, 1]]], atol=1e-6)


def test_organs_of_two_models_may_leave_less_than_nothing():
    some = ensemble(labels(liver=1, spleen=2), (0, 0, [[[0.9]]]), (1, 0, [[[0.8]]]))
    assert label_confidence(some, np.array([[[0]]]), {}).item() == 0


def test_of_regions_it_is_the_smallest_of_any():
    shares = (0, 0, [[[0.9, 0.7, 0.2]]]), (1, 0, [[[0.8, 0.4, 0.1]]])
    found = label_confidence(ensemble(REGIONS, *shares), np.array([[[2, 1, 0]]]), {})
    np.testing.assert_allclose(found, [[[0.8, 0.6, 0.8]]], atol=1e-6)


def test_a_picture_has_one_slab():
    found = label_confidence(ensemble(labels(cell=1), (0, 0, [[[0.25, 0.75]]])), np.array([[0, 1]]), {})
    assert found.tolist() == [[pytest.approx(0.75), pytest.approx(0.75)]]
