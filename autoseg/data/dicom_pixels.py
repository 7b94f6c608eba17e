"""Voxels of DICOM files: their layout is checked against the file before anything is read, then they are decoded and rescaled."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import SimpleITK as sitk
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import generate_frames, parse_basic_offsets
from pydicom.pixels import apply_modality_lut, get_decoder

from .dicom_parsing import BoundedReader, check_end, parse, transfer_syntax
from .dicom_slices import NO_VOXELS

NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian)
"""Transfer syntaxes without compression of the voxels."""

JPEG = (
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEGLSNearLossless,
    uid.JPEG2000Lossless,
    uid.JPEG2000,
)
"""Transfer syntaxes whose frames SimpleITK's GDCM decodes; pydicom itself decodes run lengths (RLE)."""

GREY = ("MONOCHROME1", "MONOCHROME2")
_LAYOUT = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)
_INTEGERS = (np.int16, np.int32, np.int64)
_RLE_RATIO = 64
"""Most bytes that one byte of run lengths stands for."""


def pixel_fault(header: Dataset, syntax: str, stream: BinaryIO, place: tuple[int, int] | int | None) -> str:
    """Why the voxels cannot be read as grey values, judged by header and size of the file; empty where they can.

    Args:
        place: Start and length (-1: undefined) of the voxels in `stream`; the length alone where they are not in it as they are (deflated).
    """
    if place is None:
        return NO_VOXELS
    allocated, stored = int(header.BitsAllocated), int(header.get("BitsStored") or header.BitsAllocated)
    high = header.get("HighBit")
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated or (high is not None and int(high) != stored - 1):
        return f"expected 8, 16 or 32 bits a voxel with the lowest in use, found {stored} of {allocated} bits, the highest number {high}"
    rows, columns, frames = int(header.Rows), int(header.Columns), int(header.get("NumberOfFrames") or 1)
    if min(rows, columns, frames) < 1:
        return f"no voxels: {rows} rows, {columns} columns, {frames} frames"
    expected = rows * columns * frames * allocated // 8
    if syntax in NATIVE:
        return _native_fault(expected, stream, place)
    if syntax not in JPEG and syntax != uid.RLELossless:
        return f"compressed as {uid.UID(syntax).name}, which cannot be read; decompress it first (dcmdjpeg, gdcmconv --raw)"
    if isinstance(place, int) or place[1] != -1:
        return "compressed voxels without their frames (fragments)"
    held, whole = _fragments(stream, place[0])
    if not whole:
        return "truncated: the file ends inside its compressed voxels"
    if syntax == uid.RLELossless and expected > _RLE_RATIO * held:
        return f"expected {expected} bytes of voxels, found {held} of run lengths"
    return ""


def _native_fault(expected: int, stream: BinaryIO, place: tuple[int, int] | int) -> str:
    if isinstance(place, int):
        length = held = place
    else:
        start, length = place
        held = min(stream.seek(0, 2) - start, length)
    if held < min(expected, length) or length < expected:
        return f"truncated: expected {expected} bytes of voxels, found {max(held, 0)}"
    if length > expected + 1:  # one of padding to an even number
        return f"expected {expected} bytes of voxels for its rows, columns and frames, found {length}"
    return ""


def _fragments(stream: BinaryIO, start: int) -> tuple[int, bool]:
    """Bytes of compressed voxels, and whether the file holds them up to their end mark."""
    end = stream.seek(0, 2)
    held = 0
    while start + 8 <= end:
        stream.seek(start)
        group, element, length = struct.unpack("<HHI", stream.read(8))
        if (group, element) == (0xFFFE, 0xE0DD):
            return held, True
        if (group, element) != (0xFFFE, 0xE000):
            break
        start += 8 + length
        held += length
    return held, False


def decode_file(path: Path, frames: Sequence[int], rescales: Sequence[tuple[float, float] | None]) -> list[np.ndarray]:
    """Reads frames of a file and brings them to the units of their rescale slopes (or of the file's modality lookup table).

    Returns:
        One array ``(Y, X)`` a frame: of the smallest signed integers where slope and intercept are integers, else float64.

    Raises:
        ValueError: The voxels are damaged, or their own size is not that of the header. Whatever pydicom raises also gets through.
    """
    with BoundedReader(path) as stream:
        dataset = parse(stream)
        check_end(dataset, stream)
    syntax = transfer_syntax(dataset)
    dataset.file_meta.TransferSyntaxUID = uid.UID(syntax)
    if syntax in JPEG:
        volume = _decode_jpeg(dataset, syntax)
    else:
        volume = get_decoder(syntax).as_array(dataset, raw=True)[0]
    count, rows, columns = int(dataset.get("NumberOfFrames") or 1), int(dataset.Rows), int(dataset.Columns)
    if volume.size != count * rows * columns:
        raise ValueError(f"expected {count} frames of {rows} x {columns} voxels, found {volume.size} voxels")
    volume = volume.reshape(count, rows, columns)
    if dataset.get("ModalityLUTSequence"):
        return [apply_modality_lut(volume[frame], dataset).astype(np.int32) for frame in frames]
    return [_rescaled(volume[frame], *(rescale or (1.0, 0.0))) for frame, rescale in zip(frames, rescales, strict=True)]


def _rescaled(stored: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    if slope.is_integer() and intercept.is_integer() and max(abs(slope), abs(intercept)) < 2**31:
        values = stored.astype(np.int64) * int(slope) + int(intercept)
        low, high = int(values.min()), int(values.max())
        return values.astype(next(kind for kind in _INTEGERS if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max))
    return stored * slope + intercept


def _decode_jpeg(dataset: Dataset, syntax: str) -> np.ndarray:
    """Stored values of a compressed file, by GDCM: it gets a file of nothing but the voxels, and so can scale and sort nothing."""
    count = int(dataset.get("NumberOfFrames") or 1)
    frames = list(generate_frames(dataset.PixelData, number_of_frames=count, extended_offsets=_offsets(dataset)))
    if len(frames) != count:
        raise ValueError(f"expected {count} compressed frames, found {len(frames)}")
    for frame in frames:
        if not frame.rstrip(b"\0").endswith(b"\xff\xd9"):
            raise ValueError("truncated: a compressed frame ends before its end mark")
        size = codestream_size(frame)
        if size != (dataset.Rows, dataset.Columns):
            raise ValueError(f"expected compressed frames of {dataset.Rows} x {dataset.Columns} voxels, found {size[0]} x {size[1]}")
    plain = Dataset()
    for key in _LAYOUT:
        if key in dataset:
            setattr(plain, key, dataset[key].value)
    plain.SOPClassUID, plain.SOPInstanceUID, plain.Modality = "1.2.840.10008.5.1.4.1.1.7.3", uid.generate_uid(), "OT"
    plain.NumberOfFrames = count
    plain.PixelData = dataset.PixelData
    plain["PixelData"].VR = "OB"
    plain["PixelData"].is_undefined_length = True
    plain.file_meta = FileMetaDataset()
    plain.file_meta.TransferSyntaxUID = uid.UID(syntax)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "voxels.dcm"
        plain.save_as(file, enforce_file_format=True)
        array: np.ndarray = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
    return array


def _offsets(dataset: Dataset) -> Any:
    """The extended table of offsets, where the file has one and no basic one."""
    if "ExtendedOffsetTable" in dataset and not parse_basic_offsets(dataset.PixelData):
        return dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths
    return None


def codestream_size(frame: bytes) -> tuple[int, int]:
    """Rows and columns that a compressed frame (JPEG, JPEG-LS or JPEG 2000) itself says; a ValueError where it says none."""
    if frame[:4] == b"\xff\x4f\xff\x51" and len(frame) >= 24:
        right, bottom, left, top = struct.unpack(">IIII", frame[8:24])
        return bottom - top, right - left
    place = 2
    while frame[:2] == b"\xff\xd8" and place + 9 <= len(frame) and frame[place] == 0xFF:
        marker, length = frame[place + 1], struct.unpack(">H", frame[place + 2 : place + 4])[0]
        if marker == 0xFF:
            place += 1
        elif marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            rows, columns = struct.unpack(">HH", frame[place + 5 : place + 9])
            return rows, columns
        else:
            place += 2 + length
    raise ValueError("a compressed frame is no JPEG: it does not say its size")
