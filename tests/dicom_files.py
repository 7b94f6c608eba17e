"""Writes small DICOM files: slices of a series, and enhanced files of several frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT, ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
AXIAL = (1, 0, 0, 0, 1, 0)
SPACING = (0.8, 0.7)


def stack(n: int = 6, gap: float = 2.5) -> list[tuple[float, float, float]]:
    """Positions of slices above each other."""
    return [(-5.0, -6.0, 10 + gap * k) for k in range(n)]


def voxels(n: int = 6, seed: int = 0) -> np.ndarray:
    """Stored values ``(n, 5, 6)``."""
    return np.random.default_rng(seed).integers(0, 4000, (n, 5, 6)).astype(np.int16)


def dataset(pixels: np.ndarray, **tags: Any) -> Dataset:
    """An image without a place; `tags` by keyword, None takes one away."""
    data = Dataset()
    defaults: dict[str, Any] = {
        "SOPClassUID": CT,
        "SOPInstanceUID": generate_uid(),
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.1",
        "PatientID": "p",
        "Modality": "CT",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[-2],
        "Columns": pixels.shape[-1],
        "BitsAllocated": 8 * pixels.itemsize,
        "BitsStored": 8 * pixels.itemsize,
        "HighBit": 8 * pixels.itemsize - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
    }
    for key, value in (defaults | tags).items():
        if value is not None:
            setattr(data, key, list(value) if isinstance(value, tuple) else value)
    if pixels.ndim == 3:
        data.NumberOfFrames = len(pixels)
    data.PixelData = pixels.tobytes()
    data["PixelData"].VR = "OW" if pixels.itemsize > 1 else "OB"
    return data


def save(path: Path, data: Dataset, syntax: str = ExplicitVRLittleEndian) -> Path:
    """Writes a dataset as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.save_as(path, enforce_file_format=True)
    return path


def write_slice(path: Path, pixels: np.ndarray, position: Sequence[float], **tags: Any) -> Path:
    """Writes one slice ``(Y, X)``."""
    place = {"ImagePositionPatient": list(position), "ImageOrientationPatient": list(AXIAL), "PixelSpacing": list(SPACING)}
    return save(path, dataset(pixels, **(place | {"SliceThickness": 2.5} | tags)))


def write_series(folder: Path, volume: np.ndarray, positions: Sequence[Sequence[float]], *, name: str = "s", **tags: Any) -> list[Path]:
    """Writes slices under names in the reverse of their order; a list among `tags` has a value for each slice,
    a tuple is one value."""
    each = [{key: value[k] if isinstance(value, list) else value for key, value in tags.items()} for k in range(len(volume))]
    return [
        write_slice(folder / f"{name}{len(volume) - k:03d}.dcm", volume[k], positions[k], **({"InstanceNumber": len(volume) - k} | each[k]))
        for k in range(len(volume))
    ]


def write_enhanced(
    path: Path, volume: np.ndarray, positions: Sequence[Sequence[float]], groups: Sequence[dict[str, Dataset]] = (), **tags: Any
) -> Path:
    """Writes an enhanced CT; `groups` are further functional groups of each frame by keyword."""
    shared = Dataset()
    shared.PlaneOrientationSequence = Items([item(ImageOrientationPatient=list(AXIAL))])
    shared.PixelMeasuresSequence = Items([item(SliceThickness=9.0, PixelSpacing=list(SPACING))])
    frames = []
    for k, position in enumerate(positions):
        frame = Dataset()
        frame.PlanePositionSequence = Items([item(ImagePositionPatient=list(position))])
        for key, group in (groups[k] if groups else {}).items():
            setattr(frame, key, Items([group]))
        frames.append(frame)
    sequences = {"SharedFunctionalGroupsSequence": Items([shared]), "PerFrameFunctionalGroupsSequence": Items(frames)}
    return save(path, dataset(volume, **({"SOPClassUID": ENHANCED_CT} | sequences | tags)))


def item(**values: Any) -> Dataset:
    """A dataset of attributes by keyword."""
    data = Dataset()
    for key, value in values.items():
        setattr(data, key, value)
    return data
