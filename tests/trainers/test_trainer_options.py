"""Options of trainers that are unknown or make no sense are refused before anything is trained."""

from __future__ import annotations

import pytest
from factories import make_configuration, make_plan

from autoseg.runtime.registry import lookup
from autoseg.trainers import TRAINERS


@pytest.mark.parametrize(
    ("trainer", "options", "message"),
    [
        ("Trainer", {"weight": 1}, "option of Trainer"),
        ("AdversarialTrainer", {"wait": 1}, "option of AdversarialTrainer: expected one of discriminator_features.*mean 'weight'"),
        ("AdversarialTrainer", {"weight": -1}, "weight: expected 0 or more"),
        ("AdversarialTrainer", {"weight": "much"}, "weight: expected a value as the default 150.0, got 'much'"),
        ("AdversarialTrainer", {"discriminator_learning_rate": 0}, "discriminator_learning_rate: expected a positive number"),
        ("AdversarialTrainer", {"discriminator_features": 1.5}, "discriminator_features: expected a whole number"),
        ("AdversarialTrainer", {"label_smoothing": 0.5}, "label_smoothing: expected 0 up to below 0.5"),
        ("CascadeTrainer", {"radios": 3}, "option of CascadeTrainer: expected one of .*previous_input, radius.*mean 'radius'"),
        ("CascadeTrainer", {"radius": -1}, "radius: expected a whole number"),
        ("CascadeTrainer", {"radius": 1.5}, "radius: expected a whole number"),
        ("CascadeTrainer", {"region": "no"}, "region: expected true or false"),
        ("PyramidTrainer", {"fusion_form": 0.5}, "option of PyramidTrainer: expected one of fusion_from, got 'fusion_form'"),
        ("PyramidTrainer", {"fusion_from": 1.0}, "fusion_from: expected a share"),
        ("PyramidTrainer", {"fusion_from": -0.1}, "fusion_from: expected a share"),
        ("SpatialConfigurationTrainer", {"marginn": 3}, "option of SpatialConfigurationTrainer: .*mean 'margin'"),
        ("SpatialConfigurationTrainer", {"margin": -1}, "margin: expected a whole number"),
        ("SpatialConfigurationTrainer", {"localisation_share": 2}, "localisation_share: expected a share"),
        ("SpatialConfigurationTrainer", {"local_weight": -1}, "expected 0 or more"),
    ],
)
def test_they_are_refused(trainer, options, message):
    with pytest.raises(ValueError, match=message):
        lookup(TRAINERS, trainer, "trainer").configure(make_configuration(), make_plan(), options)
