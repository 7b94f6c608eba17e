"""The bytes of voxels from files, compressed or not: exactly as many as the header says, their checksum verified, in one pass.

ITK does not look at the checksums of gzip and zlib, and fills what is missing.
"""

from __future__ import annotations

import bz2
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

CHUNK = 1 << 20
"""Bytes that are read, or unpacked, at a time."""

MOST_EXPANSION = {"raw": 1, "gzip": 1032, "zlib": 1032, "bzip2": 1 << 20}
"""How many bytes one byte can become at most: what a header claims beyond that is refused before memory is taken for it."""

_UNPACKERS: dict[str, Callable[[], Any]] = {
    "gzip": lambda: zlib.decompressobj(wbits=31),
    "zlib": zlib.decompressobj,
    "bzip2": bz2.BZ2Decompressor,
}


@dataclass(frozen=True)
class Stream:
    """Where the bytes of an image lie.

    Attributes:
        file: That holds them.
        start: First byte in the file; of `is_whole_file_packed` in the unpacked content.
        encoding: ``raw``, ``gzip``, ``zlib`` or ``bzip2``.
        n_bytes: Of the voxels, unpacked.
        packed_bytes: In the file where it says so; None means up to its end.
        is_whole_file_packed: The header is compressed together with the voxels (``.nii.gz``).
    """

    file: Path
    start: int
    encoding: str
    n_bytes: int
    packed_bytes: int | None = None
    is_whole_file_packed: bool = False


def damaged(path: Path, what: str) -> ValueError:
    """The error for a file whose content is not what was written: what is wrong, and what to do."""
    return ValueError(f"{path}: cannot be read: {what}; the file is damaged or incomplete: copy or download it again")


def check_size(stream: Stream) -> None:
    """Raises a ValueError where the file cannot hold the voxels that its header claims; nothing is unpacked for that."""
    if not stream.file.is_file():
        raise ValueError(f"{stream.file}: cannot be read: expected the file with the voxels, found nothing")
    size, before = stream.file.stat().st_size, 0 if stream.is_whole_file_packed else stream.start
    packed = size - before if stream.packed_bytes is None else stream.packed_bytes
    expected = stream.n_bytes + (stream.start if stream.is_whole_file_packed else 0)
    if before + packed > size or expected > max(packed, 0) * MOST_EXPANSION[stream.encoding]:
        raise damaged(stream.file, f"the file ends before its last voxel: the header claims {expected} bytes, {max(packed, 0)} are there")
    if before + packed < size or (stream.encoding == "raw" and packed > expected):
        raise damaged(stream.file, f"the header claims {expected} bytes of voxels, {size - before} are there")


def read_stream(stream: Stream) -> np.ndarray:
    """All voxels as bytes ``(n_bytes,)``, unpacked, their checksum verified.

    Raises:
        ValueError: The file holds fewer or more bytes than `Stream.n_bytes`, or its checksum does not fit.
    """
    check_size(stream)
    if stream.encoding == "raw":
        return np.fromfile(stream.file, np.uint8, count=stream.n_bytes, offset=stream.start)
    skipped = stream.start if stream.is_whole_file_packed else 0
    content = np.empty(skipped + stream.n_bytes, np.uint8)
    filled = 0
    with stream.file.open("rb") as file:
        file.seek(0 if stream.is_whole_file_packed else stream.start)
        try:
            for block in _unpacked(file, stream):
                if filled + len(block) > len(content):
                    raise damaged(stream.file, f"more than the {len(content)} bytes that its header claims are there")
                content[filled : filled + len(block)] = np.frombuffer(block, np.uint8)
                filled += len(block)
        except (zlib.error, OSError, EOFError) as error:
            raise damaged(stream.file, f"its {stream.encoding} checksum or stream is wrong ({error})") from error
    if filled < len(content):
        raise damaged(stream.file, f"the file ends before its last voxel: expected {len(content)} bytes, found {filled}")
    return content[skipped:]


def _unpacked(file: IO[bytes], stream: Stream) -> Iterator[bytes]:
    """Blocks of the unpacked content of one or several members; what follows the last one may only be zeros (padding of tapes)."""
    unpacker, packed = _UNPACKERS[stream.encoding](), file.read(CHUNK)
    while True:
        block = unpacker.decompress(packed, CHUNK)
        yield block
        if unpacker.eof:
            packed = unpacker.unused_data.lstrip(b"\0")
            while not packed and (more := file.read(CHUNK)):
                packed = more.lstrip(b"\0")
            if not packed:
                return
            if stream.encoding == "zlib":
                raise damaged(stream.file, "other bytes follow its compressed voxels")
            unpacker = _UNPACKERS[stream.encoding]()
            continue
        packed = getattr(unpacker, "unconsumed_tail", b"")
        if not packed and getattr(unpacker, "needs_input", True):
            packed = file.read(CHUNK)
            if not packed and not block:
                raise damaged(stream.file, f"the file ends before its last voxel: its {stream.encoding} stream is cut short")
