"""Trained ensembles as models like any other: from an image to logits, by way of what their members say or see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..inference.export import Logits
from ..inference.low_memory import LowMemoryPredictor
from ..inference.predictor import Predictor
from ..inference.trained_model import (
    InferenceOptions,
    LogitsCache,
    ModelCache,
    Progress,
    TrainedModel,
    checkpoint_key,
    load_model,
    load_network,
)
from ..networks.feature_taps import FeatureTap
from ..networks.fusion import Branch, Fusion
from ..preprocessing.preprocess import preprocess_case
from ..runtime.checkpoints import load_checkpoint
from ..runtime.runs import ModelFolder
from ..schema import Configuration, Image, Labels, Plan
from ..schema.run_record import RunRecord
from .stacking import as_stored, stacked

FUSION = "fusion"
"""The kind whose members are cut open; all others look at what their members say."""

META = "meta"
"""The kind that looks at a voxel's surroundings too; all others at voxels one by one."""

FUSED = "fused"
"""In a checkpoint of that kind: the networks that its head belongs to (`Fusion.key`)."""

Runs = dict[str, RunRecord]
"""Fold to its run's record."""

Loaders = Sequence[Callable[[], nn.Module]]


@dataclass(frozen=True, eq=False)
class StackedEnsemble(TrainedModel):
    """An ensemble over its members' predictions; each member is asked once an image, also where it is wanted for itself.

    Attributes:
        members: Vote with the folds of the ensemble.
        reference: Place of the member on whose grid the ensemble works.
    """

    members: tuple[TrainedModel, ...] = ()
    reference: int = 0

    @property
    def depends_on(self) -> tuple[TrainedModel, ...]:
        """Its members."""
        return self.members

    def _compute(self, image: Image, case: str, progress: Progress | None, known: LogitsCache) -> Logits:
        share = None if progress is None else lambda part: progress(part / len(self.members))
        labels = [member.plan.labels for member in self.members]
        said = [
            as_stored(member.logits(image, case=case, progress=share, known=known), own)
            for member, own in zip(self.members, labels, strict=True)
        ]
        trace = said[self.reference].trace
        return Logits(self.predictor.logits(stacked(said, labels, trace), source=case or image.source), trace)


@dataclass(frozen=True, eq=False)
class FusedEnsemble(TrainedModel):
    """An ensemble over its members' features: one network that holds theirs, and sees what each of them sees.

    Attributes:
        inputs: What is seen, one after the other: plan and configuration of each way to preprocess an image.
    """

    inputs: tuple[tuple[Plan, Configuration], ...] = ()

    def _compute(self, image: Image, case: str, progress: Progress | None, known: LogitsCache) -> Logits:
        arrays, trace = [], None
        for plan, configuration in self.inputs:
            array, _, trace = preprocess_case(image, None, plan, configuration, case=case)
            arrays.append(array)
        seen = np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
        return Logits(self.predictor.logits(seen, progress=progress, source=case or image.source), trace)


def load_ensemble(
    folder: Path, folds: Sequence[str], device: torch.device, options: InferenceOptions, *, loaded: ModelCache
) -> TrainedModel:
    """Loads an ensemble's folder and, beside it, those of its members.

    Args:
        folder: ``results/<dataset>/ensemble__<Kind>``.
        folds: Of the ensemble, and of its members: those that vote.
        device: Where to compute.
        options: Test-time settings.
        loaded: See `trained.load_model`.

    Raises:
        ValueError: A member is not there, or lacks a fold.
    """
    runs = {fold: ModelFolder(folder).run(fold).record() for fold in folds}
    made_of = runs[folds[0]].ensemble
    if made_of is None:
        raise ValueError(f"{folder}: expected a record of the ensemble's members, found none")
    build = _fused if made_of.kind == FUSION else _stacked
    return build(folder, runs, replace(options, folds=tuple(folds)), device, loaded)


def _stacked(folder: Path, runs: Runs, options: InferenceOptions, device: torch.device, loaded: ModelCache) -> TrainedModel:
    loaders = [partial(load_network, ModelFolder(folder).run(fold), run.plan, run.configuration, device) for fold, run in runs.items()]
    first = next(iter(runs.values()))
    made_of = first.ensemble
    members = tuple(load_model(folder.parent / name, device, options, loaded=loaded) for name in made_of.members)
    # Flipped images are averaged by the members, and voxels that are looked at one by one need no overlapping tiles.
    how = replace(options, mirror=False, step=options.step if made_of.kind == META else 1.0)
    predictor = _predictor(loaders, first.configuration, first.plan.labels, how, device)
    asked = "; ".join(f"{member.name} {member.key} {member.predictor.mirror} {member.predictor.step}" for member in members)
    key = f"{checkpoint_key(folder, options.folds)} of {asked}"
    plan = replace(first.plan, channels=members[0].plan.channels)
    place = made_of.members.index(made_of.reference)
    return StackedEnsemble(folder.name, plan, first.configuration, predictor, key, members=members, reference=place)


def _fused(folder: Path, runs: Runs, options: InferenceOptions, device: torch.device, loaded: ModelCache) -> TrainedModel:
    first = next(iter(runs.values()))
    plan, configuration = first.plan, first.configuration
    folders = [folder.parent / name for name in first.ensemble.members]
    loaders = [partial(_fused_network, folder, folders, fold, plan.labels, device) for fold in runs]
    predictor = _predictor(loaders, configuration, plan.labels, options, device)
    parts = [f"{one.name} {checkpoint_key(one, options.folds)}" for one in folders]
    key = f"{checkpoint_key(folder, options.folds)} of {'; '.join(parts)}"
    inputs = tuple(ways_to_see([described(one, options.folds[0]) for one in folders]).values())
    return FusedEnsemble(folder.name, replace(plan, channels=inputs[0][0].channels), configuration, predictor, key, inputs=inputs)


def _predictor(
    loaders: Loaders, configuration: Configuration, labels: Labels, options: InferenceOptions, device: torch.device
) -> Predictor | LowMemoryPredictor:
    how = {"device": device, "mirror": options.mirror, "step": options.step}
    if options.low_memory:
        return LowMemoryPredictor(loaders, configuration, labels, **how)
    return Predictor([load() for load in loaders], configuration, labels, **how)


def described(folder: Path, fold: str) -> tuple[Plan, Configuration]:
    """What a fold of a model was trained with."""
    record = ModelFolder(folder).run(fold).record()
    return record.plan, record.configuration


def ways_to_see(members: Sequence[tuple[Plan, Configuration]]) -> dict[str, tuple[Plan, Configuration]]:
    """The different preprocessed data that members read, in the order of their first use: its name to a plan and configuration of it."""
    found: dict[str, tuple[Plan, Configuration]] = {}
    for plan, configuration in members:
        found.setdefault(configuration.data, (plan, configuration))
    return found


def fuse(folders: Sequence[Path], fold: str, labels: Labels, device: torch.device) -> Fusion:
    """The networks of one fold of several models under a new head, which begins as their average.

    Args:
        folders: Of the models.
        fold: Name of the fold.
        labels: Of the ensemble.
        device: Where to compute.

    Raises:
        ValueError: A network cannot be cut before its logits; the message names its model.
    """
    members = [described(folder, fold) for folder in folders]
    channels = len(members[0][0].channels) * members[0][1].slices
    seen = list(ways_to_see(members))
    branches = []
    for folder, (plan, configuration) in zip(folders, members, strict=True):
        network = load_network(ModelFolder(folder).run(fold), plan, configuration, device)
        example = torch.randn((1, channels, *configuration.patch_size), generator=torch.Generator().manual_seed(0)).to(device)
        place = channels * seen.index(configuration.data)
        organs = tuple(labels.names.index(name) if name in labels.names else None for name in plan.labels.names)
        try:
            tap = FeatureTap(network, example)
        except ValueError as error:
            raise ValueError(f"{folder.name}: {error}") from error
        branches.append(Branch(tap, (place, place + channels), organs, not labels.regions))
    return Fusion(branches, dim=members[0][1].dim, organs=len(labels.names))


def _fused_network(folder: Path, members: Sequence[Path], fold: str, labels: Labels, device: torch.device) -> nn.Module:
    network = fuse(members, fold, labels, device)
    states, meta = load_checkpoint(ModelFolder(folder).run(fold).checkpoint)
    if meta.get(FUSED, network.key) != network.key:
        raise ValueError(
            f"{folder.name}, fold {fold}: {', '.join(one.name for one in members)} were trained again since, and features of other "
            "networks are no use to it. Run the same autoseg_train_ensemble with --restart"
        )
    network.load_state_dict(states["network"])
    return network.to(device).eval()
