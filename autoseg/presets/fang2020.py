"""The experiment of Fang & Yan, IEEE Transactions on Medical Imaging 39 (2020)."""

from __future__ import annotations

from . import augmentations
from .paper_preset import BARE, PaperPreset

PRESET = PaperPreset(
    paper="Fang & Yan, IEEE Transactions on Medical Imaging 39 (2020)",
    configurations=("2.5d",),
    training={
        "trainer": "PyramidTrainer",
        "trainer_options": {"fusion_from": 0.5},
        "normalization": ("clip:-200:200",),
        "options": {
            "loss": "ce",
            "optimizer": "rmsprop",
            "learning_rate": 2e-4,
            "schedule": "percents",
            "augmentation": augmentations.FANG,
            "case_sampling": "alternating",
            **BARE,
        },
    },
    why={
        "configurations": "three adjacent slices as channels",
        "trainer": "PIPO-FAN: deep pyramid supervision, then adaptive fusion",
        "trainer_options": "2000 of 4000 epochs for each phase (several organs; one organ: 0.8)",
        "normalization": "HU clipped to -200..200, then zero mean and unit variance",
        "options": "cross entropy; RMSprop with 2e-4 (one organ: --learning-rate 2e-3), 1 % less every 40 of 4000 epochs; each "
        "batch from one of the merged datasets, in turn",
    },
    departures=(
        "4000 epochs of a patch a volume: the device's default budget instead",
        "the planned spacing and patch instead of slices halved to 256x256 and patches of 224x224",
        "class weights of single organs (0.2, 1.2) are not taken",
        "label maps are pooled to the coarser scales by nearest neighbour",
    ),
)
