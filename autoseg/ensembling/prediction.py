"""Learned ensembles as trained models like any other: from an image to logits by way of their members' predictions or features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..inference.trained_model import (
    InferenceOptions,
    LogitsCache,
    ModelCache,
    TrainedModel,
    checkpoint_key,
    load_model,
    load_network,
    sliding_window,
)
from ..inference.volume_predictor import Progress, Volume, scaled
from ..networks.feature_taps import FeatureTap
from ..networks.fusion import Branch, Fusion
from ..preprocessing.preprocess import preprocess_case
from ..runtime.case_contents import members_trained_since
from ..runtime.checkpoints import load_checkpoint, load_weights
from ..runtime.runs import ModelFolder, Run
from ..schema import Configuration, EnsembleRecord, Image, Labels, Plan, RunRecord, Trace
from ..schema.run_record import LOG_ODDS
from .stacking import as_stored, largest_ratio, stacked

FUSION = "fusion"
"""The kind that combines its members' features; all others combine their predictions."""

META = "meta"
"""The kind that sees a voxel's surroundings too; all others see voxels one by one."""

VOTE = "vote"
"""The kind whose members, all of the same organs, vote."""

UNTRAINED = ("argmax", "multi", VOTE)
"""Kinds that have nothing to learn."""

FUSED = "fused"
"""In a checkpoint of that kind: the networks that its head belongs to (`Fusion.key`)."""


HALVES = ("half_0", "half_1")
"""In a checkpoint of that kind whose members' last layers were trained: the networks that were fitted on the halves of a fold."""


@dataclass(frozen=True, eq=False)
class StackedEnsemble(TrainedModel):
    """An ensemble over its members' predictions; each member predicts an image once, also where it is wanted for itself.

    It works on the grid of the member at the place `reference`, and reads predictions in the form `stored`.
    """

    members: tuple[TrainedModel, ...] = ()
    reference: int = 0
    stored: str = LOG_ODDS
    learns: bool = True

    @property
    def depends_on(self) -> tuple[TrainedModel, ...]:
        """Its members."""
        return self.members

    @property
    def input_channels(self) -> int:
        """The organs of all members."""
        return sum(len(member.plan.labels.names) for member in self.members)

    @property
    def input_share(self) -> float:
        """All: the ensemble's own network is small."""
        return 1.0

    def preprocessed(self, image: Image, case: str, progress: Progress | None, cache: LogitsCache) -> tuple[Volume, Trace]:
        """The members' predictions as channels, on the grid of one of them."""
        progress = scaled(progress, 1 / len(self.members))
        labels = [member.plan.labels for member in self.members]
        logits = [member.logits(image, case=case, progress=progress, cache=cache) for member in self.members]
        predictions = [as_stored(one, organs, self.stored) for one, organs in zip(logits, labels, strict=True)]
        trace, most = predictions[self.reference].trace, largest_ratio(self.stored, learns=self.learns)
        return Volume(stacked(predictions, labels, trace, most=most), case=case or image.source), trace


@dataclass(frozen=True, eq=False)
class FusedEnsemble(TrainedModel):
    """An ensemble over its members' features: one network that holds theirs, and gets the input of each of them.

    Attributes:
        inputs: Plan and configuration of each way in which an image is preprocessed; their channels are joined in this order.
    """

    inputs: tuple[tuple[Plan, Configuration], ...] = ()

    @property
    def input_channels(self) -> int:
        """Those of all inputs."""
        return sum(plan.in_channels(configuration) for plan, configuration in self.inputs)

    def preprocessed(self, image: Image, case: str, progress: Progress | None, cache: LogitsCache) -> tuple[Volume, Trace]:
        """The image preprocessed in all ways, the channels joined."""
        results = [preprocess_case(image, None, plan, configuration, case=case) for plan, configuration in self.inputs]
        arrays = [array for array, _, _ in results]
        return Volume(np.concatenate(arrays) if len(arrays) > 1 else arrays[0], case=case or image.source), results[-1][2]


def load_ensemble(
    folder: Path, folds: tuple[str, ...], device: torch.device, options: InferenceOptions, *, loaded: ModelCache
) -> TrainedModel:
    """Loads folds of an ensemble's folder ``ensemble__<Kind>`` and, of the folders beside it, the same of its members.

    Arguments and errors are those of `trained_model.load_model`.
    """
    records = [ModelFolder(folder).run(fold).record() for fold in folds]
    made_of = records[0].ensemble
    if made_of is None:
        raise ValueError(f"{folder}: expected a record of the ensemble's members, found none")
    for fold in folds:
        check_members(ModelFolder(folder).run(fold))
    build = _fused if made_of.kind == FUSION else _stacked
    return build(folder, records, made_of, device, options, loaded)


def check_members(run: Run) -> None:
    """Refuses (ValueError) an ensemble's run whose members were trained anew since, or have other organs than it was made for."""
    record = run.record()
    if record.ensemble is None:
        return
    changed = members_trained_since(run)
    models = [ModelFolder(run.model.folder.parent / name) for name in record.ensemble.members]
    if not changed and record.ensemble.kind != FUSION:  # an earlier version noted no networks, but which organ each channel is of
        expected = [f"{organ} of {model.name}" for model in models for organ in model.labels(record.plan.labels).names]
        changed = [] if tuple(expected) == record.plan.channels else [model.name for model in models]
    if changed:
        raise ValueError(
            f"{run.folder}: was made from former networks of {', '.join(changed)}, which were trained again since. "
            "Run the same autoseg_train_ensemble with --restart"
        )


def _stacked(
    folder: Path, records: Sequence[RunRecord], made_of: EnsembleRecord, device: torch.device, options: InferenceOptions, loaded: ModelCache
) -> StackedEnsemble:
    record, folds, model = records[0], tuple(one.fold for one in records), ModelFolder(folder)
    loaders = [partial(load_network, model.run(one.fold), one.plan, one.configuration, device) for one in records]
    options = replace(options, folds=folds)
    members = tuple(load_model(folder.parent / name, device, options, loaded=loaded) for name in made_of.members)
    # Flipped images are averaged by the members, and voxels that are seen one by one need no overlapping tiles.
    options = replace(options, mirror=False, step=options.step if made_of.kind == META else 1.0, first_step=None)
    predictor = sliding_window(loaders, record.configuration, record.plan.labels, device, options)
    parts = "; ".join(f"{member.name} {member.key} {member.predictor.mirror} {member.predictor.step}" for member in members)
    key = f"{checkpoint_key(folder, folds)} of {parts}"
    plan = replace(record.plan, channels=members[0].plan.channels)
    reference = made_of.members.index(made_of.reference)
    build = partial(StackedEnsemble, members=members, reference=reference, stored=made_of.stored, learns=made_of.kind not in UNTRAINED)
    return build(folder.name, plan, record.configuration, predictor, key, max_memory=options.max_memory)


def _fused(
    folder: Path, records: Sequence[RunRecord], made_of: EnsembleRecord, device: torch.device, options: InferenceOptions, loaded: ModelCache
) -> FusedEnsemble:
    record, folds = records[0], tuple(one.fold for one in records)
    plan, configuration = record.plan, record.configuration
    members = [folder.parent / name for name in made_of.members]
    load = partial(_fused_network, folder, members, plan.labels, device)
    halves = HALVES if made_of.trains_last else ("network",)
    loaders = [partial(load, fold=fold, part=part) for fold in folds for part in halves]
    predictor = sliding_window(loaders, configuration, plan.labels, device, options)
    parts = "; ".join(f"{member.name} {checkpoint_key(member, folds)}" for member in members)
    key = f"{checkpoint_key(folder, folds)} of {parts}"
    inputs = tuple(_distinct_inputs([_trained_with(member, folds[0]) for member in members]).values())
    plan, limit = replace(plan, channels=inputs[0][0].channels), options.max_memory
    return FusedEnsemble(folder.name, plan, configuration, predictor, key, inputs=inputs, max_memory=limit)


def _trained_with(member: Path, fold: str) -> tuple[Plan, Configuration]:
    """Plan and configuration of a fold of a member."""
    record = ModelFolder(member).run(fold).record()
    return record.plan, record.configuration


def _distinct_inputs(members: Sequence[tuple[Plan, Configuration]]) -> dict[str, tuple[Plan, Configuration]]:
    """The different preprocessed data of members in the order of their first use: its name to a plan and configuration of it."""
    inputs: dict[str, tuple[Plan, Configuration]] = {}
    for plan, configuration in members:
        inputs.setdefault(configuration.data, (plan, configuration))
    return inputs


def fuse(folders: Sequence[Path], fold: str, labels: Labels, device: torch.device, *, trains_last: bool = False) -> Fusion:
    """Joins the networks of one fold of the models in some folders under a new head, which begins as their average.

    With `trains_last` the last layers of these networks are part of it.

    Raises:
        ValueError: A network cannot be cut before its logits; the message names its model.
    """
    members = [_trained_with(folder, fold) for folder in folders]
    channels = len(members[0][0].channels) * members[0][1].slices
    inputs = list(_distinct_inputs(members))
    branches, last = [], []
    for folder, (plan, configuration) in zip(folders, members, strict=True):
        # The networks of a fusion see its one patch: those without padding repeat its borders.
        network = load_network(ModelFolder(folder).run(fold), plan, replace(configuration, context=()), device)
        example = torch.randn((1, channels, *configuration.patch_size), generator=torch.Generator().manual_seed(0)).to(device)
        first = channels * inputs.index(configuration.data)
        organs = tuple(labels.names.index(name) if name in labels.names else None for name in plan.labels.names)
        try:
            tap = FeatureTap(network, example)
        except ValueError as error:
            raise ValueError(f"{folder.name}: {error}") from error
        last.append(tap.last_layers(example) if trains_last else [])
        branches.append(Branch(tap, (first, first + channels), organs, not labels.regions))
    return Fusion(branches, dim=members[0][1].dim, organs=len(labels.names), last=last if trains_last else ())


def _fused_network(
    folder: Path, members: Sequence[Path], labels: Labels, device: torch.device, *, fold: str, part: str = "network"
) -> nn.Module:
    network = fuse(members, fold, labels, device, trains_last=part != "network")
    path = ModelFolder(folder).run(fold).checkpoint
    states, meta = load_checkpoint(path)
    if meta.get(FUSED, network.key) != network.key:
        raise ValueError(
            f"{folder.name}, fold {fold}: {', '.join(one.name for one in members)} were trained again since, and features of other "
            "networks are no use to it. Run the same autoseg_train_ensemble with --restart"
        )
    load_weights(network, states, part, path)
    return network.to(device).eval()
