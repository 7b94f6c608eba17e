"""Settings of an ensemble to train: its organs, its grid, the network on top, and how long it trains."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..data.label_subsets import subset_labels
from ..data.region_order import check_region_order
from ..planners.topology import plan_topology
from ..runtime.runs import ENSEMBLE
from ..schema import Budget, Configuration, Mirroring, Plan, Split, Tiling
from ..schema.run_record import EIGHT_BITS, LOG_ODDS, EnsembleRecord, RunRecord
from ..schema.settings import EnsembleSettings
from ..schema.training_options import AugmentationOptions, TrainingOptions
from .members import Member
from .prediction import FUSION, META, UNTRAINED, VOTE
from .stacking import Layout, largest_ratio

KINDS = {
    "argmax": "autoseg.networks.combiners:MaxConfidence",
    "logits": "autoseg.networks.combiners:LogitsConvolution",
    META: "autoseg.networks.combiners:MetaUNet",
    FUSION: "autoseg.networks.fusion:Fusion",
    "multi": "autoseg.networks.combiners:MaxConfidence",
    VOTE: "autoseg.networks.combiners:MajorityVote",
}
"""Kind of ensemble -> what it puts on top of its members."""

ITERATIONS = {"logits": 200, META: 300, FUSION: 200}
RATES = {"logits": 3e-2, META: 3e-3, FUSION: 1e-3}
"""Learning rates at the start."""

META_FEATURES = (8, 16, 32)
PATCH_VOXELS = 2**17
"""Most voxels of a patch: what is learnt is little, and should be learnt on a processor in minutes."""
BATCH_VOXELS = 2**18
BATCHES = (2, 8)
"""Fewest and most patches a step."""


@dataclass(frozen=True)
class Design:
    """An ensemble before it is trained.

    Attributes:
        kind: In `KINDS`.
        organs: That it segments, in the order of the dataset.
        reference: The member whose grid, plan and preprocessed cases it works with.
        best: For ``multi``: fold to organ to the member that segments it.
        stored: Form of the members' predictions that it reads.
    """

    kind: str
    members: tuple[Member, ...]
    organs: tuple[str, ...]
    reference: Member
    best: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    stored: str = LOG_ODDS

    @property
    def layout(self) -> Layout:
        """Of the stack of its members' predictions."""
        names, labels = zip(*((member.name, member.labels) for member in self.members), strict=True)
        return Layout(names, labels, self.organs)

    @property
    def most(self) -> float:
        """Largest log-ratio in the stack of its members' predictions."""
        return largest_ratio(self.stored, learns=self.kind not in UNTRAINED)

    @property
    def data(self) -> str:
        """Folder of the preprocessed cases that it reads."""
        if self.kind != FUSION:
            form = [] if self.stored == EIGHT_BITS else [self.stored, f"{self.most:g}"]
            return _data_name([member.name for member in self.members], " ".join([self.reference.name, *form]))
        return self.sources[0] if len(self.sources) == 1 else _data_name(self.sources, FUSION)

    @property
    def sources(self) -> tuple[str, ...]:
        """Folders of the preprocessed cases that its members read."""
        return tuple(dict.fromkeys(member.configuration.data for member in self.members))

    def record(self, fold: str, split: Split, *, budget: Budget, settings: EnsembleSettings) -> RunRecord:
        """The record of one fold that starts."""
        reference = self.reference
        channels = len(self.sources) * len(reference.record.plan.channels)
        configuration = self._bare(reference.configuration, channels) if self.kind == FUSION else self._stacked(fold)
        options = TrainingOptions(
            optimizer="adamw",
            learning_rate=RATES.get(self.kind, RATES["logits"]),
            weight_decay=0.0,  # the average, from which it starts, is not to be forgotten
            schedule="cosine",
            warmup=0.05,
            foreground=0.67,
            deep_supervision=False,
            validation_batches=4,
            validation_tiles=16,
            augmentation=_only_flips(),
        )
        names = tuple(member.name for member in self.members)
        trains_last = self.kind == FUSION and not settings.freeze
        ensemble = EnsembleRecord(self.kind, names, self.reference.name, replace(settings, restart=False), self.stored, trains_last)
        plan = self._plan(configuration)
        return RunRecord(plan, configuration, fold, split, budget, settings.seed, options, self.kind.capitalize(), ensemble=ensemble)

    def _plan(self, configuration: Configuration) -> Plan:
        """The reference's, for the ensemble's organs and the channels that it sees."""
        plan = self.reference.record.plan
        labels = subset_labels(plan.stored_labels, self.organs)
        check_region_order(labels, f"organs {', '.join(labels.names)}")
        channels = plan.channels * len(self.sources) if self.kind == FUSION else self.layout.names
        stored = None if labels == plan.stored_labels else plan.stored_labels
        return replace(plan, labels=labels, data_labels=stored, channels=channels, configurations={ENSEMBLE: configuration}, reasons=())

    def _stacked(self, fold: str) -> Configuration:
        reference = self.reference.configuration
        patch = _patch(reference.patch_size)
        options: dict[str, Any] = {"channels": self.layout.channels(self.best[fold] if self.best else None)}
        if self.kind in UNTRAINED:
            options["members"] = self.layout.spans
        if self.kind == META:
            topology = plan_topology(reference.spacing, patch)
            stages = min(len(META_FEATURES), len(topology.strides))
            options["features"] = list(META_FEATURES[:stages])
            options["strides"] = [list(one) for one in topology.strides[:stages]]
            options["kernel_sizes"] = [list(one) for one in topology.kernel_sizes[:stages]]
        return replace(self._bare(reference, len(self.layout.names)), patch_size=patch, slices=1, network_options=options)

    def _bare(self, reference: Configuration, channels: int) -> Configuration:
        """The reference without what only a network on images needs."""
        lowest, highest = BATCHES
        batch = max(lowest, min(highest, BATCH_VOXELS // math.prod(_patch(reference.patch_size))))
        return replace(
            reference,
            name=ENSEMBLE,
            batch_size=batch if self.kind != FUSION else min(batch, reference.batch_size),
            normalization=("none",) * channels,
            mask_normalization=(False,) * channels,
            network=KINDS[self.kind],
            network_options={},
            batch_dice=True,
            mirroring=Mirroring(self._flips()),
            data=self.data,
            previous_stage=None,
            region=None,
            patch_multiple=(),
            locator=None,
            width=1.0,
            context=(),
            tiling=Tiling(),
            sigmoid=False,
        )

    def _flips(self) -> tuple[int, ...]:
        """Axes along which every member on this kind of grid may be flipped, but for the one that exchanges left and right."""
        of_reference = self.reference.configuration
        same = [one.configuration for one in self.members]
        alike = [one.mirroring for one in same if (one.dim, one.slice_axis) == (of_reference.dim, of_reference.slice_axis)]
        axes = set.intersection(*(set(one.axes) - {one.lateral_axis} for one in alike))
        return tuple(sorted(axes))


def check_fusable(members: Sequence[Member]) -> None:
    """Refuses members that have different grids, or see more than the image: raises ValueError."""
    first = members[0].configuration
    for member in members:
        one = member.configuration
        if _grid_of(one) != _grid_of(first):
            raise ValueError(
                f"layer fusion: expected members on the same grid, {members[0].name} has {_grid(first)}, {member.name} {_grid(one)}; "
                "name members of one configuration with --members, or take another kind"
            )
        seen = [what for what in ("previous_stage", "region", "locator") if getattr(one, what) is not None]
        if seen:
            raise ValueError(f"layer fusion: expected members that see the image alone, {member.name} has a {seen[0].replace('_', ' ')}")


def _grid_of(one: Configuration) -> tuple[object, ...]:
    return one.dim, one.slice_axis, one.spacing, one.slices, one.center_crop, one.slice_shape


def _grid(configuration: Configuration) -> str:
    spacing = " x ".join(f"{size:g}" for size in configuration.spacing)
    return f"{configuration.dim}D, {spacing} mm, {configuration.slices} slice{'s' if configuration.slices > 1 else ''}"


def _patch(planned: Sequence[int]) -> tuple[int, ...]:
    """The planned patch, its longest axis halved until it is small enough."""
    patch = list(planned)
    while math.prod(patch) > PATCH_VOXELS:
        longest = patch.index(max(patch))
        patch[longest] = -(-patch[longest] // 2)
    return tuple(patch)


def _only_flips() -> AugmentationOptions:
    """The members have seen deformed and noisy images; what they make of them cannot be made up."""
    parts = ("rotation", "scale", "noise", "blur", "brightness", "contrast", "low_resolution", "inverted_gamma", "gamma")
    off: dict[str, Any] = {f"{part}_probability": 0.0 for part in parts}
    return AugmentationOptions(**off)


def _data_name(names: Sequence[str], of: str) -> str:
    return f"{ENSEMBLE}_{hashlib.sha256('|'.join([*names, of]).encode()).hexdigest()[:8]}"
