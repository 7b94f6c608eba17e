"""The experiment of Crespi et al. (2023)."""

from __future__ import annotations

from . import augmentations
from .paper_preset import BARE, PaperPreset

PRESET = PaperPreset(
    paper="Crespi et al. (2023)",
    configurations=("2d",),
    networks=("plain_unet", "se_resunet", "deeplabv3"),
    organ_by_organ=True,
    training={
        "window": "auto",
        "options": {
            "loss": "dice_ce",
            "optimizer": "adam",
            "learning_rate": 1e-3,
            "schedule": "exponential",
            "augmentation": augmentations.CRESPI,
            **BARE,
        },
    },
    why={
        "configurations": "axial slices",
        "networks": "the three architectures; the best for each organ is chosen",
        "organ_by_organ": "binary models",
        "window": "each organ's own, scaled to 0..1",
        "options": "Dice and cross entropy, equal weights; Adam with 1e-3, falling to a hundredth",
    },
    departures=(
        "the exponential fall stands for reductions on plateaus of the validation loss, the fixed budget for early stopping",
        "the planned U-Net as theirs; the planned patch instead of the central 320x320",
        "grid distortion of 0.3, rotation of 15 degrees, elastic deformation of 4 pixels, each in half of the slices: not told",
        "grey values are not rounded to 8 bits",
    ),
)
