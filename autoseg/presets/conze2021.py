"""The experiment of Conze et al., Artificial Intelligence in Medicine 117 (2021)."""

from __future__ import annotations

from typing import Any

from ..networks.imagenet import IMAGENET
from . import augmentations
from .paper_preset import BARE, Departure, PaperPreset, PaperTable, Row


def _row(name: str, network: str, *, adversarial: bool = False) -> Row:
    """A model of the paper's tables: ``p`` in its name stands for encoders trained on ImageNet, ``cG`` for a conditional adversary."""
    training: dict[str, Any] = {"network": network}
    if "p" in name:
        training["network_options"] = {"pretrained": IMAGENET}
    if adversarial:
        training |= {"trainer": "AdversarialTrainer", "trainer_options": {"weight": 150.0}}
    return Row(name=name, training=training)


LARGEST = ("largest",)
"""Post-processing: the largest connected area is kept."""

COLUMNS = {"dice": "Dice", "ravd": "RAVD (%)", "assd_border": "ASSD (mm)", "hd_border": "MSSD (mm)", "chaos": "score"}

PRESET = PaperPreset(
    paper="Conze et al., Artificial Intelligence in Medicine 117 (2021)",
    configurations=("2d",),
    rows=(
        _row("UNet", "conze_unet"),
        _row("v16UNet", "vgg16_unet"),
        _row("v16pUNet", "vgg16_unet"),
        _row("v19UNet", "vgg19_unet"),
        _row("v19pUNet", "vgg19_unet"),
        _row("v19pUNet+", "vgg19_unetpp"),
        _row("UNet1-1", "unet_cascade"),
        _row("v16pUNet1-1", "vgg16_unet_cascade"),
        _row("v19pUNet1-1", "vgg19_unet_cascade"),
        _row("cGv16pUNet1-1", "vgg16_unet_cascade", adversarial=True),
        _row("cGv19pUNet1-1", "vgg19_unet_cascade", adversarial=True),
    ),
    organ_by_organ=True,
    training={
        "sigmoid": True,
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
    choice={"metric": "chaos", "rule": "best_mean", "max_members": 1, "postprocess": LARGEST},
    table=PaperTable(chosen="MOvpUNet", metrics=COLUMNS, score="chaos", postprocess=LARGEST),
    why={
        "configurations": "axial slices, one at a time",
        "rows": "U-Nets, deeper, pre-trained, nested, cascaded, adversarial; MOvpUNet: for each organ the best by CHAOS score",
        "organ_by_organ": "one binary model an organ",
        "sigmoid": "a last 1x1 convolution with one output and sigmoid; between the networks of a cascade one linear map",
        "trainer": "conditional adversarial network with the generators cG, else the plain one",
        "trainer_options": "lambda = 150",
        "network_options": "encoders v16p, v19p trained on ImageNet",
        "options": "fuzzy Dice; Adam with 1e-5, no schedule is told",
        "batch": "3 slices of CT, 5 of MR",
    },
    departures=(
        Departure(
            "6 epochs of 100 augmented images a slice of CT, 20 of MR, the paper's budget, are 6 (20) x 100 x slices / batch --iterations",
            lambda settings, spec: settings.iterations is None,
        ),
        Departure(
            "slices with the organ are drawn more often than others (--training-option foreground=0 draws all alike)",
            lambda settings, spec: settings.options.get("foreground", 1.0) > 0,
        ),
        "ranges of scaling, rotation, shearing and shifting, which are not told: 0.8 to 1.2, 15 and 10 degrees, a tenth of the patch",
        "the planned patch and spacing instead of whole slices",
        Departure(
            "of VGG-19's last stage all four convolutions are the bottom, of which the paper counts three",
            lambda settings, spec: spec.configuration.network.startswith("vgg19"),
        ),
    ),
)
