"""The experiment of Roth et al., Computerized Medical Imaging and Graphics 66 (2018)."""

from __future__ import annotations

from . import augmentations
from .paper_preset import Departure, PaperPreset

PRESET = PaperPreset(
    paper="Roth et al., Computerized Medical Imaging and Graphics 66 (2018)",
    configurations=("3d_lowres", "3d_cascade"),
    networks=("roth_unet",),
    plan={"spacing": "x2", "one_grid": True},
    training={
        "trainer": "CascadeTrainer",
        "trainer_options": {"previous_input": False, "first_step": 1.0, "second_step": 0.63, "tile_mean": "plain"},
        "network_options": {"valid": True},
        "options": {
            "loss": "weighted_ce",
            "optimizer": "sgd",
            "learning_rate": 1e-2,
            "schedule": "poly",
            "foreground": 0.0,
            "warmup": 0.0,
            "average_decay": 0.0,
            "augmentation": augmentations.ROTH,
        },
        "batch": 1,
        "iterations": 115_000,
        "first_iterations": 200_000,
    },
    choice={"max_members": 1, "postprocess": ("none",)},
    why={
        "configurations": "a first stage inside the body, a second one around what the first found",
        "networks": "their 3D U-Net",
        "spacing": "every axis halved",
        "one_grid": "both stages work on the halved images",
        "trainer": "candidate regions; the radius is the smallest with more than 99 % of each organ inside",
        "trainer_options": "the second stage sees the image alone; tiles of the first do not overlap, in the second each voxel is in four "
        "(0.63 of a tile apart), whose probabilities are averaged",
        "network_options": "valid convolutions: 132x132x116 voxels in, 44x44x28 out",
        "options": "weighted cross entropy, sub-volumes from anywhere in the region; stochastic gradient descent, whose rate "
        "and momentum are not told: this project's",
        "batch": "one sub-volume: the size is not told",
        "iterations": "200 000 in the first stage, 115 000 in the second",
        "first_iterations": "200 000",
    },
    departures=(
        Departure(
            "one spacing for all cases, twice the median, instead of half of each image's own voxels",
            lambda settings, spec: spec.plan.settings is not None and spec.plan.settings.spacing == "x2",
        ),
        Departure(
            "the first stage's regions of training cases come from folds that did not see them, so that all its folds are trained",
            lambda settings, spec: spec.configuration.region is not None and spec.configuration.region.source == "previous",
        ),
    ),
)
