"""Options of the `SpatialConfigurationTrainer`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...inference.localisation import plan_locator
from ...schema import Configuration
from ...schema.values import check_least, expect


@dataclass(frozen=True, kw_only=True)
class SpatialConfigurationOptions:
    """Options of the trainer.

    Attributes:
        localisation_share: Share of the steps that also train the locator, spread evenly over the run; 0 does without one.
        margin: Voxels by which the located box is grown on each side.
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
        expect(isinstance(self.mirroring, bool), "mirroring", "true or false", self.mirroring)
        if self.local_weight < 0 or self.spatial_weight < 0:
            raise ValueError(f"local_weight, spatial_weight: expected 0 or more, got {self.local_weight} and {self.spatial_weight}")


def with_locator(configuration: Configuration, shapes: Sequence[Sequence[int]], options: SpatialConfigurationOptions) -> Configuration:
    """The configuration with a locator for cases of these shapes; slices, or a share of zero, get none."""
    if configuration.dim == 2 or not options.localisation_share:
        return configuration
    locator = plan_locator(configuration.spacing, shapes)
    return replace(configuration, locator=replace(locator, margin=options.margin, network_options=options.locator_options))
