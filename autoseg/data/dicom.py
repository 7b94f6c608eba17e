"""Finds the image series of a DICOM folder: its files in order, and its geometry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..schema import Geometry

MAX_GAP_DEVIATION = 0.05
"""Largest difference between a slice gap and the median gap, as a share of it."""

MAX_TILT_DEGREES = 0.1
"""Largest angle between the way from slice to slice and the slices' normal."""


@dataclass(frozen=True)
class Series:
    """The files of one series, sorted along the slice normal, and where their voxels lie."""

    files: tuple[str, ...]
    geometry: Geometry


def is_dicom_folder(path: Path) -> bool:
    """True where at least one file directly in the folder is DICOM (with its ``DICM`` mark, or an ending of DICOM's).

    A disc's table of contents (``DICOMDIR``) does not count: the series that it lists lie in folders of their own.
    """
    if not path.is_dir():
        return False
    return any(is_dicom_file(file) for file in sorted(path.iterdir()) if not file.name.startswith("."))


def read_series(folder: Path) -> Series:
    """Finds the folder's series and checks that it is a regular grid.

    Raises:
        ValueError: No series; several of equal size; slices missing, at uneven gaps or at the same position; gantry tilt.
    """
    files = _largest_series(folder)
    if len(files) == 1:
        header = _header(files[0])
        if header.GetDimension() != 3:
            raise ValueError(f"{folder}: expected a volume or a slice, found an image of {header.GetDimension()} axes in {files[0]}")
        shape, spacing = header.GetSize()[::-1], header.GetSpacing()[::-1]
        return Series(tuple(files), Geometry(shape, spacing, header.GetOrigin(), header.GetDirection()))
    headers = [_header(file) for file in files]
    first = headers[0]
    direction = np.array(first.GetDirection()).reshape(3, 3)
    normal = direction[:, 2]
    positions = np.array([header.GetOrigin() for header in headers])
    for file, header in zip(files, headers, strict=True):
        if header.GetSize() != first.GetSize() or not np.allclose(header.GetDirection(), first.GetDirection(), atol=1e-4):
            raise ValueError(
                f"{file}: expected the size {first.GetSize()} and orientation of the series' other slices, found {header.GetSize()}"
                f" with direction {np.round(header.GetDirection(), 4).tolist()}"
            )
    order = np.argsort(positions @ normal, kind="stable")
    gap = _regular_gap(folder, positions[order], normal)
    columns, rows = first.GetSize()[:2]
    geometry = Geometry(
        shape=(len(files), rows, columns),
        spacing=(gap, first.GetSpacing()[1], first.GetSpacing()[0]),
        origin=tuple(float(value) for value in positions[order[0]]),
        direction=tuple(float(value) for value in first.GetDirection()),
    )
    return Series(tuple(files[i] for i in order), geometry)


def is_dicom_file(file: Path) -> bool:
    """True for an existing file with an image's ``DICM`` mark or an ending of DICOM's."""
    if not file.is_file() or file.name.upper() == "DICOMDIR":
        return False
    if file.suffix.lower() in (".dcm", ".ima"):
        return True
    with file.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _largest_series(folder: Path) -> Sequence[str]:
    keys = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    series = {key: sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), key) for key in keys}
    if not series:
        raise ValueError(f"{folder}: expected a DICOM image series, found none")
    most = max(len(files) for files in series.values())
    largest = [key for key, files in series.items() if len(files) == most]
    if len(largest) > 1:
        listing = "; ".join(f"{key}: {len(files)} slices" for key, files in series.items())
        raise ValueError(f"{folder}: expected one largest series, found several of equal size ({listing}); put each into its own folder")
    return series[largest[0]]


def _header(file: str) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetFileName(file)
    reader.ReadImageInformation()
    return reader


def _regular_gap(folder: Path, positions: np.ndarray, normal: np.ndarray) -> float:
    """Millimetres from slice to slice; `positions` (N, 3) are sorted along `normal` (3,)."""
    along = positions @ normal
    gaps = np.diff(along)
    gap = float(np.median(gaps))
    if gaps.min() < 1e-3:
        raise ValueError(
            f"{folder}: expected one slice a position, found {int((gaps < 1e-3).sum())} slices at the position of another;"
            " several acquisitions in one series must be separated first"
        )
    worst = int(np.argmax(np.abs(gaps - gap)))
    if abs(gaps[worst] - gap) > MAX_GAP_DEVIATION * gap:
        raise ValueError(
            f"{folder}: expected even slice gaps of {gap:.4g} mm, found {gaps[worst]:.4g} mm between slices {worst + 1} and {worst + 2};"
            " slices are missing or unevenly spaced"
        )
    way = positions[-1] - positions[0]
    across = way - (way @ normal) * normal
    tilt = float(np.degrees(np.arctan2(np.linalg.norm(across), way @ normal)))
    if tilt > MAX_TILT_DEGREES:
        raise ValueError(
            f"{folder}: expected slices stacked along their normal, found a gantry tilt of {tilt:.2f} degrees"
            f" ({np.linalg.norm(across):.1f} mm over the series); resample it to a straight grid first"
        )
    return float((along[-1] - along[0]) / (len(along) - 1))
