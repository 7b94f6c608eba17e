"""Options of the `SpatialConfigurationTrainer`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...inference.localisation import MOST_COARSE, MOST_REGION, by_anatomy, plan_locator
from ...schema import Configuration, Plan
from ...schema.values import check_least, expect

MULTIPLE = 32
"""Sizes that the network pads its input to."""


@dataclass(frozen=True, kw_only=True)
class SpatialConfigurationOptions:
    """Options of the trainer.

    Attributes:
        localisation_share: Share of the steps that also train the locator, spread evenly over the run; 0 does without one.
        margin: Voxels by which the located box is grown on each side.
        whole_region: The box around the organs is one input of the network, with larger voxels where it exceeds the largest input; false:
            patches of it, of the plan's size and voxels.
        localisation_loss: Of the locator, in `autoseg.trainers.losses.LOSSES`. The paper's ``generalised_dice`` alone may, at higher rates
            than the paper's, be stuck where every voxel is predicted as organ.
        localisation_translation: Of the locator's volumes in training: the largest along each axis, mm (at most a tenth of the volume).
        locator_options: Keyword arguments of the locator's network.
        mirroring: Learn from mirrored images too, and average over mirrored passes in prediction; the paper does neither, since the network
            learns where organs lie relative to each other.
        local_weight, spatial_weight: Of the cross entropies of the local and of the spatial network.
    """

    localisation_share: float = 0.2
    margin: int = 16
    whole_region: bool = True
    localisation_loss: str = "generalised_dice_ce"
    localisation_translation: float = 20.0
    locator_options: dict[str, Any] = field(default_factory=dict)
    mirroring: bool = False
    local_weight: float = 1.0
    spatial_weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.localisation_share <= 1:
            raise ValueError(f"localisation_share: expected a share in 0..1, got {self.localisation_share!r}")
        if not isinstance(self.margin, int) or self.margin < 0:
            raise ValueError(f"margin: expected a whole number of voxels, 0 or more, got {self.margin!r}")
        check_least("localisation_translation", self.localisation_translation)
        for name in ("mirroring", "whole_region"):
            expect(isinstance(getattr(self, name), bool), name, "true or false", getattr(self, name))
        if self.local_weight < 0 or self.spatial_weight < 0:
            raise ValueError(f"local_weight, spatial_weight: expected 0 or more, got {self.local_weight} and {self.spatial_weight}")


def with_locator(
    configuration: Configuration, shapes: Sequence[Sequence[int]], options: SpatialConfigurationOptions, plan: Plan
) -> Configuration:
    """The configuration with a locator for cases of these shapes; slices, or a share of zero, get none."""
    if configuration.dim == 2 or not options.localisation_share:
        return configuration
    locator = plan_locator(configuration.spacing, shapes, most=by_anatomy(MOST_COARSE, plan))
    whole = options.whole_region and configuration.previous_stage is None
    return replace(configuration, locator=replace(locator, margin=options.margin, network_options=options.locator_options, whole=whole))


def with_whole_region(configuration: Configuration, plan: Plan) -> Configuration:
    """The configuration with one region a step, at the most as large as the paper's, or as the median image where that is smaller."""
    limits = by_anatomy(MOST_REGION, plan)
    patch = tuple(min(limit, MULTIPLE * math.ceil(n / MULTIPLE)) for limit, n in zip(limits, configuration.median_shape, strict=True))
    return replace(configuration, patch_size=patch, patch_multiple=(MULTIPLE,) * len(patch), batch_size=1)
