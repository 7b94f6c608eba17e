"""Runs of trainers that are interrupted, and their results."""

from __future__ import annotations

import dataclasses
import signal

import pytest
import torch

from autoseg.runtime.checkpoints import load_checkpoint
from autoseg.runtime.registry import lookup
from autoseg.runtime.runs import FINAL_CHECKPOINT
from autoseg.schema.run_record import RunRecord
from autoseg.trainers import TRAINERS
from autoseg.trainers.run_options import RunFolders
from autoseg.trainers.trainer import Trainer

TRAINER_OPTIONS: dict[str, dict[str, object]] = {
    "AdversarialTrainer": {"discriminator_features": 2},
    "SpatialConfigurationTrainer": {"locator_options": {"features": 4, "levels": 2}, "whole_region": False},
}
NETWORK_OPTIONS: dict[str, dict[str, object]] = {
    "PyramidTrainer": {"features": [4, 8], "norm": "instance"},
    "SpatialConfigurationTrainer": {
        "features": 8,
        "levels": 2,
        "spatial_features": 4,
        "spatial_levels": 2,
        "downsampling": 2,
        "dropout": 0.0,
    },
}
"""What makes a trainer's discriminator or network small."""


def build(name: str, job: RunRecord, folders: RunFolders) -> Trainer:
    """A trainer of this name, its networks small."""
    kind, options = lookup(TRAINERS, name, "trainer"), TRAINER_OPTIONS.get(name, {})
    configuration = kind.configure(job.configuration, job.plan, options)
    configuration = dataclasses.replace(configuration, network_options=configuration.network_options | NETWORK_OPTIONS.get(name, {}))
    job = dataclasses.replace(job, trainer=name, trainer_options=options, configuration=configuration)
    return kind(job, folders, device=torch.device("cpu"), progress=False)


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


def kill_at(trainer: Trainer, iteration: int, *, after: bool = False) -> None:
    """Ends the run in the step of that number, before or after the weights have changed."""
    step = trainer.step

    def dying(batch: object) -> dict[str, torch.Tensor]:
        if trainer.iteration < iteration:
            return step(batch)
        if after:
            step(batch)
        raise Killed

    trainer.step = dying


def run_until_killed(trainer: Trainer, iteration: int, *, after: bool = False) -> None:
    kill_at(trainer, iteration, after=after)
    with pytest.raises(Killed):
        trainer.fit()


def elsewhere(folders: RunFolders, name: str) -> RunFolders:
    return dataclasses.replace(folders, run=folders.run.with_name(name))


def weights(folders: RunFolders, name: str = "network") -> dict[str, torch.Tensor]:
    return load_checkpoint(folders.run / FINAL_CHECKPOINT)[0][name]


def equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def signal_at(trainer: Trainer, number: int, iteration: int | None) -> None:
    """Sends this process a signal in the step of that number; None: while the first patch is scored."""
    step = trainer.step

    def interrupted(batch: object) -> dict[str, torch.Tensor]:
        if trainer.iteration == iteration:
            signal.raise_signal(number)
        return step(batch)

    def scored(*_: object) -> None:
        if torch.is_inference_mode_enabled():
            signal.raise_signal(number)

    if iteration is None:
        trainer.final_network().register_forward_hook(scored)
    else:
        trainer.step = interrupted
