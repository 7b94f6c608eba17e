"""Pyramid training: first a loss on the score maps of all scales, then one on their weighted sum."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..networks import build_network
from ..networks.imagenet import without_pretrained
from ..networks.pipo_fan import FEATURES
from ..schema import Configuration, Plan
from ..schema.training_options import TrainingOptions
from .batches import Batch
from .losses.deep_supervision import SUPERVISIONS, DeepSupervision
from .run_options import checked_options
from .trainer import Trainer

NETWORK = "pipo_fan"


@runtime_checkable
class FusingNetwork(Protocol):
    """A network that gives one fused score map, or those of all scales."""

    def set_fusing(self, on: bool, /) -> None:
        """Switches between the two; a ValueError says that there is nothing to fuse."""


@dataclass(frozen=True, kw_only=True)
class PyramidOptions:
    """Options of the two phases.

    Attributes:
        fusion_from: Share of the budget from which on the fused map alone is trained, 0 up to below 1.
    """

    fusion_from: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.fusion_from < 1:
            raise ValueError(f"fusion_from: expected a share of the budget, 0 up to below 1, got {self.fusion_from}")


class PyramidTrainer(Trainer):
    """Deep pyramid supervision, then adaptive fusion (Fang and Yan, IEEE Transactions on Medical Imaging 39, 2020).

    Up to `fusion_from` of the budget every output scale learns by itself, and the finest one is validated. From then on the scales are
    fused with learned weights, and only the fused map has a loss. Which phase a step belongs to follows from the budget that is used: a run
    that is continued is in the right one, with a budget in iterations to the step. What predicts in the end is always the fused map.
    """

    @classmethod
    def configure(cls, configuration: Configuration, plan: Plan, options: Mapping[str, Any]) -> Configuration:
        """The configuration with ``pipo_fan`` on the planned strides, or with the user's network, which must be able to fuse."""
        checked_options(PyramidOptions, options)
        if not configuration.patch_multiple:  # as planned
            return _with_pyramid(configuration)
        _check_fuses(configuration, plan)
        return configuration

    @classmethod
    def suited_options(cls, options: TrainingOptions, *, long_run: bool) -> TrainingOptions:
        """All scales count alike."""
        return replace(options, supervision="pyramid")

    supervisions = SUPERVISIONS | {"deep": partial(DeepSupervision, drop_last=False)}
    """The coarsest score map is supervised, too: it is fused with the others later, and nothing else trains its head before."""

    _fuses = True

    def build_network(self) -> nn.Module:
        """The network; one that cannot fuse is refused now, not when the second phase begins."""
        network = super().build_network()
        _set_fusing(network, True, self.job.configuration)
        return network

    def step(self, batch: Batch) -> Mapping[str, Tensor | None]:
        """Takes one optimisation step of the phase that the budget is in."""
        self._set_phase(self.used >= checked_options(PyramidOptions, self.job.trainer_options).fusion_from)
        return super().step(batch)

    def _set_phase(self, fuses: bool) -> None:
        self._fuses = fuses
        for network in (self.network, self.optimized.final):
            _set_fusing(network, fuses, self.job.configuration)

    def extra_states(self) -> dict[str, dict[str, Any]]:
        """The phase of the last step: where a run goes on after an interval's last one, its patches are scored in that phase."""
        return {"pyramid": {"fuses": self._fuses}}

    def load_extra_states(self, states: Mapping[str, Any]) -> None:
        if "pyramid" in states:
            self._set_phase(states["pyramid"]["fuses"])

    def fit(self, *, longer: bool = False) -> nn.Module:
        """Trains, and returns the network that predicts, which fuses; so does every network that is built from the checkpoint."""
        network = super().fit(longer=longer)
        _set_fusing(network, True, self.job.configuration)
        return network


def _with_pyramid(configuration: Configuration) -> Configuration:
    """The configuration with a pyramid of the planned strides, in as many of the paper's five levels as were planned.

    Those of slices with a fixed number of pixels are the paper's, as what was planned is for slices of another size.
    """
    dim, planned = configuration.dim, configuration.network_options["strides"]
    halvings = [[1] * dim, *[[2] * dim] * (len(FEATURES) - 1)]
    strides = halvings if configuration.slice_shape else [list(stride) for stride in planned[: len(FEATURES)]]
    options = {"strides": strides, "features": list(FEATURES[: len(strides)])}
    multiple = tuple(math.prod(axis) for axis in zip(*strides, strict=True))
    return replace(configuration, network=NETWORK, network_options=options, patch_multiple=multiple)


def _check_fuses(configuration: Configuration, plan: Plan) -> None:
    """Refuses a network without adaptive fusion; it is built without weights."""
    with torch.device("meta"):
        network = build_network(
            configuration.network,
            dim=configuration.dim,
            in_channels=plan.in_channels(configuration),
            out_channels=plan.labels.n_outputs,
            single_output=configuration.sigmoid,
            **without_pretrained(configuration.network_options),
        )
    _set_fusing(network, True, configuration)


def _set_fusing(network: nn.Module, on: bool, configuration: Configuration) -> None:
    if not isinstance(network, FusingNetwork):
        raise ValueError(f"PyramidTrainer: expected {NETWORK} or another network with set_fusing, got {configuration.network!r}")
    network.set_fusing(on)
