"""Reads the header of one DICOM file: what its frames show, where they lie, and what makes them unusable."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import uid
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset, FileDataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag

from .dicom_parsing import BoundedReader, dicom_errors, encoding, is_cut_short, parse, reason_of, transfer_syntax
from .dicom_pixels import GREY, pixel_fault
from .dicom_slices import DETAILS, DicomFile, Slice

_PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SpacingBetweenSlices", "SliceThickness")
_DETECTOR = ("ImagerPixelSpacing", "NominalScannedPixelSpacing")
"""Where projections say their spacing, at the detector or on the scanned film."""
_VALUES = ("RescaleSlope", "RescaleIntercept")
_FRAME_TAGS = frozenset([*_PLACE, *_DETECTOR, *_VALUES, *(key for key in DETAILS if isinstance(key, str))])
_PIXELS = ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit")
_SIZE = ("Rows", "Columns", "BitsAllocated")
_IDENTITY = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID", "SeriesDescription", "SeriesNumber")
_FUNCTIONAL_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_READ: list[str | int] = [
    *_FRAME_TAGS,
    *_PIXELS,
    *_IDENTITY,
    *_FUNCTIONAL_GROUPS,
    "PixelRepresentation",
    "ModalityLUTSequence",
    0x0019100C,
    0x00431039,
]
_DEPTH = 3
"""Sequences inside sequences of a frame's functional groups that are looked into."""

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_NO_IMAGE = re.compile(r"segmentation|rt dose|parametric map|presentation state|directory", re.IGNORECASE)


def read_header(path: Path) -> DicomFile:
    """Reads a file's header without its voxels.

    Raises:
        ValueError: It is no DICOM file that can be parsed, or ends inside its header.
    """
    with dicom_errors(path), BoundedReader(path) as stream:
        header = parse(stream, _READ)
        deflated = transfer_syntax(header) == uid.DeflatedExplicitVRLittleEndian
        if deflated:
            header = parse(stream)
        sop_class = str(header.file_meta.get("MediaStorageSOPClassUID") or header.get("SOPClassUID") or "")
        unknown = uid.UID(sop_class).name == sop_class and (not sop_class or not deflated and is_cut_short(header, stream))
        if unknown and "Rows" not in header:
            raise ValueError(f"{path}: damaged DICOM file: its header ends before it says what it holds (an interrupted copy?)")
        return _described(path, header, sop_class, stream, inside=deflated)


def _described(path: Path, header: FileDataset, sop_class: str, stream: BoundedReader, *, inside: bool) -> DicomFile:
    instance, series, study, patient, description, number = (str(header.get(key) or "").strip() for key in _IDENTITY[1:])
    skip, fault = _skip(header, sop_class), ""
    picture = "" if skip else _picture(header)
    slices: tuple[Slice, ...] = ()
    if not skip and not picture:
        try:
            place = len(header.PixelData) if inside else _pixel_place(header, stream)
            wrong = [key for key in _SIZE if not isinstance(header.get(key), int)] if place is not None else []
            if wrong:
                raise ValueError(f"expected {wrong[0]} to be a whole number, found {header.get(wrong[0])!r}")
            fault = pixel_fault(header, transfer_syntax(header), stream, place)
            slices = () if fault else _slices(path, header)
        except Exception as error:  # the series is known: its case is refused, not only this file
            fault = f"damaged header: {reason_of(error)}"
    if (fault or picture) and not header.get("ImagePositionPatient") and sop_class.startswith(_SECONDARY_CAPTURE):
        skip, fault, picture = f"a secondary capture ({fault or picture})", "", ""
    return DicomFile(path, instance, series, study, patient, number, description, slices, skip, fault, picture)


def _skip(header: FileDataset, sop_class: str) -> str:
    """Why a file is no image of a case, empty for images."""
    name = uid.UID(sop_class).name
    known = name != sop_class
    if (known and "Image" not in name) or _NO_IMAGE.search(name) or (not known and "Rows" not in header):
        return f"{name}, no image"
    types = [str(value).upper() for value in _listed(header.get("ImageType"))]
    if "LOCALIZER" in types:
        return "a localizer"
    if "MOSAIC" in types and "PerFrameFunctionalGroupsSequence" not in header:
        return "a mosaic of slices; convert it with dcm2niix"
    if (
        sop_class.startswith(_SECONDARY_CAPTURE)
        and "PerFrameFunctionalGroupsSequence" not in header
        and not header.get("ImagePositionPatient")
    ):
        return "a secondary capture without a position"
    return ""


def _picture(header: FileDataset) -> str:
    """Why a file is a picture in colours or a film, empty for slices."""
    kind = header.get("PhotometricInterpretation", "MONOCHROME2")
    if int(header.get("SamplesPerPixel") or 1) != 1 or kind not in GREY:
        return f"colours ({header.get('PhotometricInterpretation')}); expected grey values (MONOCHROME2)"
    frames = int(header.get("NumberOfFrames") or 1)
    if frames > 1 and not header.get("PerFrameFunctionalGroupsSequence"):
        return f"{frames} frames without positions (a film or a screen capture?); expected one slice a file, or an enhanced image"
    return ""


def _pixel_place(header: FileDataset, stream: BoundedReader) -> tuple[int, int] | None:
    """Start and length (-1 where undefined) of the value of PixelData, at which the reading of the header stopped; None: there is none."""
    implicit, little = encoding(header)
    order = "<" if little else ">"
    start = stream.tell()
    head = stream.read(12)
    if len(head) < 12 or struct.unpack(f"{order}HH", head[:4]) != (0x7FE0, 0x0010):
        return None
    explicit = not implicit
    if explicit and head[4:6] not in (b"OB", b"OW", b"UN"):
        return None
    length = struct.unpack(f"{order}I", head[8:12] if explicit else head[4:8])[0]
    return start + (12 if explicit else 8), -1 if length == 0xFFFFFFFF else length


def _slices(path: Path, header: FileDataset) -> tuple[Slice, ...]:
    frames = int(header.get("NumberOfFrames") or 1)
    shared = _flat(header.get("SharedFunctionalGroupsSequence"), 0)
    each = header.get("PerFrameFunctionalGroupsSequence") or []
    if len(each) not in (0, frames):
        raise ValueError(f"expected a description of each of its {frames} frames, found {len(each)}")
    top = _frame_values(header)
    if frames == 1:
        top.pop("InstanceNumber", None)  # of every slice another
    if not each:
        return (_slice(path, 0, header, top | shared),)
    return tuple(_slice(path, i, header, top | shared | _flat([item], 0)) for i, item in enumerate(each))


def _flat(items: Any, depth: int) -> dict[str | int, Any]:
    """The attributes of a frame's functional groups (of their first items) by keyword."""
    found: dict[str | int, Any] = {}
    if items and depth <= _DEPTH:
        for tag in sorted(items[0].keys()):
            with _naming(tag):
                value = items[0][tag].value
            if items[0][tag].VR == "SQ":
                found |= _flat(value, depth + 1)
        found |= _frame_values(items[0])
    return found


def _frame_values(item: Dataset) -> dict[str | int, Any]:
    """What an item says of a frame: by keyword, private attributes by their number."""
    found: dict[str | int, Any] = {}
    for tag in sorted(item.keys()):
        key = keyword_for_tag(tag) or int(tag)
        if key in _FRAME_TAGS or key in DETAILS:
            with _naming(tag):
                found[key] = item[tag].value
    return found


@contextmanager
def _naming(tag: BaseTag) -> Iterator[None]:
    """Names the attribute whose value pydicom cannot convert; it reads values when they are asked for."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"expected a valid {keyword_for_tag(tag) or tag}, found another ({reason_of(error)})") from error


def _slice(path: Path, frame: int, header: FileDataset, values: Mapping[str | int, Any]) -> Slice:
    position, axes, spacing = (_numbers(values.get(key), key, n) for key, n in zip(_PLACE, (3, 6, 2)))
    if axes is not None:
        row, column = np.array(axes[:3]), np.array(axes[3:])
        if max(abs(np.linalg.norm(row) - 1), abs(np.linalg.norm(column) - 1), abs(row @ column)) > 1e-3:
            raise ValueError(f"expected ImageOrientationPatient to be two unit vectors at a right angle, found {list(axes)}")
    if spacing is None and position is None:
        spacing = next((found for key in _DETECTOR if (found := _numbers(values.get(key), key, 2))), None)
    if spacing is not None and min(spacing) <= 0:
        raise ValueError(f"expected a positive PixelSpacing, found {list(spacing)}")
    between = [_numbers(values.get(key), key, 1) for key in _PLACE[3:]]
    thickness = next((abs(number[0]) for number in between if number and number[0]), 1.0)
    given = [_numbers(values.get(key), key, 1) for key in _VALUES]
    slope, intercept = (number[0] if number else default for number, default in zip(given, (1.0, 0.0)))
    if not slope:
        raise ValueError("RescaleSlope is 0: every voxel would have one value")
    return Slice(
        path,
        frame,
        (int(header.Rows), int(header.Columns)),
        position,
        axes,
        (spacing[0], spacing[1]) if spacing else None,
        thickness,
        (slope, intercept) if any(given) else None,
        f"{header.get('PhotometricInterpretation', '')}{' with a lookup table' if header.get('ModalityLUTSequence') else ''}".strip(),
        {key: "\\".join(map(str, _listed(values[key]))) for key in DETAILS if values.get(key) not in (None, "")},
    )


def _numbers(value: Any, key: str, count: int) -> tuple[float, ...] | None:
    """A header's numbers; None where it has none, a ValueError where they are no `count` finite numbers."""
    if value is None or value == "" or value == []:
        return None
    try:
        numbers = tuple(float(one) for one in _listed(value))
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise ValueError(f"expected {key} to be {count} finite numbers, found {value!r}")
    return numbers


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (MultiValue, list, tuple)) else [] if value is None else [value]
