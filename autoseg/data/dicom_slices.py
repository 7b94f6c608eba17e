"""What is known of a DICOM file and of its frames; without pydicom, which is imported when the first header is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

NO_VOXELS = "no voxels (PixelData) after its header (an interrupted copy?)"
"""Fault of a file that ends in its header."""

DETAILS: dict[str | int, str] = {
    "TemporalPositionIdentifier": "time",
    "TemporalPositionIndex": "time",
    "TemporalPositionTimeOffset": "time",
    "StackID": "stack",
    "EchoNumbers": "echo",
    "EchoTime": "TE",
    "EffectiveEchoTime": "TE",
    "DiffusionBValue": "b",
    0x0019100C: "b",  # Siemens
    0x00431039: "b",  # GE
    "NominalPercentageOfCardiacPhase": "phase",
    "NominalCardiacTriggerDelayTime": "trigger",
    "TriggerTime": "trigger",
    "InversionTime": "TI",
    "FlipAngle": "flip",
    "ComplexImageComponent": "component",
    "ImageType": "type",
    "FrameType": "type",
    "KVP": "kV",
    "ConvolutionKernel": "kernel",
    "DiffusionGradientOrientation": "direction",
    "SequenceName": "sequence",
    "AcquisitionNumber": "acquisition",
    "FrameAcquisitionNumber": "acquisition",
    "FrameReferenceTime": "time",
    "FrameReferenceDateTime": "time",
    "FrameAcquisitionDateTime": "time",
    "AcquisitionDateTime": "time",
    "AcquisitionTime": "time",
    "ContentTime": "time",
    "InstanceNumber": "file",  # of several enhanced files
}
"""What may tell volumes of one series apart, the surest first, and how it is called in the names of their cases."""


@dataclass(frozen=True)
class Slice:
    """One frame of a file.

    Attributes:
        frame: Its number in the file, from 0.
        shape: Rows and columns.
        position: Of its first voxel, mm; None where the header has none, as `axes` (of rows, then of columns) and `spacing` (Y, X) may be.
        thickness: Spacing between slices, else slice thickness, mm; for volumes of one slice.
        rescale: Slope and intercept; None where the header has neither.
        kind: Photometric interpretation and the like, in which slices of one volume must agree.
        details: What may tell it from others at the same position, by the keys of `DETAILS`.
    """

    file: Path
    frame: int
    shape: tuple[int, int]
    position: tuple[float, ...] | None
    axes: tuple[float, ...] | None
    spacing: tuple[float, float] | None
    thickness: float
    rescale: tuple[float, float] | None
    kind: str
    details: dict[str | int, str]


@dataclass(frozen=True)
class DicomFile:
    """The header of a file.

    Attributes:
        number, description: Of its series, empty where unknown.
        slices: Its frames in the order of the file; empty where it is no image.
        skip: Why it is no image of a case (a localizer, a report); empty for images.
        fault: Why an image cannot be used (truncated, a broken header); empty where it can.
        picture: Why it is a picture or a film and no slice (colours, frames without positions); empty for slices.
    """

    path: Path
    instance: str
    series: str
    study: str
    patient: str
    number: str
    description: str
    slices: tuple[Slice, ...]
    skip: str = ""
    fault: str = ""
    picture: str = ""

    @property
    def is_cut_short(self) -> bool:
        """Whether its header may have ended before all of `series` was read."""
        return self.fault == NO_VOXELS
