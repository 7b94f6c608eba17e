"""NIfTI-1 headers beyond ITK: orientation fields to the last digit, NaN voxels, and truncated files."""

from __future__ import annotations

import gzip
import math
import shutil
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np

HEADER_SIZE = 348
N_FIELDS = 25
_DIM, _TYPE, _BITPIX, _PIXDIM, _OFFSET, _UNITS, _FORMS = 40, 70, 72, 76, 108, 123, 252
_SROW = slice(13, 25)


def is_nifti(path: Path) -> bool:
    """True for names that end in .nii or .nii.gz."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def read_orientation(path: Path) -> tuple[float, ...]:
    """Units, pixdim[0..3], qform and sform codes, quaternion, offset and the three sform rows: 25 numbers, none but in NIfTI-1 files."""
    try:
        with _open(path) as stream:
            header = stream.read(HEADER_SIZE)
    except (OSError, EOFError):
        return ()
    order = _byte_order(header)
    if not order:
        return ()
    pixdim = struct.unpack_from(order + "4f", header, _PIXDIM)
    forms = struct.unpack_from(order + "2h18f", header, _FORMS)
    return tuple(float(value) for value in (header[_UNITS] & 7, *pixdim, *forms))


def patch_orientation(header: bytes, orientation: tuple[float, ...]) -> bytes:
    """The 348 header bytes with their orientation fields replaced by what `read_orientation` gave."""
    order = _byte_order(header)
    if not order or len(orientation) != N_FIELDS:
        raise ValueError(f"expected a NIfTI-1 header and {N_FIELDS} orientation fields, got {len(header)} bytes and {len(orientation)}")
    patched = bytearray(header)
    patched[_UNITS] = (patched[_UNITS] & ~7) | int(orientation[0])
    struct.pack_into(order + "4f", patched, _PIXDIM, *orientation[1:5])
    struct.pack_into(order + "2h18f", patched, _FORMS, int(orientation[5]), int(orientation[6]), *orientation[7:])
    return bytes(patched)


def copy_with_orientation(source: Path, target: Path, orientation: tuple[float, ...]) -> None:
    """Copies a NIfTI file; an empty `orientation` leaves its header as it is. The endings decide about compression.

    Equal content gives equal files: the gzip header carries neither name nor time.
    """
    with _open(source) as read, target.open("wb") as raw:
        header = read.read(HEADER_SIZE)
        if orientation:
            header = patch_orientation(header, orientation)
        if target.name.lower().endswith(".gz"):
            with gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed:
                packed.write(header)
                shutil.copyfileobj(read, packed, 1 << 20)
        else:
            raw.write(header)
            shutil.copyfileobj(read, raw, 1 << 20)


def is_cut_short(path: Path) -> bool:
    """True where a NIfTI-1 file ends before its last voxel; ITK reads such files without a word.

    Compressed files are unpacked for the answer only where the length in their last four bytes does not settle it.
    """
    try:
        with _open(path) as stream:
            header = stream.read(HEADER_SIZE)
        order = _byte_order(header)
        if not order:
            return False
        shape, start = _layout(header, order)
        expected = start + math.prod(shape) * struct.unpack_from(order + "h", header, _BITPIX)[0] // 8
        return _length(path, expected) < expected
    except (OSError, EOFError, zlib.error):
        return True


def float_voxels(path: Path) -> np.ndarray | None:
    """Voxels of a float NIfTI-1 file as they are stored, without its scale factor: ITK turns NaN and infinity into 0 when it reads.

    Axes are in array order, channels (the fourth axis) first; None for other number types and files.
    """
    with _open(path) as stream:
        header = stream.read(HEADER_SIZE)
        order = _byte_order(header)
        kind = {16: "f4", 64: "f8"}.get(struct.unpack_from(order + "h", header, _TYPE)[0]) if order else None
        if kind is None:
            return None
        shape, start = _layout(header, order)
        stream.seek(start)
        content = stream.read(math.prod(shape) * int(kind[1]))
    return np.frombuffer(content, order + kind).reshape(shape)


def skew(orientation: tuple[float, ...]) -> float:
    """How far the sform's axes are from orthogonal: largest cosine between two of them; 0 where there is no sform."""
    if not orientation or orientation[6] <= 0:
        return 0.0
    columns = _sform_columns(orientation)
    gram = columns.T @ columns
    return float(np.abs(gram - np.diag(np.diag(gram))).max())


def orthonormalised(orientation: tuple[float, ...]) -> tuple[float, ...]:
    """The orientation with the nearest orthogonal axes (polar decomposition) and pixdim as the only spacing."""
    u, _, vt = np.linalg.svd(_sform_columns(orientation))
    rows = np.array(orientation[_SROW]).reshape(3, 4)
    rows[:, :3] = (u @ vt) * np.array(orientation[2:5])
    fields = list(orientation)
    fields[5] = 0.0
    fields[_SROW] = rows.ravel().tolist()
    return tuple(fields)


def _sform_columns(orientation: tuple[float, ...]) -> np.ndarray:
    matrix = np.array(orientation[_SROW], float).reshape(3, 4)[:, :3]
    return matrix / np.maximum(np.linalg.norm(matrix, axis=0), 1e-12)


def _byte_order(header: bytes) -> str:
    if len(header) < HEADER_SIZE:
        return ""
    return next((order for order in "<>" if struct.unpack_from(order + "i", header)[0] == HEADER_SIZE), "")


def _layout(header: bytes, order: str) -> tuple[tuple[int, ...], int]:
    """Shape in array order, and the first byte of the voxels."""
    dim = struct.unpack_from(order + "8h", header, _DIM)
    return tuple(max(1, size) for size in dim[1 : dim[0] + 1])[::-1], int(struct.unpack_from(order + "f", header, _OFFSET)[0])


def _length(path: Path, expected: int) -> int:
    """Bytes of the (unpacked) content."""
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        size = raw.seek(0, 2)
        if not packed:
            return size
        raw.seek(-4, 2)
        if struct.unpack("<I", raw.read(4))[0] == expected % 2**32:
            return expected
    with gzip.open(path, "rb") as stream:
        return sum(len(block) for block in iter(lambda: stream.read(1 << 20), b""))


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as probe:
        packed = probe.read(2) == b"\x1f\x8b"
    if packed:
        return gzip.open(path, "rb")  # type: ignore[return-value]  # a GzipFile reads like any other binary file
    return path.open("rb")
