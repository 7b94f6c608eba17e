"""Digests of this program's own files: what was damaged or edited is refused when it is read, never taken for what was written.

A JSON file holds its digest as its first entry; arrays and checkpoints end in a line with theirs, which their readers ignore. Files of
earlier versions have none and are read as they are. A digest tells damage; it is no signature, and says nothing about who wrote a file.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

from ..schema.conventions import FORMAT

DIGEST, VALUES = "digest", "values"
"""Entries of a JSON file: the digest, and what is a list and so has no entries itself."""

PREFIX = "sha256:"
MARK = b"\nautoseg sha256:"
SEAL_BYTES = len(MARK) + 64 + 1
"""Length of the line at the end of an array or checkpoint."""

READ_BYTES = 2**20

ZIP_END_BYTES = 22
"""Length of the record that ends a ZIP archive without a comment."""


def with_digest(plain: Any) -> dict[str, Any]:
    """Content that JSON can hold as a dictionary that begins with its digest; a list becomes the entry ``values``."""
    content = {key: value for key, value in plain.items() if key != DIGEST} if isinstance(plain, dict) else {VALUES: plain}
    return {DIGEST: _json_digest(content), **content}


def without_digest(data: Any, *, verify: bool = True) -> Any:
    """The content of a parsed JSON file, with or without a digest; a list is a list again.

    Args:
        verify: False takes edited content, too.

    Raises:
        ValueError: The content is not that of the digest.
    """
    if not isinstance(data, dict):
        return data
    content = {key: value for key, value in data.items() if key != DIGEST}
    looks_sealed = DIGEST in data or any(isinstance(value, str) and value.startswith(PREFIX) for value in content.values())
    if verify and looks_sealed and data.get(DIGEST) != _json_digest(content):
        raise ValueError('it was edited or damaged; if you edited it on purpose, remove its line "digest"')
    return content[VALUES] if content.keys() == {VALUES} else content


def is_edited(path: Path) -> bool:
    """Whether a JSON file with a format number is another than was written: its digest does not fit, or somebody removed it."""
    if not path.is_file():
        return False
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        without_digest(data)
        number = data.get("format")
    except (ValueError, AttributeError, RecursionError):
        return True
    return DIGEST not in data and isinstance(number, int) and number >= FORMAT  # version 0.1.0 wrote neither


def check_unedited(path: Path, command: str, *, overwrite: bool = False) -> None:
    """Raises a ValueError before `command` would replace a plan or choice that somebody edited, unless it may `overwrite` it."""
    if not overwrite and is_edited(path):
        raise ValueError(
            f"{path}: was edited or damaged after autoseg had written it, so it is not replaced; move it away, or replace it with "
            f"{command} --overwrite (overwrite=True)"
        )


def _json_digest(content: dict[str, Any]) -> str:
    return PREFIX + hashlib.sha256(json.dumps(content).encode()).hexdigest()


def seal(path: Path) -> None:
    """Appends the digest of a file to it; for formats whose readers ignore what follows their end (Blosc2 frames, ZIP archives)."""
    digest = _file_digest(path, path.stat().st_size)
    with path.open("ab") as stream:
        stream.write(MARK + digest + b"\n")


def seal_of(path: Path) -> str:
    """The digest at the end of a file, which is not verified; empty where it has none."""
    size = path.stat().st_size - SEAL_BYTES
    if size < 0:
        return ""
    with path.open("rb") as stream:
        stream.seek(size)
        line = stream.read()
    return line[len(MARK) :].decode(errors="replace").strip() if line.startswith(MARK) else ""


def sealed_bytes(path: Path) -> int | None:
    """Verifies the digest at the end of a file, and returns the size of what is before it; None for a file that has none.

    Raises:
        ValueError: The file is not what was written.
    """
    size = path.stat().st_size - SEAL_BYTES
    if size < 0:
        return None
    with path.open("rb") as stream:
        stream.seek(size)
        line = stream.read()
    if not line.startswith(MARK):
        return None
    if line[len(MARK) :] != _file_digest(path, size) + b"\n":
        raise ValueError("it was damaged after it was written: its content does not fit the digest at its end")
    return size


def check_archive(path: Path, sealed: int | None) -> None:
    """Refuses a ZIP archive (checkpoint, ``.npz``) with compressed entries (of any size), or one that goes on after its end.

    Args:
        sealed: `sealed_bytes` of the file.

    Raises:
        ValueError: It is another file than `torch.save` and `numpy.savez` write.
    """
    size = path.stat().st_size if sealed is None else sealed
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or sum(entry.file_size for entry in entries) > size:
            raise ValueError("expected uncompressed arrays, found others")
    with path.open("rb") as stream:
        stream.seek(size - ZIP_END_BYTES)
        if not stream.read(4) == b"PK\x05\x06":
            raise ValueError("expected the end of the archive at the end of the file")


def _file_digest(path: Path, size: int) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while size > 0 and (block := stream.read(min(size, READ_BYTES))):
            digest.update(block)
            size -= len(block)
    return digest.hexdigest().encode()
