"""Values that describe a dataset: its cases, organs and measurements."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from .conventions import FORMAT
from .names import check_different, check_ending, check_name, check_text
from .values import check_least, check_share, check_spacing, expect, is_finite


@dataclass(frozen=True)
class Labels:
    """The organs of a dataset and the integers that stand for them.

    Attributes:
        names: Organs (or regions) in the order of the output channels; background and ignore are not among them.
        members: For each name the file values that belong to it; more than one only for regions.
        ignore: File value of unannotated voxels, or None.
        regions: True where organs may overlap: one sigmoid channel each instead of a softmax.
        regions_class_order: Regions only: file value painted for each name, in order of painting (later ones on top).
    """

    names: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]
    ignore: int | None = None
    regions: bool = False
    regions_class_order: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        expect(len(set(self.names)) == len(self.names), "labels: names", "organs with different names", self.names)
        expect(len(self.members) == len(self.names), "labels: members", f"the values of {len(self.names)} organs", self.members)
        values = [value for member in self.members for value in member]
        expect(all(self.members) and all(value > 0 for value in values), "labels: members", "values above 0 for each organ", self.members)
        if not self.regions:
            single = all(len(member) == 1 for member in self.members) and len(set(values)) == len(values)
            expect(single, "labels: members", "one value of its own for each organ", self.members)
        expect(self.ignore is None or self.ignore > 0 and self.ignore not in values, "labels: ignore", "a value of its own", self.ignore)

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
        group: Patient, whose cases stay together in one fold; the case's name where none is given.
        annotated: Names of the organs (or regions) that are annotated in its label map, ``a + b`` for organs that are only together; None
            where all are (`autoseg.data.annotations`).
        digests: Content ids (`autoseg.runtime.provenance`) of `images` in order, then of `label`, as planning recorded them; empty before.
        nifti_geometry: ``sform`` or ``qform``: the reading of NIfTI headers that contradict themselves; None refuses the ambiguous ones.
        source: Dataset that it was merged from; empty where it was not.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None = None
    group: str = ""
    annotated: tuple[str, ...] | None = None
    digests: tuple[str, ...] = ()
    nifti_geometry: str | None = None
    source: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, "case")


@dataclass(frozen=True)
class Dataset:
    """A dataset as its ``dataset.json`` describes it.

    Attributes:
        name: ``DatasetXXX_Name`` or the folder's own name.
        channels: In order; their names choose the normalisation.
        cases: The labelled training cases, sorted by name.
        file_ending: Of images without a better hint, with the dot.
        windows: Organ to width and level of its CT window in HU, for organs with an entry in ``dataset.json``.
        tolerances: Organ to the tolerance of surface distances in mm, for organs with an entry in ``dataset.json``.
        unlabelled: Images without label maps (``imagesUn``), sorted by name: nothing is measured of them, planned by them or validated on
            them; pseudo-labels are made for them.
    """

    file_format: ClassVar[int] = FORMAT

    name: str
    folder: Path
    channels: tuple[str, ...]
    labels: Labels
    cases: tuple[Case, ...]
    file_ending: str = ".nii.gz"
    windows: dict[str, tuple[float, float]] = field(default_factory=dict)
    tolerances: dict[str, float] = field(default_factory=dict)
    unlabelled: tuple[Case, ...] = ()

    def __post_init__(self) -> None:
        check_name(self.name, "dataset")
        check_ending(self.file_ending)
        check_different((case.name for case in (*self.cases, *self.unlabelled)), f"case of {self.name}")
        for channel in self.channels:
            check_text(channel, "channel")

    @property
    def nifti_geometry(self) -> str | None:
        """`Case.nifti_geometry`, which all cases have in common."""
        return next((case.nifti_geometry for case in self.cases), None)


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

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            expect(is_finite(value), f"intensities: {name}", "a finite number", value)
        check_least("intensities: std", self.std)
        for low, high in ((self.min, self.max), (self.percentile_00_5, self.percentile_99_5)):
            expect(low <= high, "intensities", "a range that ascends", (low, high))


@dataclass(frozen=True)
class CaseFingerprint:
    """Measurements of one case that planning is based on.

    Attributes:
        shape: After cropping to non-zero, array order of the file.
        spacing: Array order of the file, mm.
        relative_size: Voxels after cropping / voxels before.
        lateral_axis: Array axis from right to left.
        voxels: Voxels of each organ in the label map, in the order of `Labels.names`.
        orientation: Of the file (`autoseg.preprocessing.orientation`), empty where it has none.
    """

    name: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    relative_size: float
    lateral_axis: int
    voxels: tuple[int, ...]
    orientation: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, "case")
        expect(all(size > 0 for size in self.shape), f"{self.name}: shape", "voxels above 0", self.shape)
        check_spacing(f"{self.name}: spacing", self.spacing, axes=[len(self.shape)])
        check_share(f"{self.name}: relative_size", self.relative_size)
        expect(0 <= self.lateral_axis < len(self.shape), f"{self.name}: lateral_axis", "an axis of the image", self.lateral_axis)
        expect(all(count >= 0 for count in self.voxels), f"{self.name}: voxels", "numbers from 0 on", self.voxels)


@dataclass(frozen=True)
class Fingerprint:
    """Measurements of a dataset: of its cases, and of the foreground intensities of its channels.

    `has_spacing` says whether the spacing of the images is known (`Geometry.has_spacing`); None in older files.
    """

    file_format: ClassVar[int] = FORMAT

    cases: tuple[CaseFingerprint, ...]
    intensities: tuple[Intensity, ...]
    has_spacing: bool | None = None

    def __post_init__(self) -> None:
        check_different((case.name for case in self.cases), "case")
