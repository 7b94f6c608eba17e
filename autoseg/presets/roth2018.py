"""The experiment of Roth et al., Computerized Medical Imaging and Graphics 66 (2018)."""

from __future__ import annotations

from . import augmentations
from .paper_preset import PaperPreset

PRESET = PaperPreset(
    paper="Roth et al., Computerized Medical Imaging and Graphics 66 (2018)",
    configurations=("3d_lowres", "3d_cascade"),
    networks=("roth_unet",),
    plan={"force_lowres": True},
    training={
        "trainer": "CascadeTrainer",
        "options": {
            "loss": "weighted_ce",
            "optimizer": "sgd",
            "learning_rate": 1e-2,
            "schedule": "poly",
            "warmup": 0.0,
            "average_decay": 0.0,
            "augmentation": augmentations.ROTH,
        },
        "iterations": 200_000,
    },
    why={
        "configurations": "a first stage inside the body, a second one around what the first found",
        "networks": "their 3D U-Net",
        "force_lowres": "the first stage has to be there, however small the images",
        "trainer": "candidate regions; the radius is chosen by recall and false positives",
        "options": "weighted cross entropy; stochastic gradient descent, whose rate and momentum are not told: this project's",
        "iterations": "two to three days on the paper's GPU; counted for each stage and fold",
    },
    departures=(
        "the first stage has the planned coarser grid, the paper's both the same, halved",
        "the second stage also sees the first one's organs (switched off by --trainer-option previous_input=false)",
        "padded convolutions on the planned patch; --network-option valid=true for the paper's",
    ),
)
