"""NIfTI-1 headers beyond ITK: their bytes, and their orientation fields to the last digit."""

from __future__ import annotations

import gzip
import shutil
import struct
import zlib
from pathlib import Path
from typing import IO

from .streams import damaged

HEADER_SIZE = 348
N_FIELDS = 25
_PIXDIM, _UNITS, _FORMS = 76, 123, 252


def is_nifti(path: Path) -> bool:
    """True for names that end in .nii or .nii.gz."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def read_orientation(path: Path) -> tuple[float, ...]:
    """Units, pixdim[0..3], qform and sform codes, quaternion, offset and the three sform rows: 25 numbers, none but in NIfTI-1 files."""
    try:
        with _open(path) as stream:
            header = stream.read(HEADER_SIZE)
    except (OSError, EOFError, zlib.error):
        return ()
    order = byte_order(header)
    if not order:
        return ()
    pixdim = struct.unpack_from(order + "4f", header, _PIXDIM)
    forms = struct.unpack_from(order + "2h18f", header, _FORMS)
    return tuple(float(value) for value in (header[_UNITS] & 7, *pixdim, *forms))


def patch_orientation(header: bytes, orientation: tuple[float, ...]) -> bytes:
    """The 348 header bytes with their orientation fields replaced by what `read_orientation` gave."""
    order = byte_order(header)
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


def read_header(path: Path) -> bytes:
    """The 348 bytes of a NIfTI-1 header, of a compressed or plain file whatever its name says; raises a ValueError for other files."""
    try:
        with _open(path) as stream:
            header = stream.read(HEADER_SIZE)
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, f"its header cannot be unpacked ({error})") from error
    if not byte_order(header) or header[344:348] != b"n+1\0":
        raise ValueError(
            f"{path}: cannot be read: expected a NIfTI-1 header (its first number 348, its last letters n+1), found another;"
            " the file is damaged, or of another format"
        )
    return header


def byte_order(header: bytes) -> str:
    """``<`` or ``>``, empty where the bytes are no NIfTI-1 header."""
    if len(header) < HEADER_SIZE:
        return ""
    return next((order for order in "<>" if struct.unpack_from(order + "i", header)[0] == HEADER_SIZE), "")


def is_packed(path: Path) -> bool:
    """Whether a file is compressed with gzip, by its first bytes."""
    with path.open("rb") as probe:
        return probe.read(2) == b"\x1f\x8b"


def _open(path: Path) -> IO[bytes]:
    if is_packed(path):
        return gzip.open(path, "rb")  # type: ignore[return-value]  # a GzipFile reads like any other binary file
    return path.open("rb")
