"""Options of a training: optimisation and augmentation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from .values import check_least, check_share, expect, is_finite

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class AugmentationOptions:
    """Probabilities and ranges of data augmentation. Probabilities are per patch by default.

    Attributes:
        planar_ratio: 3D patches with a longest axis above this multiple of axis 0 are rotated and scaled slice by slice.
        rotation_probability: Of a rotation.
        rotation_degrees: Largest angle about each axis of a 3D patch.
        planar_rotation_degrees: Largest angle in the plane, for 2D patches and for 3D ones treated slice by slice.
        elongated_ratio: 2D patches with sides further apart than this count as elongated ...
        elongated_rotation_degrees: ... and are rotated by no more than this.
        scale_probability: Of scaling.
        scale_range: Millimetres a patch voxel covers, relative to before; the same on all axes. Above 1 organs shrink.
        axis_scale_range: A further factor of each axis, drawn where scaling is.
        shear_probability: Of shearing.
        shear_degrees: Largest angle in each plane.
        elastic_probability: Of an elastic deformation: displaced control points of cubic B-splines.
        elastic_voxels: Largest displacement of a control point along each axis (at most 0.4 of their distance, so that nothing folds over).
        elastic_distribution: ``uniform``, or ``normal``: `elastic_voxels` is then the standard deviation.
        elastic_spacing: Voxels between control points.
        elastic_points: Control points along each axis of the patch, at least 4, instead of a spacing; 0 takes the spacing.
        distortion_probability: Of a grid distortion: steps along each axis become wider and narrower, the borders stay.
        distortion_steps: Along each axis.
        distortion_limit: Largest relative change of a step's width.
        translation_probability: Of a translation.
        translation_voxels: Largest, along each axis ...
        translation_share: ... plus this share of the patch.
        noise_probability: Of Gaussian noise on all channels.
        noise_std_range: Its standard deviation, in units of the normalised image.
        blur_probability: Of Gaussian blur.
        blur_channel_probability: Per channel, where blur was drawn.
        blur_sigma_range: Voxels, drawn for each axis.
        offset_probability: Of a number added to the grey values, one a channel.
        offset_limit: Largest, in units of the normalised image.
        brightness_probability: Of a factor on the grey values, one a channel.
        brightness_range: That factor; half of the draws are below 1.
        contrast_probability: Of stretching about the mean.
        contrast_range: Factor, one a channel; half of the draws are below 1.
        low_resolution_probability: Of the look of a coarser scan.
        low_resolution_channel_probability: Per channel, where it was drawn.
        low_resolution_range: Size of the coarse grid relative to the patch.
        inverted_gamma_probability: Of a gamma curve on the negative image.
        gamma_probability: Of a gamma curve.
        gamma_range: Exponent, one a channel; half of the draws are below 1.
        mirror_probability: Of a flip, for each axis that may be flipped.
        load_scale: `load_size` leaves room for magnified sources up to 1 / this.
    """

    planar_ratio: float = 3.0
    rotation_probability: float = 0.2
    rotation_degrees: float = 30.0
    planar_rotation_degrees: float = 180.0
    elongated_ratio: float = 1.5
    elongated_rotation_degrees: float = 15.0
    scale_probability: float = 0.2
    scale_range: Range = (0.7, 1.4)
    axis_scale_range: Range = (1.0, 1.0)
    shear_probability: float = 0.0
    shear_degrees: float = 10.0
    elastic_probability: float = 0.0
    elastic_voxels: float = 4.0
    elastic_distribution: str = "uniform"
    elastic_spacing: float = 32.0
    elastic_points: int = 0
    distortion_probability: float = 0.0
    distortion_steps: int = 5
    distortion_limit: float = 0.3
    translation_probability: float = 0.0
    translation_voxels: float = 0.0
    translation_share: float = 0.1
    noise_probability: float = 0.1
    noise_std_range: Range = (0.0, 0.1)
    blur_probability: float = 0.2
    blur_channel_probability: float = 0.5
    blur_sigma_range: Range = (0.5, 1.0)
    offset_probability: float = 0.0
    offset_limit: float = 0.2
    brightness_probability: float = 0.15
    brightness_range: Range = (0.75, 1.25)
    contrast_probability: float = 0.15
    contrast_range: Range = (0.75, 1.25)
    low_resolution_probability: float = 0.25
    low_resolution_channel_probability: float = 0.5
    low_resolution_range: Range = (0.5, 1.0)
    inverted_gamma_probability: float = 0.1
    gamma_probability: float = 0.3
    gamma_range: Range = (0.7, 1.5)
    mirror_probability: float = 0.5
    load_scale: float = 0.85

    def __post_init__(self) -> None:
        for item in fields(self):
            name, value = f"AugmentationOptions.{item.name}", getattr(self, item.name)
            if item.name.endswith("_range"):
                numbers = value if isinstance(value, tuple) and len(value) == 2 and is_finite(*value) else (1, 0)
                expect(0 <= numbers[0] <= numbers[1], name, "(low, high) with 0 <= low <= high", value)
            elif item.name.endswith("_probability"):
                expect(is_finite(value) and 0 <= value <= 1, name, "0..1", value)
            elif item.name != "elastic_distribution":
                check_least(name, value)
        if self.scale_range[0] <= 0 or self.axis_scale_range[0] <= 0 or self.blur_sigma_range[0] <= 0 or not 0 < self.load_scale <= 1:
            raise ValueError(
                "AugmentationOptions: scale_range, axis_scale_range, blur_sigma_range and load_scale must be above 0 (load_scale at most 1)"
            )
        _check_deformations(self)

    def on_grid(self, factor: float) -> AugmentationOptions:
        """The same distances in voxels of another grid, of which there are `factor` for each voxel of this one."""
        lengths = ("elastic_voxels", "elastic_spacing", "translation_voxels")
        return replace(self, **{name: getattr(self, name) * factor for name in lengths})


def _check_deformations(options: AugmentationOptions) -> None:
    name, points, steps = "AugmentationOptions", options.elastic_points, options.distortion_steps
    expect(
        options.elastic_distribution in ("uniform", "normal"),
        f"{name}.elastic_distribution",
        "'uniform' or 'normal'",
        options.elastic_distribution,
    )
    expect(isinstance(points, int) and (points == 0 or points >= 4), f"{name}.elastic_points", "0, or a whole number from 4 on", points)
    check_least(f"{name}.elastic_spacing", options.elastic_spacing, above=True)
    expect(isinstance(steps, int) and steps >= 1, f"{name}.distortion_steps", "a whole number from 1 on", steps)
    expect(options.distortion_limit < 1, f"{name}.distortion_limit", "a share below 1", options.distortion_limit)
    expect(options.shear_degrees < 90, f"{name}.shear_degrees", "an angle below 90 degrees", options.shear_degrees)


AUGMENTATION = frozenset(item.name for item in fields(AugmentationOptions))
"""Names of the options of augmentation, none of which is the name of another training option."""


def nested(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a training by name, with those of augmentation under ``augmentation``; lists, as JSON has them, as tuples."""
    plain: dict[str, Any] = {name: _as_value(value) for name, value in changes.items()}
    named: dict[str, Any] = {name: plain.pop(name) for name in changes if name in AUGMENTATION}
    given: Any = plain.get("augmentation", {})
    if isinstance(given, AugmentationOptions):
        return plain | {"augmentation": replace(given, **named)}
    expect(isinstance(given, Mapping), "augmentation", "options by name", given)
    inner = {name: _as_value(value) for name, value in given.items()} | named
    return plain | ({"augmentation": inner} if inner else {})


def _as_value(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options of optimisation, validation and augmentation.

    Attributes:
        loss: Name in `autoseg.trainers.losses.LOSSES`.
        optimizer: Name in `autoseg.trainers.optimizers.OPTIMIZERS`.
        learning_rate: At the start (after warm-up).
        momentum: Of ``sgd`` (Nesterov) and ``rmsprop`` (0 unless the user says otherwise).
        weight_decay: L2 penalty, or decoupled decay (``adamw``).
        schedule: Name in `autoseg.trainers.schedules.SCHEDULES`.
        plateau_patience: With the schedule ``plateau``: validation intervals without a new minimum of the smoothed validation loss ...
        plateau_factor: ... after each of which the learning rate is multiplied by this.
        plateau_smoothing: Weight of the past in the moving average of the validation loss, 0 (none) up to below 1.
        early_stopping: Validation intervals without a new minimum of it after which training ends; 0 uses the budget up.
        warmup: Share of the budget with a rising learning rate.
        gradient_clip: Largest norm of the gradient.
        relative_clip: Multiple of the moving average of that norm which it may not exceed either; 0 switches that off.
        class_weights: Of the cross entropy's classes: background's and every organ's, or background's and one an organ; empty: all 1.
        foreground: Share of a batch that must be centred on an organ.
        organ_slices: Take the other patches of slices from those that show an organ, anywhere in them; of volumes this is refused.
        case_sampling: Which cases patches come from: name in `autoseg.trainers.case_sampling.CASE_SAMPLINGS`.
        pseudo_share: Share of patches that come from images with pseudo-labels, where the run has some.
        average_decay: Decay of an exponential moving average of the weights, which then validates and predicts; 0 switches it off.
        deep_supervision: Loss on the decoder's coarser outputs too.
        supervision: How these count: name in `autoseg.trainers.losses.deep_supervision.SUPERVISIONS`.
        validation_batches: Batches of patches after every validation interval for the validation loss.
        validation_tiles: Tiles of whole held-out cases after every validation interval for the Dice that is shown.
        augmentation: Probabilities and ranges.
    """

    loss: str = "dice_ce"
    optimizer: str = "sgd"
    learning_rate: float = 1e-2
    momentum: float = 0.99
    weight_decay: float = 3e-5
    schedule: str = "poly"
    plateau_patience: int = 10
    plateau_factor: float = 0.1
    plateau_smoothing: float = 0.9
    early_stopping: int = 0
    warmup: float = 0.0
    gradient_clip: float = 12.0
    relative_clip: float = 0.0
    class_weights: tuple[float, ...] = ()
    foreground: float = 0.33
    organ_slices: bool = False
    case_sampling: str = "cases"
    pseudo_share: float = 0.5
    average_decay: float = 0.0
    deep_supervision: bool = True
    supervision: str = "deep"
    validation_batches: int = 50
    validation_tiles: int = 64
    augmentation: AugmentationOptions = field(default_factory=AugmentationOptions)

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate: expected a positive number, got {self.learning_rate}")
        for name in ("momentum", "warmup"):
            check_share(name, getattr(self, name))
        check_least("weight_decay", self.weight_decay)
        check_least("validation_batches", self.validation_batches, 1)
        check_least("validation_tiles", self.validation_tiles, 1)
        for weight in self.class_weights:
            check_least("class_weights", weight)
        if not isinstance(self.organ_slices, bool):
            raise ValueError(f"organ_slices: expected true or false, got {self.organ_slices!r}")
        for name in ("foreground", "pseudo_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected a share between 0 and 1, got {getattr(self, name)}")
        if not self.gradient_clip > 0 or not self.relative_clip >= 0:
            found = f"{self.gradient_clip} and {self.relative_clip}"
            raise ValueError(f"gradient_clip and relative_clip: expected a positive number, and 0 or more, got {found}")
        for name in ("average_decay", "plateau_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 0 (off) up to below 1, got {getattr(self, name)}")
        check_least("plateau_patience", self.plateau_patience, 1)
        check_least("early_stopping", self.early_stopping)
        if not 0 < self.plateau_factor < 1:
            raise ValueError(f"plateau_factor: expected a number between 0 and 1, got {self.plateau_factor}")
