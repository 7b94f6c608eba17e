"""The one place where pydicom parses a file: nothing is read beyond its end, and every error is a ValueError that names it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import pydicom
from pydicom import uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileDataset
from pydicom.tag import BaseTag, Tag

_VOXELS = Tag("PixelData")
_UNDEFINED = 0xFFFFFFFF
_GROUPS_AFTER_VOXELS = (0xFFFA, 0xFFFC)
"""Digital signatures and padding."""

warnings.filterwarnings("ignore", module=r"pydicom\.")  # of values that break a rule of DICOM and can be read all the same


class BoundedReader(io.BufferedReader):
    """A file whose `read` never takes memory for more bytes than are left, whatever a damaged header says."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.size = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(self.size - self.tell(), 0)
        return super().read(left if size is None or size < 0 else min(size, left))


@contextmanager
def dicom_errors(path: Path) -> Iterator[None]:
    """Makes a ValueError that begins with `path` of whatever a damaged file raises in pydicom."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # pydicom lets through whatever its parsing hits, RecursionError and MemoryError among them
        if str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path}: damaged DICOM file: {reason_of(error)}") from error


def reason_of(error: BaseException) -> str:
    """An error's message in one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def parse(stream: BoundedReader, keys: Sequence[str | int] = ()) -> FileDataset:
    """Parses a file from its start: the attributes `keys` of what stands before its voxels, or everything; raises what pydicom raises."""
    stream.seek(0)
    tags: list[BaseTag] = [Tag(key) for key in keys]
    return pydicom.dcmread(cast(BinaryIO, stream), stop_before_pixels=bool(keys), force=True, specific_tags=tags or None)


def is_cut_short(dataset: FileDataset, stream: BoundedReader) -> bool:
    """Whether a file that was parsed up to its end ends inside a value."""
    values = map(dataset.get_item, dataset.keys())  # as they were read: iterating would convert them
    return stream.tell() > stream.size or any(isinstance(one, RawDataElement) and one.length > len(one.value or b"") for one in values)


def check_end(dataset: FileDataset, stream: BoundedReader) -> None:
    """Raises a ValueError where something else than padding, signatures or whole private attributes follows the voxels: damaged."""
    tags = list(dataset.keys())
    after = tags[tags.index(_VOXELS) + 1 :] if _VOXELS in tags else []
    further = [tag for tag in after if tag.group not in _GROUPS_AFTER_VOXELS]
    odd = [tag for tag in further if not _is_private(tag, after)]
    if odd or (further and is_cut_short(dataset, stream)):
        raise ValueError(f"damaged: expected the file to end with its voxels, found {(odd or further)[0]} behind them")
    last = dataset.get_item(tags[-1]) if _VOXELS in tags and len(after) == len(further) else None
    if isinstance(last, RawDataElement) and last.length < _UNDEFINED and transfer_syntax(dataset) != uid.DeflatedExplicitVRLittleEndian:
        stream.seek(last.value_tell + last.length)
        if stream.read(8).strip(b"\0"):  # too few bytes for an element, which pydicom passes over
            raise ValueError("damaged: expected the file to end with its voxels, found other bytes behind them")


def _is_private(tag: BaseTag, after: Sequence[BaseTag]) -> bool:
    """Whether an attribute behind the voxels is a vendor's: it names its creator, or its creator is among them, too."""
    number = tag.element >> 8 or tag.element
    return tag.is_private and tag.group > _VOXELS.group and 0x10 <= number <= 0xFF and Tag(tag.group, number) in after


def encoding(dataset: FileDataset) -> tuple[bool, bool]:
    """Whether value representations are implicit, and whether numbers are little endian."""
    implicit, little = dataset.original_encoding
    return bool(implicit), bool(little)


def transfer_syntax(dataset: FileDataset) -> str:
    """The file's transfer syntax; where it does not say it (it has no preamble), the one it was parsed with."""
    implicit, little = encoding(dataset)
    parsed = uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
    return str(dataset.file_meta.get("TransferSyntaxUID") or parsed)
