"""The experiments of five papers as one command each: a table of settings, and what the user says otherwise.

``autoseg_run ID --preset NAME`` plans, trains and chooses as the paper did; ``autoseg_train ... --preset NAME`` takes the training's part.
All that a preset does not say is as without it (patch, augmentation, flips, sampling, post-processing). What the user says wins.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.descriptions import raw_dataset
from ..planners.patch import PRESETS
from ..runtime.registry import unknown
from ..runtime.workspace import find_workspace
from ..schema.settings import PlanSettings, TrainSettings

log = logging.getLogger(__name__)

BARE = {"weight_decay": 0.0, "warmup": 0.0, "average_decay": 0.0}
"""What the papers do not have, and this project's defaults do."""

BUDGET = ("epochs", "iterations", "seconds")
INTENSITIES = ("window", "normalization")
TOGETHER = (BUDGET, INTENSITIES)
"""Settings of which the user's replaces all of the preset's."""

BELONGS = {"trainer_options": "trainer", "network_options": "network"}
"""Options that mean something to the preset's trainer or network only."""


@dataclass(frozen=True, kw_only=True)
class PaperPreset:
    """One paper's experiment.

    Attributes:
        paper: Authors, venue, year.
        configurations: To plan data for and, by ``autoseg_run``, to train.
        networks: By ``autoseg_run`` each is trained; `autoseg_train` takes the first. None means the trainer's own.
        organ_by_organ: ``autoseg_run`` trains a model an organ.
        plan: Values of `PlanSettings`.
        training: Values of `TrainSettings`.
        why: What stands for what in the paper, by setting.
        departures: What is otherwise than in the paper.
    """

    paper: str
    configurations: tuple[str, ...]
    networks: tuple[str, ...] = ()
    organ_by_organ: bool = False
    plan: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    why: Mapping[str, str]
    departures: tuple[str, ...]


PAPER_PRESETS: dict[str, PaperPreset] = {
    "conze2021": PaperPreset(
        paper="Conze et al., Artificial Intelligence in Medicine 117 (2021)",
        configurations=("2d",),
        networks=("vgg19_unet_cascade",),
        organ_by_organ=True,
        training={
            "trainer": "AdversarialTrainer",
            "trainer_options": {"weight": 150.0},
            "network_options": {"pretrained": "imagenet"},
            "options": {"loss": "dice", "optimizer": "adam", "learning_rate": 1e-5, "schedule": "constant", **BARE},
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
            "shearing is not among the augmentations, intensities and flips are",
            "the planned patch and spacing instead of whole slices",
            "of the models that MOvpUNet chooses from, the others are trained by --network",
        ),
    ),
    "fang2020": PaperPreset(
        paper="Fang & Yan, IEEE Transactions on Medical Imaging 39 (2020)",
        configurations=("2.5d",),
        training={
            "trainer": "PyramidTrainer",
            "trainer_options": {"fusion_from": 0.5},
            "normalization": ("clip:-200:200",),
            "options": {"loss": "ce", "optimizer": "rmsprop", "learning_rate": 2e-4, "schedule": "percents", **BARE},
        },
        why={
            "configurations": "three adjacent slices as channels",
            "trainer": "PIPO-FAN: deep pyramid supervision, then adaptive fusion",
            "trainer_options": "2000 of 4000 epochs for each phase (several organs; one organ: 0.8)",
            "normalization": "HU clipped to -200..200, then zero mean and unit variance",
            "options": "cross entropy; RMSprop with 2e-4 (one organ: --learning-rate 2e-3), 1 % less every 40 of 4000 epochs",
        },
        departures=(
            "4000 epochs of a patch a volume: the device's default budget instead",
            "the planned spacing and patch instead of slices halved to 256x256 and patches of 224x224",
            "batches mix the datasets instead of alternating between them; class weights of single organs (0.2, 1.2) are not taken",
            "label maps are pooled to the coarser scales by nearest neighbour",
        ),
    ),
    "thaler2021": PaperPreset(
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
            },
            "batch": 1,
            "iterations": 500_000,
        },
        why={
            "configurations": "volumes",
            "spacing": "2 mm, the localisation network's 6 mm is its own",
            "trainer": "localisation, then SpatialConfiguration-Net inside the box that it finds",
            "trainer_options": "generalised Dice of the localisation network",
            "normalization": "HU / 2048, clipped to -1..1",
            "options": "Adam with 1e-4, constant; weights averaged with 0.999; gradients clipped at 5 times the average of their norm",
            "batch": "one patch",
            "iterations": "of the segmentation network (cross-validation: --iterations 100000)",
        },
        departures=(
            "localisation network: a share of the same run's steps instead of 1 000 000 of its own",
            "the planned patch instead of the whole region of interest of up to 160x128x160",
            "gradients are also clipped at a norm of 12; those of the localisation network at that only",
            "no elastic deformation",
        ),
    ),
    "roth2018": PaperPreset(
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
            "rotations as planned instead of 5 degrees, no elastic deformation",
        ),
    ),
    "crespi2023": PaperPreset(
        paper="Crespi et al. (2023)",
        configurations=("2d",),
        networks=("plain_unet", "se_resunet", "deeplabv3"),
        organ_by_organ=True,
        training={
            "window": "auto",
            "options": {"loss": "dice_ce", "optimizer": "adam", "learning_rate": 1e-3, "schedule": "exponential", **BARE},
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
            "rotation and scaling instead of grid and elastic distortion",
            "grey values are not rounded to 8 bits",
        ),
    ),
}
"""Name to experiment."""


def plan_settings(name: str | None, **said: Any) -> PlanSettings:
    """What a user and a preset ask of the planner.

    Args:
        name: Of a paper's preset, or of the planner's (`planners.patch.PRESETS`); None means its default.
        **said: What the user said, as for `PlanSettings`; None means nothing.

    Raises:
        ValueError: There is no such preset.
    """
    said = _given(said)
    if name in PAPER_PRESETS:
        preset = PAPER_PRESETS[name]
        return PlanSettings(**{"configurations": preset.configurations, **preset.plan, **said})
    if name is not None and name not in PRESETS and ":" not in name:
        raise unknown("preset", name, [*PRESETS, *PAPER_PRESETS])
    return PlanSettings(**({} if name is None else {"preset": name}), **said)


def train_settings(name: str | None, **said: Any) -> TrainSettings:
    """What a user and a preset ask of a training.

    Args:
        name: Of a paper's preset; those of the planner, and None, say nothing here.
        **said: What the user said, as for `TrainSettings`; None and what is empty mean nothing.
    """
    said = _given(said)
    preset = PAPER_PRESETS.get(name)
    if preset is None:
        return TrainSettings(**said)
    settings = dict(preset.training) | ({"network": preset.networks[0]} if preset.networks else {})
    for options, owner in BELONGS.items():
        if said.get(owner, settings.get(owner)) != settings.get(owner):
            settings.pop(options, None)
    for group in TOGETHER:
        if any(key in said for key in group):
            settings = {key: value for key, value in settings.items() if key not in group}
    both = {key: {**settings[key], **said[key]} for key in settings.keys() & said.keys() if isinstance(said[key], Mapping)}
    return TrainSettings(**{**settings, **said, **both})


def trainings(name: str | None, which: str | int, *, home: str | Path | None = None, **said: Any) -> list[TrainSettings]:
    """The trainings of a paper's experiment: of each of its networks, and each organ, unless the user says which.

    Args:
        name: As for `train_settings`.
        which: Dataset id, name or folder.
        home: Home folder.
        **said: As for `train_settings`.
    """
    said = _given(said)
    preset = PAPER_PRESETS.get(name)
    if preset is None:
        return [train_settings(name, **said)]
    networks: Sequence[str | None] = preset.networks or (None,)
    if "network" in said:
        networks = (said["network"],)
    organs: Sequence[tuple[str, ...]] = [said.get("organs", ())]
    if preset.organ_by_organ and "organs" not in said:
        # `run` plans anew after this, so that the organs are those of the raw dataset, not of a former plan.
        organs = [(organ,) for organ in raw_dataset(find_workspace(home, dataset=str(which)), which).labels.names]
    return [train_settings(name, **(said | {"network": network, "organs": some})) for some in organs for network in networks]


def check_paper(name: str | None) -> None:
    """Refuses what is no paper's preset.

    Raises:
        ValueError: There is no such preset; the message lists those there are.
    """
    if name is not None and name not in PAPER_PRESETS:
        raise unknown("preset of a training", name, PAPER_PRESETS)


def explain(name: str | None) -> None:
    """Logs what a paper's preset asks for, and where it departs from the paper; of other presets nothing."""
    preset = PAPER_PRESETS.get(name)
    if preset is None:
        return
    log.info("Preset %s, after %s:", name, preset.paper)
    for setting, reason in preset.why.items():
        log.info("  %s: %s", setting, reason)
    log.info("Otherwise than in the paper: %s.", "; ".join(preset.departures))


def _given(said: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in said.items() if value is not None and value != () and value != {}}
