"""Headers of MetaImage and NRRD files: how their voxels are stored, so that they are read with their checksum and exact length."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .raster_checks import check_metaimage, check_metaimage_axes, check_nrrd
from .streams import Stream, check_size, damaged, read_stream

FORMATS = (".mha", ".mhd", ".nrrd", ".seg.nrrd")

_LONGEST_HEADER = 1 << 20
_META_KEYS = (
    "ObjectType", "ObjectSubType", "TransformType", "NDims", "Name", "ID", "ParentID", "CompressedData", "CompressedDataSize",
    "CompressionLevel", "Color", "Position", "Orientation", "AnatomicalOrientation", "ElementSpacing", "BinaryData",
    "BinaryDataByteOrderMSB", "ElementByteOrderMSB", "Comment", "AcquisitionDate", "Offset", "Origin", "TransformMatrix", "Rotation",
    "CenterOfRotation", "DistanceUnits", "DimSize", "HeaderSize", "Modality", "SequenceID", "ElementMin", "ElementMax",
    "ElementNumberOfChannels", "ElementSize", "ElementNBits", "ElementToIntensityFunctionSlope", "ElementToIntensityFunctionOffset",
    "ElementType", "ElementDataFile",
)  # fmt: skip
_META_TYPES = {
    "CHAR": "i1", "UCHAR": "u1", "SHORT": "i2", "USHORT": "u2", "INT": "i4", "UINT": "u4", "LONG_LONG": "i8", "ULONG_LONG": "u8",
    "LONG": "i4", "ULONG": "u4", "FLOAT": "f4", "DOUBLE": "f8",
}  # fmt: skip
_META_NUMBERS = {
    **dict.fromkeys(("ElementSpacing", "ElementSize", "Offset", "Position", "Origin"), 1),
    **dict.fromkeys(("TransformMatrix", "Rotation", "Orientation"), 2),
    **dict.fromkeys(("ElementToIntensityFunctionSlope", "ElementToIntensityFunctionOffset"), 0),
}
"""Fields of numbers: as many as the image has axes, raised to this power."""

_NRRD_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_NRRD_SYNONYMS = {"datafile": "data file", "byteskip": "byte skip", "lineskip": "line skip"}
_NRRD_ENCODINGS = {"raw": "raw", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}


@dataclass(frozen=True)
class StoredVoxels:
    """How the voxels of a file are stored.

    Attributes:
        kind: Of the numbers, with their byte order.
        sizes: Of all axes in the order of the file, the fastest first; interleaved components are the first of them.
        stream: Where they are; None where they are written as text, which `text` holds.
    """

    kind: np.dtype
    sizes: tuple[int, ...]
    stream: Stream | None
    text: bytes = b""

    def read(self, source: Path) -> np.ndarray:
        """The numbers in the order of the file, the slowest axis first, in this machine's byte order; ValueErrors as `read_stream`."""
        if self.stream is None:
            words = self.text.split()
            if len(words) != math.prod(self.sizes):
                raise damaged(source, f"expected {math.prod(self.sizes)} numbers, found {len(words)}")
            try:
                return np.array([float(word) for word in words]).astype(self.kind).reshape(self.sizes[::-1])
            except ValueError as error:
                raise damaged(source, f"its voxels are no numbers ({error})") from error
        array = read_stream(self.stream).view(self.kind).reshape(self.sizes[::-1])
        return array.astype(self.kind.newbyteorder("="), copy=False)


def read_stored(path: Path) -> StoredVoxels:
    """Reads from the header of a MetaImage or NRRD file how its voxels are stored, and whether the file can hold them."""
    try:
        stored = _nrrd(path) if path.name.lower().endswith(".nrrd") else _metaimage(path)
    except (KeyError, IndexError, ValueError, OverflowError) as error:
        if str(path) in str(error) or "cannot be read" in str(error):
            raise
        reason = f"the field {error} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path}: cannot be read: its header is damaged, or of another format ({reason})") from error
    if stored.stream is not None:
        if not stored.stream.file.is_file():
            raise ValueError(
                f"{path}: cannot be read: expected its voxels in {stored.stream.file}, as its header says; found nothing there"
            )
        try:
            check_size(stored.stream)
        except ValueError as error:
            raise error if stored.stream.file == path else ValueError(f"{path}: {error}") from error
    return stored


def check_axes(path: Path) -> None:
    """Raises a ValueError where a MetaImage header says axes that are not orthonormal (those of an NRRD are as ITK reads them)."""
    if path.name.lower().endswith((".mha", ".mhd")):
        check_metaimage_axes(path, _meta_fields(path)[0])


def data_file(path: Path) -> Path | None:
    """The second file in which a MetaImage or NRRD header says that its voxels are; None for other files and damaged headers."""
    is_nrrd = path.name.lower().endswith(".nrrd")
    if not path.name.lower().endswith(FORMATS) or not path.is_file():
        return None
    try:
        name = _nrrd_fields(path)[0].get("data file", "LOCAL") if is_nrrd else _meta_fields(path)[0]["ElementDataFile"]
    except (ValueError, OSError):
        return None
    return None if name.upper() == "LOCAL" else path.parent / name


def _metaimage(path: Path) -> StoredVoxels:
    fields, start = _meta_fields(path)
    n_axes = int(fields["NDims"])
    sizes = _positive(path, "DimSize", fields["DimSize"].split(), n_axes)
    for name, power in _META_NUMBERS.items():
        if name in fields:
            _finite(path, name, fields[name].split(), n_axes**power)
    check_metaimage(path, fields)
    n_components = int(fields.get("ElementNumberOfChannels", "1"))
    order = ">" if _is_true(fields.get("ElementByteOrderMSB", fields.get("BinaryDataByteOrderMSB", "False"))) else "<"
    kind = np.dtype(order + _META_TYPES[fields["ElementType"].removeprefix("MET_").removesuffix("_ARRAY")])
    sizes = sizes if n_components == 1 else (n_components, *sizes)
    name = fields["ElementDataFile"]
    if name.split()[0] == "LIST" or "%" in name:
        raise ValueError(f"{path}: cannot be read: expected the voxels in one file, found a list of files ({name}); write it as one .mha")
    n_bytes = math.prod(sizes) * kind.itemsize
    file, start = (path, start) if name.upper() == "LOCAL" else (path.parent / name, 0)
    if not _is_true(fields.get("BinaryData", "True")):
        return StoredVoxels(kind, sizes, None, file.read_bytes()[start:])
    header = int(fields.get("HeaderSize", "0"))
    start = file.stat().st_size - n_bytes if header == -1 and file.is_file() else start + max(header, 0)
    if not _is_true(fields.get("CompressedData", "False")):
        return StoredVoxels(kind, sizes, Stream(file, start, "raw", n_bytes))
    packed = int(fields["CompressedDataSize"]) if "CompressedDataSize" in fields else None
    return StoredVoxels(kind, sizes, Stream(file, start, "zlib", n_bytes, packed or None))


def _meta_fields(path: Path) -> tuple[dict[str, str], int]:
    """Fields of a MetaImage header, and the first byte after it; a misspelled field, which MetaIO overlooks, is a ValueError."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        while "ElementDataFile" not in fields:
            line = file.readline(_LONGEST_HEADER)
            key, equals, value = (part.strip() for part in line.decode("latin-1").partition("="))
            if not line or b"\0" in line or (line.strip() and not equals):
                raise damaged(path, f"its header ends in {line[:40]!r} instead of ElementDataFile")
            meant = [] if key in _META_KEYS else difflib.get_close_matches(key, _META_KEYS, 1, 0.8)
            if meant:
                raise ValueError(f"{path}: cannot be read: unknown field {key!r} in its header; is {meant[0]} meant?")
            if key:
                fields[key] = value
        return fields, file.tell()


def _nrrd(path: Path) -> StoredVoxels:
    fields, start, is_attached = _nrrd_fields(path)
    kinds = [kind for kind, names in _NRRD_TYPES.items() if fields["type"].lower() in names]
    if not kinds:
        raise ValueError(f"voxels of integers or real numbers are read, found type {fields['type']}")
    sizes = _positive(path, "sizes", fields["sizes"].split(), int(fields["dimension"]))
    check_nrrd(path, fields, len(sizes))
    kind = np.dtype(({"big": ">", "little": "<"}[fields["endian"].lower()] if kinds[0][1] != "1" else "|") + kinds[0])
    encoding = fields["encoding"].lower()
    name = fields.get("data file", "")
    if name.split()[:1] == ["LIST"] or "%" in name:
        raise ValueError(f"{path}: cannot be read: expected the voxels in one file, found several ({name}); write it as one .nrrd")
    file = path if is_attached else path.parent / name
    n_bytes = math.prod(sizes) * kind.itemsize
    if encoding in ("text", "txt", "ascii"):
        return StoredVoxels(kind, sizes, None, file.read_bytes()[start:])
    skip = int(fields.get("byte skip", "0"))
    if int(fields.get("line skip", "0")) or (skip and encoding != "raw") or encoding not in _NRRD_ENCODINGS:
        raise ValueError(f"encoding {encoding} with skipped lines or bytes is not read; write it anew as raw or gzip")
    start = file.stat().st_size - n_bytes if skip == -1 and file.is_file() else start + skip
    return StoredVoxels(kind, sizes, Stream(file, start, _NRRD_ENCODINGS[encoding], n_bytes))


def _nrrd_fields(path: Path) -> tuple[dict[str, str], int, bool]:
    """Fields of an NRRD header in lower case, the first byte of its voxels, and whether they are in the same file."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        if not file.readline(16).startswith(b"NRRD000"):
            raise ValueError(f"{path}: cannot be read: expected an NRRD file, which begins with NRRD000, found another")
        while line := file.readline(_LONGEST_HEADER):
            text = line.decode("latin-1").strip()
            if not text:
                break
            if "\0" in text:
                raise damaged(path, "its header holds bytes that are no text")
            name, colon, value = text.partition(":")
            if not text.startswith("#") and colon and not value.startswith("="):
                fields[_NRRD_SYNONYMS.get(name.lower(), name.lower())] = value.strip()
        is_attached = "data file" not in fields
        return fields, file.tell() if is_attached else 0, is_attached


def _positive(path: Path, name: str, words: Sequence[str], count: int) -> tuple[int, ...]:
    numbers = tuple(int(word) for word in words)
    if len(numbers) != count or not numbers or min(numbers) < 1:
        raise ValueError(f"{path}: cannot be read: expected {count} numbers above 0 in the field {name} of its header, found {numbers}")
    return numbers


def _finite(path: Path, name: str, words: Sequence[str], count: int) -> None:
    numbers = [float(word) for word in words]
    if len(numbers) != count or not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"{path}: cannot be read: expected {count} finite numbers in the field {name} of its header, found {numbers}")


def _is_true(word: str) -> bool:
    return word[:1].lower() in ("t", "1", "y")
