"""The values that cross boundaries between the stages: small, frozen. Axis and spacing order, boxes and labels: `autoseg.conventions`."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

Box = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Geometry:
    """Where the voxels of an image lie in space.

    Attributes:
        shape: Voxels per axis, array order ``(Z, Y, X)`` or ``(Y, X)``.
        spacing: Millimetres per voxel, array order.
        origin: ITK's origin ``(x, y, z)``, verbatim.
        direction: ITK's direction cosines, row-major, verbatim.
        nifti: Orientation fields of the NIfTI header it came from (`autoseg.nifti_header`), empty for other formats. ITK rounds
            them when it writes; with these a label map gets its image's header to the last digit.
        oriented: False where nobody said how the axes lie in the patient (pictures, bare arrays): `direction` is made up then.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]
    nifti: tuple[float, ...] = field(default=(), compare=False, repr=False)
    oriented: bool = field(default=True, compare=False, repr=False)

    @property
    def dim(self) -> int:
        """Number of spatial axes, 2 or 3."""
        return len(self.shape)

    @property
    def lateral_axis(self) -> int:
        """Array axis that runs most nearly from the patient's right to left (ITK's world x)."""
        world_x = np.abs(np.asarray(self.direction, float).reshape(self.dim, self.dim)[0])
        return self.dim - 1 - int(np.argmax(world_x))


@dataclass(frozen=True)
class Image:
    """Voxels and where they lie.

    Attributes:
        array: ``(C, Z, Y, X)`` or ``(C, Y, X)`` for images, without ``C`` for label maps.
        geometry: Of the spatial axes.
        source: File or folder it was read from, for messages.
    """

    array: np.ndarray
    geometry: Geometry
    source: str = "array"


@dataclass(frozen=True)
class Labels:
    """The organs of a dataset and the integers that stand for them.

    Attributes:
        names: Organs (or regions) in the order of the output channels; background and ignore are not among them.
        members: For each name the file values that belong to it; more than one only for regions.
        ignore: File value of voxels nobody annotated, or None.
        regions: True where organs may overlap: one sigmoid channel each instead of a softmax.
        paint: Regions only: file value painted for each name, in order of painting (later ones on top).
    """

    names: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]
    ignore: int | None = None
    regions: bool = False
    paint: tuple[int, ...] = ()

    @cached_property
    def base_values(self) -> tuple[int, ...]:
        """Distinct foreground file values, ascending: internal value i+1 stands for ``base_values[i]``."""
        return tuple(sorted({value for member in self.members for value in member}))

    @cached_property
    def internal_members(self) -> tuple[tuple[int, ...], ...]:
        """`members` in internal values."""
        index = {value: i + 1 for i, value in enumerate(self.base_values)}
        return tuple(tuple(index[value] for value in member) for member in self.members)

    @property
    def internal_ignore(self) -> int | None:
        """Internal value of unannotated voxels, or None."""
        return None if self.ignore is None else len(self.base_values) + 1

    @property
    def n_outputs(self) -> int:
        """Channels of a network's output."""
        return len(self.names) if self.regions else len(self.names) + 1


@dataclass(frozen=True)
class Case:
    """One examination of a dataset.

    Attributes:
        name: Unique in the dataset.
        images: One file (or DICOM folder) a channel, or one file that holds all channels.
        label: Its label map, None for new cases.
        group: What must stay together in one fold: the patient; the case's own name where nothing was said.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None = None
    group: str = ""


@dataclass(frozen=True)
class Dataset:
    """A dataset folder as understood.

    Attributes:
        name: ``DatasetXXX_Name`` or the folder's own name.
        folder: Where it lies.
        channels: Channel names in order; they choose the normalisation.
        labels: Its organs.
        cases: The labelled training cases, sorted by name.
        file_ending: Of images without a better hint, with the dot.
    """

    name: str
    folder: Path
    channels: tuple[str, ...]
    labels: Labels
    cases: tuple[Case, ...]
    file_ending: str = ".nii.gz"


@dataclass(frozen=True)
class Intensity:
    """Foreground intensities of one channel over the dataset, in the file's units (HU for CT)."""

    mean: float
    median: float
    std: float
    min: float
    max: float
    percentile_00_5: float
    percentile_99_5: float


@dataclass(frozen=True)
class CaseFingerprint:
    """What planning needs to know of one case.

    Attributes:
        name: The case.
        shape: After cropping to non-zero, array order of the file.
        spacing: Array order of the file, mm.
        relative_size: Voxels after cropping / voxels before.
        lateral_axis: Array axis from right to left.
        voxels: Voxels of each organ in the label map, in the order of `Labels.names`.
        orientation: Of the file (`autoseg.orientation`), empty where it has none.
    """

    name: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    relative_size: float
    lateral_axis: int
    voxels: tuple[int, ...]
    orientation: str = ""


@dataclass(frozen=True)
class Fingerprint:
    """A dataset, measured."""

    cases: tuple[CaseFingerprint, ...]
    intensities: tuple[Intensity, ...]


@dataclass(frozen=True)
class Mirroring:
    """Which flips keep anatomy valid.

    Attributes:
        axes: Spatial axes of the patch that may be flipped.
        lateral_axis: The axis whose flip exchanges left and right, or None where no label has a side.
        pairs: Indices into `Labels.names` that change places under that flip.
    """

    axes: tuple[int, ...] = ()
    lateral_axis: int | None = None
    pairs: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Configuration:
    """One way to see the dataset: a resolution, a patch and a network.

    Attributes:
        name: ``2d``, ``3d_fullres``, ``3d_lowres`` or ``3d_cascade``.
        dim: Spatial axes of the network, 2 or 3.
        spacing: Target, mm, transposed axis order; two numbers for ``2d``.
        median_shape: Median case after resampling to `spacing`.
        patch_size: Voxels per axis that the network sees.
        batch_size: Patches a step, planned for the memory target.
        normalization: Scheme a channel (`autoseg.normalization.SCHEMES`).
        mask_normalization: Per channel: statistics and result inside the non-zero mask only.
        network: Name in `autoseg.networks.NETWORKS` or ``module:function``.
        network_options: Its keyword arguments (strides, kernel_sizes, features ...).
        batch_dice: Dice over the batch as one volume instead of per sample.
        mirroring: Valid flips, in axes of the patch.
        data: Folder of preprocessed data it reads (``3d_cascade`` reads ``3d_fullres``).
        previous_stage: Configuration whose segmentation is an extra input, or None.
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


@dataclass(frozen=True)
class Reason:
    """Why the planner chose a value: one row of the table it prints."""

    configuration: str
    what: str
    value: str
    why: str


@dataclass(frozen=True)
class Plan:
    """Everything training and prediction need to know about the dataset.

    Attributes:
        dataset: Its name.
        channels: Channel names in order.
        labels: Its organs.
        file_ending: Of written segmentations.
        transpose: Order in which the spatial axes of a file in the plan's orientation are arranged before anything else.
        intensities: Foreground statistics a channel.
        configurations: By name.
        reasons: One a choice.
        preset: Name of the planning preset.
        memory_gb: Memory target in GB.
        orientation: To which volumes are turned (`autoseg.orientation`): most cases' own; empty to take all as they lie.
    """

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

    def in_channels(self, configuration: Configuration) -> int:
        """Channels of the network's input: the image's plus, in a cascade, one per foreground label of the previous stage."""
        return len(self.channels) + (len(self.labels.base_values) if configuration.previous_stage else 0)


@dataclass(frozen=True)
class Trace:
    """What preprocessing did to a case, so that it can be undone exactly.

    All but `geometry` are in transposed axis order; 2D images count as one slice (three numbers, first of shape 1).

    Attributes:
        case: Name.
        geometry: Of the file.
        transpose: Order in which the file's spatial axes were arranged: as in `Plan`, after turning the file to the plan's orientation.
        shape_before_crop: After transposing.
        crop: Box kept, in transposed (and reversed) voxels.
        shape: After resampling: the shape of the stored array and of the logits.
        spacing: Millimetres after resampling; two numbers for 2D images.
        flips: Transposed axes that were reversed, to turn the file to the plan's orientation.
    """

    case: str
    geometry: Geometry
    transpose: tuple[int, ...]
    shape_before_crop: tuple[int, ...]
    crop: Box
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    flips: tuple[int, ...] = ()


@dataclass(frozen=True)
class Budget:
    """How long to train; the learning rate falls to zero exactly at its end.

    Attributes:
        kind: ``iterations`` or ``time``.
        amount: Steps, or seconds.
        rounds: Into how many equal parts it is cut for validation, history and checkpoints ("epochs").
        why: One sentence for the user: where the number comes from and how to change it.
    """

    kind: str
    amount: float
    rounds: int
    why: str = ""

    def __post_init__(self) -> None:
        if self.kind not in ("iterations", "time"):
            raise ValueError(f"Budget.kind: expected 'iterations' or 'time', got {self.kind!r}")
        if self.amount <= 0 or self.rounds < 1:
            raise ValueError(f"Budget: expected a positive amount and at least one round, got {self.amount} and {self.rounds}")

    def progress(self, iteration: int, seconds: float) -> float:
        """Share of the budget that is used, 0..1, after `iteration` steps and `seconds` of training."""
        return min(1.0, (iteration if self.kind == "iterations" else seconds) / self.amount)


@dataclass(frozen=True)
class Split:
    """Training and validation cases of one fold."""

    train: tuple[str, ...]
    val: tuple[str, ...]


@dataclass(frozen=True)
class Score:
    """Agreement of one organ in one case; `dice` and `iou` are NaN where the organ is absent from both.

    Attributes:
        case: Its name.
        organ: A name of `Labels.names`.
        dice: Dice coefficient, 0..1.
        iou: Intersection over union, 0..1.
        n_prediction: Voxels predicted.
        n_reference: Voxels in the reference.
        other: Further metrics by their name in `autoseg.evaluation.metrics.METRICS`.
    """

    case: str
    organ: str
    dice: float
    iou: float
    n_prediction: int
    n_reference: int
    other: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """A model, or several whose probabilities are averaged; members are folder names like ``3d_fullres__Trainer``."""

    members: tuple[str, ...]

    @property
    def name(self) -> str:
        """Readable name, also its key in tables."""
        return " + ".join(self.members)


@dataclass(frozen=True)
class Choice:
    """Which candidate segments which organ, and the evidence.

    Attributes:
        organs: Organ to the chosen candidate's members.
        folds: Names of the folds the evidence comes from and whose models vote.
        table: Candidate name -> organ -> mean Dice over the cross-validation.
        cases: Number of cases the table rests on.
        reasons: Organ to one sentence.
        by: Name of the rule that chose.
    """

    organs: dict[str, tuple[str, ...]]
    folds: tuple[str, ...]
    table: dict[str, dict[str, float]]
    cases: int
    reasons: dict[str, str] = field(default_factory=dict)
    by: str = "best_mean_dice"
