"""The experiment of Conze et al., Artificial Intelligence in Medicine 117 (2021)."""

from __future__ import annotations

from . import augmentations
from .paper_preset import BARE, PaperPreset

PRESET = PaperPreset(
    paper="Conze et al., Artificial Intelligence in Medicine 117 (2021)",
    configurations=("2d",),
    networks=("vgg19_unet_cascade",),
    organ_by_organ=True,
    training={
        "trainer": "AdversarialTrainer",
        "trainer_options": {"weight": 150.0},
        "network_options": {"pretrained": "imagenet"},
        "options": {
            "loss": "dice",
            "optimizer": "adam",
            "learning_rate": 1e-5,
            "schedule": "constant",
            "augmentation": augmentations.CONZE,
            **BARE,
        },
        "batch": 3,
    },
    why={
        "configurations": "axial slices, one at a time",
        "networks": "two VGG-19 U-Nets in series: the paper's cGv19pUNet1-1",
        "organ_by_organ": "one binary model an organ; autoseg_find_best_configuration merges them (MOvpUNet)",
        "trainer": "conditional adversarial network",
        "trainer_options": "lambda = 150",
        "network_options": "encoders trained on ImageNet",
        "options": "fuzzy Dice; Adam with 1e-5, no schedule is told",
        "batch": "3 slices of CT; the paper takes 5 of MR: --batch 5",
    },
    departures=(
        "6 epochs of 100 augmented images a slice (CT; MR 20): the device's default budget instead",
        "ranges of scaling, rotation, shearing and shifting, which are not told: 0.8 to 1.2, 15 and 10 degrees, a tenth of the patch",
        "the planned patch and spacing instead of whole slices",
        "of the models that MOvpUNet chooses from, the others are trained by --network",
    ),
)
