"""The plan of a dataset: its configurations and the reasons for them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from .conventions import FORMAT
from .dataset import Intensity, Labels
from .names import check_ending, check_name, check_text
from .settings import PlanSettings
from .values import check_axes, check_least, check_permutation, check_spacing, expect

MOST_VOXELS = 2**30
"""Of all patches of a batch: more than any device trains with, in one channel alone."""

MOST_OPTION = 4096
"""Largest number (of features, blocks ...) among the options of a network."""


ENSEMBLE = "ensemble"
"""Name of the configuration of learned ensembles; their model folders begin with it."""


@dataclass(frozen=True)
class Mirroring:
    """Flips that keep anatomy valid.

    Attributes:
        axes: Spatial axes of the patch that may be flipped.
        lateral_axis: The axis whose flip exchanges left and right, or None where no label has a side.
        pairs: Indices into `Labels.names` that change places under that flip.
    """

    axes: tuple[int, ...] = ()
    lateral_axis: int | None = None
    pairs: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        check_axes("mirroring: axes", self.axes, 3)
        places = [place for pair in self.pairs for place in pair]
        expect(len(set(places)) == len(places) and min(places, default=0) >= 0, "mirroring: pairs", "different organs", self.pairs)


@dataclass(frozen=True)
class CandidateRegion:
    """Candidate region of a coarse-to-fine cascade: patches, loss and prediction stay inside it, everything outside is background.

    Roth et al., Computerized Medical Imaging and Graphics 66 (2018).

    Attributes:
        source: ``body`` (the body mask of the image) or ``previous`` (the organs in the previous stage's segmentation).
        radius: Voxels of the configuration's grid by which `source` is dilated.
    """

    source: str
    radius: int = 0

    def __post_init__(self) -> None:
        if self.source not in ("body", "previous") or self.radius < 0:
            raise ValueError(f"region: expected 'body' or 'previous' and a radius of at least 0, got {self.source!r} and {self.radius}")


@dataclass(frozen=True)
class Locator:
    """Localisation network: sees the whole volume on a coarse grid and finds the box in which the organs are segmented.

    Thaler et al., FLARE challenge at MICCAI 2021.

    Attributes:
        spacing: Of the coarse grid, mm, transposed axis order.
        shape: Of the largest case on that grid, a multiple of 16 an axis.
        sigma: Of the Gaussian that smooths the image before, mm.
        margin: Voxels of the configuration's grid by which the box around its foreground is enlarged on each side.
        whole: The box is one input of the network, coarser where it is larger than the patch; False: tiles of the patch.
        most: Voxels of the coarse grid along each axis at the most: larger cases get a coarser one. Empty in files of earlier versions.
        network: Name in `autoseg.networks.NETWORKS` or ``module:function``; two outputs, background and any organ.
    """

    spacing: tuple[float, ...]
    shape: tuple[int, ...]
    sigma: float
    margin: int = 16
    network: str = "localisation_unet"
    network_options: dict[str, Any] = field(default_factory=dict)
    whole: bool = False
    most: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _check_voxels("shape of the locator's grid", self.shape)
        expect(len(self.most) in (0, len(self.shape)) and min(self.most, default=1) > 0, "locator: most", "voxels", self.most)
        check_spacing("locator: spacing", self.spacing, axes=[len(self.shape)])
        check_least("locator: sigma", self.sigma)
        check_least("locator: margin", self.margin)
        _check_options(self.network_options)


@dataclass(frozen=True)
class Tiling:
    """How the tiles of a sliding window lie, and how those that overlap are joined.

    Attributes:
        step: Distance of neighbouring tiles as a share of the patch; with 1 those of a plain mean do not overlap.
        mean: ``gaussian``: logits are averaged, each tile weighted by a Gaussian around its centre; ``plain``: probabilities are averaged,
            all voxels of a tile alike (Roth et al., Computerized Medical Imaging and Graphics 66, 2018, equation 5).
    """

    step: float = 0.5
    mean: str = "gaussian"

    def __post_init__(self) -> None:
        if not 0 < self.step <= 1:
            raise ValueError(f"step: expected a share of the patch in (0, 1], got {self.step}")
        expect(self.mean in ("gaussian", "plain"), "mean of tiles", "gaussian or plain", self.mean)


@dataclass(frozen=True)
class Configuration:
    """One configuration: a resolution, a patch size and a network.

    Attributes:
        name: ``2d``, ``2.5d``, ``3d_fullres``, ``3d_lowres`` or ``3d_cascade``.
        dim: Spatial axes of the network, 2 or 3.
        spacing: Target spacing in mm, transposed axis order; two numbers for ``2d``.
        median_shape: Median case after resampling to `spacing`.
        patch_size: Voxels per axis that the network segments at once.
        context: Voxels of surroundings that it sees beyond them at each side, per axis; empty where its input is the patch.
        batch_size: Patches per step, planned for the memory target.
        normalization: Scheme a channel (`autoseg.preprocessing.normalization.SCHEMES`).
        mask_normalization: Per channel: statistics and result inside the non-zero mask only.
        network: Name in `autoseg.networks.NETWORKS` or ``module:function``.
        network_options: Its keyword arguments (strides, kernel_sizes, features ...).
        batch_dice: Dice over the batch as one volume instead of per sample.
        mirroring: Valid flips, in axes of the patch.
        data: Folder of preprocessed data it reads (``3d_cascade`` reads ``3d_fullres``).
        previous_stage: Configuration whose segmentation is an input of this one, or None.
        previous_input: That segmentation is an extra input, one channel a foreground label.
        slice_axis: Of a 2D network on volumes: the axis, in transposed order, along which its slices follow each other.
        slices: Adjacent slices that a 2D network sees as channels, odd; the middle one is segmented (``2.5d``).
        region: Candidate region; None means the whole volume.
        patch_multiple: What the patch's axes stay multiples of when it is cut; empty where it follows from the network's strides.
        locator: Network that finds the box that is segmented; None means the whole volume.
        width: Factor on the planned number of features; less than 1 for a short time budget.
        center_crop: Pixels about the centre of a slice that are seen, of the image's own; empty means all (`preprocessing.slice_grids`).
        slice_shape: Pixels to which every slice is resampled in place of `spacing`; empty means none.
        sigmoid: Of a model of one organ: the network has one output, the organ's, with sigmoid; else one each for background and organs.
        tiling: Of whole volumes, in validation, and in prediction where no other is asked for.
    """

    name: str
    dim: int
    spacing: tuple[float, ...]
    median_shape: tuple[int, ...]
    patch_size: tuple[int, ...]
    batch_size: int
    normalization: tuple[str, ...]
    mask_normalization: tuple[bool, ...]
    network: str
    network_options: dict[str, Any]
    batch_dice: bool
    mirroring: Mirroring
    data: str
    previous_stage: str | None = None
    previous_input: bool = True
    slices: int = 1
    slice_axis: int = 0
    region: CandidateRegion | None = None
    patch_multiple: tuple[int, ...] = ()
    locator: Locator | None = None
    width: float = 1.0
    center_crop: tuple[int, ...] = ()
    slice_shape: tuple[int, ...] = ()
    sigmoid: bool = False
    context: tuple[int, ...] = ()
    tiling: Tiling = Tiling()

    def __post_init__(self) -> None:
        for name in (self.name, self.data, *([] if self.previous_stage is None else [self.previous_stage])):
            check_name(name, "configuration")
        _check_voxels(f"{self.name}: patch_size, batch_size and slices", (*self.patch_size, self.batch_size, self.slices))
        _check_options(self.network_options)
        if not 0 < self.width <= 1:
            raise ValueError(f"{self.name}: width: expected a factor above 0 and at most 1, found {self.width}")
        expect(self.dim in (2, 3), f"{self.name}: dim", "2 or 3 axes", self.dim)
        check_spacing(f"{self.name}: spacing", self.spacing, axes=[self.dim])
        expect(len(self.patch_size) == self.dim, f"{self.name}: patch_size", f"{self.dim} numbers", self.patch_size)
        expect(len(self.median_shape) == self.dim and min(self.median_shape) > 0, f"{self.name}: median_shape", "voxels", self.median_shape)
        schemes, masks = self.normalization, self.mask_normalization
        expect(len(schemes) == len(masks) > 0, f"{self.name}: mask_normalization", "one value for each scheme of normalization", masks)
        expect(self.slices % 2 == 1, f"{self.name}: slices", "an odd number", self.slices)
        expect(self.slice_axis in range(3), f"{self.name}: slice_axis", "an axis of a volume", self.slice_axis)
        check_axes(f"{self.name}: mirroring: axes", self.mirroring.axes, self.dim)
        for what, sizes in (("center_crop", self.center_crop), ("slice_shape", self.slice_shape)):
            expect(len(sizes) in (0, 2), f"{self.name}: {what}", "two numbers of pixels", sizes)
            _check_voxels(f"{self.name}: {what}", sizes)
        expect(len(self.context) in (0, self.dim) and min(self.context, default=0) >= 0, f"{self.name}: context", "voxels", self.context)
        multiple = self.patch_multiple
        expect(
            len(multiple) in (0, self.dim) and min(multiple, default=1) > 0, f"{self.name}: patch_multiple", "numbers from 1 on", multiple
        )

    @property
    def built_options(self) -> dict[str, Any]:
        """Keyword arguments of the network: `network_options` with the features times `width`, and that its input has surroundings."""
        options = self.network_options | ({"surrounded": True} if self.context else {})
        if self.width == 1:
            return options
        return options | {"features": [round(count * self.width) for count in self.network_options["features"]]}

    @property
    def input_size(self) -> tuple[int, ...]:
        """Voxels per axis of the network's input: the patch and its surroundings."""
        return tuple(size + 2 * more for size, more in zip(self.patch_size, self.context or (0,) * self.dim, strict=True))

    @property
    def sees_previous(self) -> bool:
        """Whether the previous stage's segmentation is an extra input."""
        return self.previous_stage is not None and self.previous_input


@dataclass(frozen=True)
class Reason:
    """A planned value and why it was chosen: one row of the table that planning prints."""

    configuration: str
    what: str
    value: str
    why: str


@dataclass(frozen=True)
class Plan:
    """Everything that training and prediction need to know about a dataset.

    Attributes:
        labels: The organs that are segmented.
        file_ending: Of written segmentations.
        transpose: Order in which the spatial axes of a file in the plan's orientation are arranged before anything else.
        intensities: Foreground statistics a channel.
        reasons: One a choice.
        memory_gb: Memory target.
        orientation: Orientation of preprocessed volumes (`autoseg.preprocessing.orientation`), that of most cases; empty keeps each file's.
        data_labels: The organs of the preprocessed label maps where those are more than `labels`: a model of some organs only.
        lateral_axis: Axis from right to left after transposing; None where the cases disagree, or in older plans.
        settings: Settings of the command, without the number of processes; None in plans of 0.1.0.
        has_spacing: Whether the spacing of the images is known (`Geometry.has_spacing`); None in older plans.
    """

    file_format: ClassVar[int] = FORMAT

    dataset: str
    channels: tuple[str, ...]
    labels: Labels
    file_ending: str
    transpose: tuple[int, ...]
    intensities: tuple[Intensity, ...]
    configurations: dict[str, Configuration]
    reasons: tuple[Reason, ...] = ()
    preset: str = "default"
    memory_gb: float = 8.0
    orientation: str = ""
    data_labels: Labels | None = None
    lateral_axis: int | None = None
    settings: PlanSettings | None = None
    has_spacing: bool | None = None

    def __post_init__(self) -> None:
        check_name(self.dataset, "dataset")
        check_ending(self.file_ending)
        for name in self.configurations:
            check_name(name, "configuration")
        for channel in self.channels:
            check_text(channel, "channel")
        check_permutation("transpose", self.transpose)
        axes, channels = len(self.transpose), len(self.channels)
        expect(channels > 0, "channels", "at least one", self.channels)
        expect(bool(self.labels.names), "labels", "at least one organ", self.labels.names)
        expect(bool(self.intensities), "intensities", "those of at least one channel", self.intensities)
        expect(self.lateral_axis is None or self.lateral_axis in range(axes), "lateral_axis", f"one of {axes} axes", self.lateral_axis)
        expect(
            not self.orientation or _is_orientation(self.orientation), "orientation", "a letter for each of three axes", self.orientation
        )
        check_least("memory_gb", self.memory_gb, above=True)
        for name, one in self.configurations.items():
            expect(one.name == name, f"configurations: {name}: name", name, one.name)
            if name != ENSEMBLE:  # its channels are its members' outputs
                expect(len(self.intensities) == channels, "intensities", f"those of {channels} channels", self.intensities)
                schemes = one.normalization
                expect(len(schemes) == channels, f"configurations: {name}: normalization", f"{channels} schemes", schemes)

    @property
    def stored_labels(self) -> Labels:
        """The organs of the preprocessed label maps."""
        return self.labels if self.data_labels is None else self.data_labels

    def order_of(self, configuration: Configuration) -> tuple[int, ...]:
        """As `transpose`, for preprocessed cases of one configuration: the axis of its slices first."""
        first = configuration.slice_axis
        return (self.transpose[first], *self.transpose[:first], *self.transpose[first + 1 :])

    def lateral_in(self, configuration: Configuration) -> int | None:
        """Axis of a configuration's patch from right to left: -1 where the patch lacks it, None where the cases disagree."""
        if self.lateral_axis is None:
            return None
        axes = sorted(range(len(self.transpose)), key=lambda axis: (axis != configuration.slice_axis, axis))
        return axes.index(self.lateral_axis) - (len(axes) - configuration.dim)

    def in_channels(self, configuration: Configuration) -> int:
        """Channels of the network's input: the slices' plus, in a cascade, one per foreground label of the previous stage."""
        return len(self.channels) * configuration.slices + (len(self.labels.base_values) if configuration.sees_previous else 0)


def _is_orientation(word: str) -> bool:
    """Whether a word has one letter of each of the patient's three axes."""
    return len(word) == 3 and all(len(set(word) & set(sides)) == 1 for sides in ("LR", "PA", "SI"))


def _check_voxels(what: str, sizes: Sequence[int]) -> None:
    """Refuses sizes that are no positive whole numbers, or of which no memory holds the product."""
    if any(type(size) is not int or size < 1 for size in sizes) or math.prod(sizes) > MOST_VOXELS:
        raise ValueError(f"{what}: expected whole numbers from 1 on with a product of at most {MOST_VOXELS}, found {tuple(sizes)}")


def _check_options(options: dict[str, Any]) -> None:
    """Refuses options of a network with a number that no network is built with."""
    for name, value in options.items():
        largest = max(map(abs, _numbers(value)), default=0)
        if not largest <= MOST_OPTION:
            raise ValueError(f"network_options: {name}: expected numbers up to {MOST_OPTION}, found {largest}")


def _numbers(value: Any) -> Iterator[float]:
    """All numbers in nested lists and dictionaries."""
    if isinstance(value, (list, tuple, dict)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _numbers(one)
    elif isinstance(value, (int, float)):
        yield value
