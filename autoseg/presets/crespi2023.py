"""The experiment of Crespi et al. (2023)."""

from __future__ import annotations

from typing import Any

from ..trainers.run_setup import budget_of
from . import augmentations
from .paper_preset import BARE, Departure, EnsembleRow, PaperPreset, PaperTable, Row

NETWORKS: dict[str, dict[str, Any]] = {
    "U-Net": {"network": "pipo_unet", "network_options": {"features": [64, 128, 256, 512, 1024]}},
    "SE-ResUNet": {"network": "se_resunet"},
    "DeepLabV3": {"network": "deeplabv3"},
}
"""The paper's architectures, whose last feature maps are 64, 64 and 256."""

TOGETHER: dict[str, Any] = {"window": None, "window_bits": None, "sigmoid": None}
"""Of the models of all organs, which no organ's window suits."""

TRAINED = {"Layer-Fusion": "fusion", "Logits-Conc.": "logits", "Meta-U-Net": "meta"}


def _further(experiment: str, **differs: Any) -> tuple[EnsembleRow, ...]:
    """The ensembles that learn, in one of the paper's further experiments."""
    return tuple(EnsembleRow(name=f"{experiment}-{name}", kind=kind, optional=True, **differs) for name, kind in TRAINED.items())


PRESET = PaperPreset(
    paper="Crespi et al. (2023)",
    configurations=("2d",),
    rows=(
        *(Row(name=name, training=network | TOGETHER, organ_by_organ=False) for name, network in NETWORKS.items()),
        *(Row(name=f"binary-{name}", training=network) for name, network in reversed(NETWORKS.items())),
    ),
    organ_by_organ=True,
    training={
        "sigmoid": True,
        "window": "auto",
        "window_bits": 8,
        "center_crop": (320, 320),
        "patch": (320, 320),
        "options": {
            "loss": "dice_ce",
            "optimizer": "adam",
            "learning_rate": 1e-3,
            "schedule": "plateau",
            "early_stopping": 50,
            "augmentation": augmentations.CRESPI,
            **BARE,
        },
    },
    ensembles=(
        EnsembleRow(name="Argmax", kind="argmax"),
        EnsembleRow(name="Layer Fusion", kind="fusion"),
        EnsembleRow(name="Logits Conc.", kind="logits"),
        EnsembleRow(name="Meta U-Net", kind="meta"),
        *_further("redundant", redundant=True),
        *_further("multiclass", also=("DeepLabV3",)),
        *_further("scarce", share=0.2),
    ),
    members_by="loss",
    choice={"max_members": 1},
    table=PaperTable(
        chosen="",
        metrics={"dice": "Dice", "precision": "Precision", "sensitivity": "Recall", "hd95_surface": "HD95 (mm)"},
        score="dice",
        averages=True,
    ),
    why={
        "configurations": "axial slices",
        "rows": "three architectures, as baselines of all organs and as models of each; ensembles take the best of each by its loss",
        "organ_by_organ": "binary models, and baselines of all organs",
        "network_options": "64 feature maps before the logits of U-Net and SE-ResUNet, 256 of DeepLabV3",
        "sigmoid": "one output with sigmoid and threshold",
        "window": "each organ's own, scaled to 0..1; that of the baselines is not told",
        "window_bits": "8 bits",
        "center_crop": "the central 320x320 of 512x512",
        "patch": "320x320",
        "options": "Dice and cross entropy alike; Adam with 1e-3, reduced on plateaus of the smoothed validation loss; early stopping",
    },
    departures=(
        "not told: plateau_patience, plateau_factor and early_stopping, and how strong and frequent the augmentation is",
        Departure(
            "the budget has no more validation intervals than early stopping waits for, so that it never stops training",
            lambda settings, spec: budget_of(settings).validation_intervals <= settings.changed_options.get("early_stopping", 0),
        ),
        Departure(
            "slices are resampled to the planned spacing; the paper keeps each image's own",
            lambda settings, spec: not spec.configuration.slice_shape,
        ),
        "cross-validation by patient; ensembles learn from cases that their members were not trained on, and begin as their average",
        Departure(
            "models of all organs see intensities as planned, as no window is told for them",
            lambda settings, spec: len(spec.plan.labels.names) > 1 and settings.window is None,
        ),
    ),
)
