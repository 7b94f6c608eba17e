"""The experiment of Fang & Yan, IEEE Transactions on Medical Imaging 39 (2020)."""

from __future__ import annotations

from typing import Any

from . import augmentations
from .paper_preset import BARE, Departure, PaperPreset, PaperTable, Row

OPTIONS: dict[str, Any] = {
    "loss": "ce",
    "optimizer": "rmsprop",
    "learning_rate": 2e-4,
    "schedule": "percents",
    "foreground": 0.0,
    "organ_slices": True,
    "augmentation": augmentations.FANG,
    "case_sampling": "alternating",
    **BARE,
}

COMPONENTS = ("largest", "kidney=2", "kidneys=2")
"""The largest component of each organ, two of the kidneys where they are one organ."""

PYRAMID = {"supervision": "pyramid"}
"""Deep pyramid supervision to the end, without adaptive fusion."""


def _other(name: str, network: str, options: dict[str, Any] | None = None, **network_options: Any) -> Row:
    """A network that PIPO-FAN is compared with, or without a part of it, trained by the plain trainer."""
    training = {"trainer": "Trainer", "trainer_options": {}, "network": network, "network_options": network_options}
    return Row(name=name, training=training | {"options": OPTIONS | (options or {})}, optional=True)


def _without_fusion(name: str, **network_options: Any) -> Row:
    return _other(name, "pipo_fan", PYRAMID, adaptive_fusion=False, **network_options)


def _fan(name: str, **network_options: Any) -> Row:
    return Row(name=name, training={"network_options": network_options}, optional=True)


PRESET = PaperPreset(
    paper="Fang & Yan, IEEE Transactions on Medical Imaging 39 (2020)",
    configurations=("2.5d",),
    rows=(
        _other("U-Net", "pipo_unet"),
        _other("ResU-Net", "pipo_resunet"),
        _other("DenseU-Net", "dense_unet"),
        _other("DeepLabV3", "deeplabv3", block="basic", blocks=[2, 2, 2, 2]),
        _without_fusion("PIPO-3-1", input_scales=3, output_scales=1),
        _without_fusion("PIPO-5-1", output_scales=1),
        _without_fusion("PIPO-without-ECD", equal_depth=False),
        _without_fusion("PIPO"),
        _fan("PIPO-FAN-3-3", input_scales=3, output_scales=3),
        _fan("PIPO-FAN-5-3", output_scales=3),
        _fan("PIPO-FAN-without-ECD", equal_depth=False),
        _fan("PIPO-FAN-ConvBlocks", residual=False),
        Row(name="PIPO-FAN", training={}),
    ),
    training={
        "trainer": "PyramidTrainer",
        "trainer_options": {"fusion_from": 0.5},
        "normalization": ("clip:-200:200",),
        "slice_shape": (256, 256),
        "patch": (224, 224),
        "options": OPTIONS,
    },
    single={
        "trainer_options": {"fusion_from": 0.8},
        "options": {"learning_rate": 2e-3, "schedule": "percents_2500", "class_weights": (0.2, 1.2)},
    },
    choice={"max_members": 1, "postprocess": COMPONENTS},
    table=PaperTable(
        chosen="", metrics={"dice": "Avg. Dice", "global_dice": "Glb. Dice"}, score="dice", averages=True, postprocess=COMPONENTS
    ),
    why={
        "configurations": "three adjacent slices as channels",
        "rows": "PIPO-FAN; --models names the networks and ablations of tables III to VII",
        "trainer": "PIPO-FAN: deep pyramid supervision, then adaptive fusion; the others are trained throughout alike",
        "trainer_options": "2000 of 4000 epochs for each phase (one organ: 2000 of 2500 for the first)",
        "network_options": "five input and five output scales, equal depth, residual blocks; ablations without one of them",
        "normalization": "HU clipped to -200..200, then zero mean and unit variance",
        "slice_shape": "slices resized to 256x256",
        "patch": "crops of 224x224",
        "options": "cross entropy; RMSprop with 2e-4, 1 % less every 40 of 4000 epochs (one organ: 2e-3, 2500, weights 0.2 of "
        "background and 1.2); slices that show an organ; each batch from one of the merged datasets, in turn",
    },
    departures=(
        Departure(
            "4000 epochs of a patch a volume are 4000 x volumes / batch --iterations (one organ: 2500), which were not asked for",
            lambda settings, spec: settings.iterations is None,
        ),
        Departure(
            "the rate, the weights and the phases of a single organ are taken where --organs names it",
            lambda settings, spec: len(spec.plan.labels.names) == 1 and not settings.organs,
        ),
        Departure(
            "label maps are pooled to the coarser scales by nearest neighbour; how the paper pools several organs is not told",
            lambda settings, spec: settings.trainer == "PyramidTrainer" or settings.options.get("supervision") == "pyramid",
        ),
        Departure("the size of the batch is not told: the planned one", lambda settings, spec: settings.batch is None),
    ),
)
