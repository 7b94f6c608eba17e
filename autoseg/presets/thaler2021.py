"""The experiment of Thaler et al., FLARE challenge at MICCAI (2021)."""

from __future__ import annotations

from . import augmentations
from .paper_preset import BARE, Departure, PaperPreset

PRESET = PaperPreset(
    paper="Thaler et al., FLARE challenge at MICCAI (2021)",
    configurations=("3d_fullres",),
    plan={"spacing": (2.0, 2.0, 2.0)},
    training={
        "trainer": "SpatialConfigurationTrainer",
        "trainer_options": {"localisation_loss": "generalised_dice"},
        "normalization": ("scale:2048",),
        "options": {
            "optimizer": "adam",
            "learning_rate": 1e-4,
            "schedule": "constant",
            **BARE,
            "average_decay": 0.999,
            "relative_clip": 5.0,
            "gradient_clip": 1e9,
            "augmentation": augmentations.THALER,
        },
        "batch": 1,
        "iterations": 500_000,
    },
    choice={"postprocess": ("none",)},
    why={
        "configurations": "volumes",
        "spacing": "2 mm, the localisation network's 6 mm is its own",
        "trainer": "localisation, then SpatialConfiguration-Net: the whole box around the organs is one input of up to 160x128x160 voxels",
        "trainer_options": "generalised Dice of the localisation network",
        "normalization": "HU / 2048, clipped to -1..1",
        "options": "Adam with 1e-4, constant; weights averaged with 0.999; gradients clipped at 5 times the average of their norm only",
        "batch": "one region",
        "iterations": "of the segmentation network (cross-validation: --iterations 100000)",
    },
    departures=(
        Departure(
            "localisation network: a share (a fifth, or localisation_share) of the same run's steps instead of 1 000 000 of its own",
            lambda settings, spec: spec.configuration.locator is not None,
        ),
        Departure(
            "patches instead of the whole region of interest",
            lambda settings, spec: spec.configuration.locator is None or not spec.configuration.locator.whole,
        ),
        "ranges of the augmentation, which are not told: those of the authors' published code for hearts, at 2 mm",
    ),
)
