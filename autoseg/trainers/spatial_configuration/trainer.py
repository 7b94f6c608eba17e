"""Training of a SpatialConfiguration-Net together with the small network that locates the organs in the whole volume."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ...inference.localisation import Localiser, LocatedPredictor
from ...inference.predictor import Predictor
from ...inference.volume_predictor import VolumePredictor
from ...networks.scn import SpatialConfigurationNet
from ...preprocessing.storage import Store
from ...runtime.hardware import autocast
from ...runtime.registry import lookup
from ...schema import Configuration, Mirroring, Plan
from ...schema.run_record import RunRecord
from ...schema.training_options import TrainingOptions
from ..batches import Batch, BatchMaker
from ..losses import LOSSES
from ..losses.heatmap import sigmoid_cross_entropy
from ..run_options import RunFolders, checked_options, sibling_configuration
from ..trainer import Trainer
from ..validation_plan import as_validated
from .coarse_cases import prepare_coarse
from .locator_training import LocatorTraining
from .options import MULTIPLE, SpatialConfigurationOptions, with_locator, with_whole_region
from .regions import RegionBatches

log = logging.getLogger(__name__)

NETWORK = "scn"
AVERAGE_DECAY = 0.999
LEARNING_RATE = 1e-4


class SpatialConfigurationTrainer(Trainer):
    """Locator (not for slices) and SpatialConfiguration-Net of Thaler et al. (FLARE at MICCAI 2021), in one run and one checkpoint."""

    def __init__(self, job: RunRecord, folders: RunFolders, *, device: torch.device, progress: bool = True) -> None:
        super().__init__(job, folders, device=device, progress=progress)
        self.options = checked_options(SpatialConfigurationOptions, job.trainer_options)
        self.locator = None
        if job.configuration.locator is not None:
            loss, translation = self.options.localisation_loss, self.options.localisation_translation
            self.locator = LocatorTraining(job, device, loss=loss, translation=translation)
        self.step_kinds = self._kinds()

    learns_pseudo_labels = False  # its heatmaps and its locator count all voxels alike

    @classmethod
    def configure(cls, configuration: Configuration, plan: Plan, options: Mapping[str, Any]) -> Configuration:
        """The configuration with the network, for volumes with a locator and whole regions, else with patches of multiples of 32.

        Raises:
            ValueError: An option is unknown or makes no sense, organs overlap, or another network is demanded.
        """
        checked = checked_options(SpatialConfigurationOptions, options)
        lookup(LOSSES, checked.localisation_loss, "localisation_loss")
        if plan.labels.regions:
            raise ValueError("SpatialConfigurationTrainer: expected organs that exclude each other, got regions that overlap")
        if configuration.sigmoid:
            raise ValueError("SpatialConfigurationTrainer: expected outputs for background and organs, got one with sigmoid (--no-sigmoid)")
        if configuration.network != NETWORK:
            if configuration.patch_multiple:
                raise ValueError(f"SpatialConfigurationTrainer: expected the network {NETWORK!r}, got {configuration.network!r}")
            configuration = replace(configuration, network=NETWORK, network_options={})
        patch = tuple(size if size < MULTIPLE else MULTIPLE * round(size / MULTIPLE) for size in configuration.patch_size)
        multiple = tuple(MULTIPLE if size % MULTIPLE == 0 else size for size in patch)
        # Mirrored anatomy would teach the spatial networks places that no patient has.
        planned = plan.configurations.get(configuration.name, configuration)
        mirroring = planned.mirroring if checked.mirroring else Mirroring()
        configuration = replace(configuration, patch_size=patch, patch_multiple=multiple, locator=None, mirroring=mirroring)
        configuration = with_locator(configuration, [configuration.median_shape], checked, plan)
        is_whole = configuration.locator is not None and configuration.locator.whole
        return with_whole_region(configuration, plan) if is_whole else configuration

    @classmethod
    def options_of_siblings(cls, options: dict[str, Any], sibling: Configuration) -> dict[str, Any]:
        """With patches, where nobody asked for whole regions and the other folds have none: earlier versions knew none."""
        is_open = "whole_region" not in options and sibling.locator is not None and not sibling.locator.whole
        return options | {"whole_region": False} if is_open else options

    @classmethod
    def fit_to_data(cls, job: RunRecord, folders: RunFolders) -> RunRecord:
        """Fits the coarse grid to the largest case; a fold that joins others takes over their locator.

        Raises:
            ValueError: The options demand another locator than that of the model's other folds.
        """
        store = Store(folders.data)
        shapes = [store.load(name).trace.shape for name in store.names()]
        options = checked_options(SpatialConfigurationOptions, job.trainer_options)
        if job.configuration.locator is not None:
            options = replace(options, whole_region=job.configuration.locator.whole)
        configuration, sibling = with_locator(job.configuration, shapes, options, job.plan), sibling_configuration(folders.files)
        if sibling is not None:
            then, now = _locator_settings(sibling), _locator_settings(configuration)
            if different := [name for name in then if name in now and then[name] != now[name]]:
                expected, found = (" ".join(f"--trainer-option {name}={one[name]}" for name in different) for one in (then, now))
                raise ValueError(
                    f"{folders.run}: expected {expected} as in the model's other folds, got {found}; ask for the same, "
                    f"or move {folders.run.parent} away"
                )
            configuration = replace(configuration, locator=sibling.locator)
        return replace(job, configuration=configuration)

    @classmethod
    def suited_options(cls, options: TrainingOptions, *, long_run: bool) -> TrainingOptions:
        """Generalised Dice; in a long run the paper's Adam, learning rate and moving average, as the network has no normalisation."""
        options = replace(options, loss="generalised_dice")
        if not long_run:
            return options
        return replace(
            options, optimizer="adam", schedule="constant", weight_decay=0.0, learning_rate=LEARNING_RATE, average_decay=AVERAGE_DECAY
        )

    def prepare(self) -> None:
        """Brings the training cases to the coarse grid, where that is not done yet."""
        job, folders = self.job, self.folders
        if self.locator is not None:
            log.info("%.0f %% of the steps also train the network that locates the organs.", 100 * self.options.localisation_share)
            names = sorted(job.split.train)
            folder = prepare_coarse(folders.run.parent, folders.data, names, job.plan, job.configuration, progress=self.progress)
            self.locator.learn_from(folder, names)

    def batch_maker(self, names: Sequence[str], *, stream: int) -> BatchMaker:
        """Whole regions of the cases, or patches."""
        if self.job.configuration.locator is None or not self.job.configuration.locator.whole:
            return super().batch_maker(names, stream=stream)
        return RegionBatches(self.job, self.folders, names, stream=stream, device=self.device).prepared()

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Takes a step of the SpatialConfiguration-Net, before it in some steps one of the locator."""
        if self.locator is not None and self._trains_locator(self.iteration):
            self.locator.step(self.iteration, self.optimized.learning_rate)
        if not isinstance(self.network, SpatialConfigurationNet):
            raise ValueError(f"SpatialConfigurationTrainer: expected a SpatialConfiguration-Net, got {type(self.network).__name__}")
        with autocast(self.device):
            merged, local, spatial = self.network.parts(batch.image)
        loss = self.loss(merged.log(), batch.segmentation, batch.annotated)
        for logits, weight in ((local, self.options.local_weight), (spatial, self.options.spatial_weight)):
            loss = loss + weight * sigmoid_cross_entropy(logits, batch.segmentation, self.labels, batch.annotated)
        self.descend(loss)
        located = {} if self.locator is None else {"localisation_loss": self.locator.loss}
        return {"train_loss": loss.detach(), **located}

    def _trains_locator(self, number: int) -> bool:
        """Whether an iteration is one of the share, spread evenly, that train the locator too."""
        share = self.options.localisation_share
        return math.ceil((number + 1) * share) > math.ceil(number * share)

    def _kinds(self) -> Mapping[int, float]:
        """`step_kinds`: iterations that train the locator too, as the first does, and those that do not."""
        share = 0.0 if self.locator is None else self.options.localisation_share
        without = next((number for number in range(1, 1000) if not self._trains_locator(number)), None)
        return {0: share, without: 1 - share} if 0 < share < 1 and without is not None else {0: 1.0}

    def predictor(self, network: nn.Module) -> VolumePredictor:
        """The predictor of the located box."""
        inside = Predictor([network], as_validated(self.job), self.job.plan.labels, device=self.device)
        if self.locator is None:
            return inside
        locator = self.locator.optimized.final.eval()
        return LocatedPredictor(inside, Localiser([lambda: locator], self.job.configuration, self.device))

    def extra_states(self) -> dict[str, dict[str, Any]]:
        return {} if self.locator is None else self.locator.states()

    def load_extra_states(self, states: Mapping[str, Any]) -> None:
        if self.locator is not None:
            self.locator.load(states)

    def load_pretrained(self, states: Mapping[str, Any]) -> None:
        """The locator of a run that had one."""
        if self.locator is not None and "locator" in states:
            self.locator.optimized.load_pretrained(states["locator"], "locator")

    def final_states(self) -> dict[str, dict[str, Any]]:
        located = {} if self.locator is None else {"locator": self.locator.optimized.final.state_dict()}
        return super().final_states() | located

    def load_final_states(self, states: Mapping[str, Any]) -> None:
        super().load_final_states(states)
        if self.locator is not None:
            self.locator.optimized.final.load_state_dict(states["locator"])


def _locator_settings(configuration: Configuration) -> dict[str, str]:
    """The settings of a locator that the user decides on, by the names of the trainer's options; its grid follows from the cases."""
    locator = configuration.locator
    if locator is None:
        return {"localisation_share": "0"}
    return {
        "localisation_share": "more than 0",
        "locator_options": json.dumps(locator.network_options),
        "margin": str(locator.margin),
        "whole_region": json.dumps(locator.whole),
    }
