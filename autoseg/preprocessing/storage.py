"""Storage of preprocessed cases in blocks, so that a patch is read without its volume; incomplete cases do not count.

A case is four files: ``NAME.image.b2nd`` and ``NAME.labels.b2nd`` (compressed in small blocks), ``NAME.locations.npz`` (where its organs
lie) and, written last, ``NAME.trace.json``: a case whose trace is missing is not there.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runtime.locks import remove_partial_files
from ..runtime.provenance import Stamp, file_id
from ..runtime.sealing import SEAL_BYTES, check_archive, seal, sealed_bytes
from ..runtime.serialization import atomic_write, read_json, write_json
from ..schema import Trace
from ..schema.conventions import ANNOTATED
from ..schema.names import check_name

if TYPE_CHECKING:
    import blosc2  # imported where files are opened: who only predicts needs none
    from numpy.lib.npyio import NpzFile

BLOCK_BYTES = 128 * 1024
"""Smallest unit that is decompressed: fits the second-level cache of a core."""

CHUNK_BYTES = 6 * 1024**2
"""Largest run of blocks stored together."""

CHUNK_OVER_PATCH = 1.5
"""A chunk is at most this much longer than the patch along each axis: beyond it reading fetches what is not needed."""

USUAL_PATCH = (64, 128, 128)
"""Patch size that blocks are made for where none is given."""

MOST_CHUNK_BYTES = 2**28
"""A larger chunk is not of this program: one is decompressed at once."""

MOST_BYTES = 2**37
"""Of an array: eight channels of 1600 voxels an axis."""

DTYPES = ("float32", "float16", "int16", "int32", "uint8", "uint16")
"""Of arrays that are stored."""

FRAME_SIZE = slice(16, 24)
"""Bytes of a Blosc2 frame's header with its size."""

CHUNK_HEADER_BYTES, CODECS, FILTERS = 32, {0, 1}, {0, 1}
"""Of a Blosc2 chunk: length of its header; numbers of BloscLZ (which stands in chunks of one value) and LZ4; of no filter and shuffling."""

TRACE, IMAGE, LABELS, LOCATIONS = ".trace.json", ".image.b2nd", ".labels.b2nd", ".locations.npz"


@dataclass(frozen=True)
class StoredRecord:
    """Content of a ``.trace.json``: what preprocessing did, and the files and settings it worked on (None where they were not noted).

    `annotated` is that of the case. Version 0.1.0 wrote `stamp` instead of `made_from` (`migrate.stamp_of_0_1_0_fits`).
    """

    trace: Trace
    made_from: Stamp | None = None
    annotated: tuple[str, ...] | None = None
    stamp: str = ""


class Locations(Mapping[str, np.ndarray]):
    """Locations of organs: index in `Labels.names` as text (and ``annotated``) to ``(N, 3)`` voxels; read on access.

    With `organs`, indices, of those organs only.
    """

    def __init__(self, path: Path, organs: Sequence[int] | None = None) -> None:
        self._path = path
        self._wanted = None if organs is None else {ANNOTATED, *map(str, organs)}

    @cached_property
    def _keys(self) -> tuple[str, ...]:
        if not self._path.exists():
            return ()
        with open_arrays(self._path) as archive:
            return tuple(key for key in archive.files if self._wanted is None or key in self._wanted)

    def __getitem__(self, key: str) -> np.ndarray:
        if key not in self._keys:
            raise KeyError(key)
        with open_arrays(self._path, verify=False) as archive:  # the digest was verified when the keys were read
            voxels = archive[key]
        if voxels.ndim != 2 or voxels.shape[1] != 3 or voxels.dtype.kind not in "iu":
            raise ValueError(f"{self._path}: {key}: expected whole numbers of shape (N, 3), found {voxels.dtype} {voxels.shape}")
        return voxels

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


class StoredCase:
    """One case of a `Store`; arrays are opened on first use and read as they are sliced."""

    def __init__(self, folder: Path, name: str, organs: Sequence[int] | None = None) -> None:
        self.name = name
        self._folder, self.organs = folder, organs
        self.record = read_json(folder / (name + TRACE), StoredRecord)
        self.trace, self.made_from, self.annotated = self.record.trace, self.record.made_from, self.record.annotated

    @cached_property
    def image(self) -> blosc2.NDArray:
        """``(C, Z, Y, X)`` float32; a ValueError where it is not on the grid of the trace."""
        return self._on_grid(IMAGE, axes=4)

    @cached_property
    def segmentation(self) -> blosc2.NDArray | None:
        """``(Z, Y, X)`` int16 internal labels, None for a case without reference; a ValueError where they are not on the trace's grid."""
        return self._on_grid(LABELS, axes=3) if (self._folder / (self.name + LABELS)).exists() else None

    def _on_grid(self, ending: str, *, axes: int) -> blosc2.NDArray:
        path = self._folder / (self.name + ending)
        array = read_array(path)
        if array.ndim != axes or tuple(array.shape[-3:]) != tuple(self.trace.shape):
            raise ValueError(f"{path}: expected {axes} axes on the grid {self.trace.shape} of {self.name + TRACE}, found {array.shape}")
        return array

    @cached_property
    def locations(self) -> Locations:
        """Voxels of the organs that count; every one has a key, absent ones no voxels."""
        return Locations(self._folder / (self.name + LOCATIONS), self.organs)


class Store:
    """A folder of preprocessed cases, created when the first is written.

    `patch` is the spatial size that will be read most, and chooses the size of the compressed blocks.
    """

    def __init__(self, folder: Path, *, patch: Sequence[int] | None = None) -> None:
        self.folder = Path(folder)
        self._patch = patch

    def names(self) -> list[str]:
        """Complete cases, sorted."""
        return sorted(path.name[: -len(TRACE)] for path in self.folder.glob("*" + TRACE) if not path.name.startswith(".partial-"))

    def has(self, name: str) -> bool:
        """True where the case is complete."""
        return self.trace_path(name).is_file()

    def is_whole(self, name: str, *, labelled: bool) -> bool:
        """Whether the files of a complete case are still there, the arrays in the size that their headers say; contents are not read."""
        arrays = [self.folder / (name + ending) for ending in ((IMAGE, LABELS) if labelled else (IMAGE,))]
        if not self.has(name) or (labelled and not (self.folder / (name + LOCATIONS)).is_file()):
            return False
        return all(path.is_file() and _is_frame(path) for path in arrays)

    def trace_path(self, name: str) -> Path:
        """The file that is written last when a case is stored; a ValueError where the name cannot be that of a file."""
        check_name(name, "case")
        return self.folder / (name + TRACE)

    def content_id(self, name: str) -> str:
        """Identifies a preprocessed case by what it was made from and how it lies, without reading its arrays."""
        return file_id(self.trace_path(name))

    def load(self, name: str, *, organs: Sequence[int] | None = None) -> StoredCase:
        """Opens a case, with the locations of all organs or of those with these indices into `Labels.names`.

        Raises:
            ValueError: It is not there, or its trace cannot be read.
        """
        if not self.has(name):
            raise ValueError(f"{self.folder}: case {name!r} is not preprocessed; found {len(self.names())} other cases")
        return StoredCase(self.folder, name, organs)

    def write(
        self,
        name: str,
        image: np.ndarray,
        segmentation: np.ndarray | None,
        record: Trace | StoredRecord,
        locations: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Stores a case; a former one of that name is replaced, and while that happens the case does not exist.

        Args:
            image: ``(C, Z, Y, X)`` float32.
            segmentation: ``(Z, Y, X)`` int16, or None.
            record: The trace, with or without what the case was made from.
            locations: `class_locations` of the segmentation.
        """
        self.remove(name)
        write_array(self.folder / (name + IMAGE), image, patch=self._patch)
        if segmentation is not None:
            write_array(self.folder / (name + LABELS), segmentation, patch=self._patch)
            write_arrays(self.folder / (name + LOCATIONS), locations or {})
        self.write_record(name, record if isinstance(record, StoredRecord) else StoredRecord(record))

    def write_record(self, name: str, record: StoredRecord) -> None:
        """Notes what is known of a case whose arrays are complete."""
        write_json(self.trace_path(name), record)

    def remove(self, name: str) -> None:
        """Removes a case, its mark of completeness first."""
        check_name(name, "case")
        for ending in (TRACE, LOCATIONS, LABELS, IMAGE):
            (self.folder / (name + ending)).unlink(missing_ok=True)

    def clean(self) -> None:
        """Removes partial files of killed processes, and files of cases without a trace."""
        remove_partial_files(self.folder)
        for ending in (LOCATIONS, LABELS, IMAGE):
            for path in self.folder.glob("*" + ending):
                if not path.name.startswith(".") and not self.has(path.name[: -len(ending)]):
                    path.unlink(missing_ok=True)


def write_array(path: Path, array: np.ndarray, *, patch: Sequence[int] | None = None) -> None:
    """Writes an array ``(K, Z, Y, X)`` or ``(Z, Y, X)`` of any number type to a ``.b2nd`` file, compressed and sliceable, atomically."""
    import blosc2

    array = np.ascontiguousarray(array)
    chunks, blocks = chunks_and_blocks(array.shape, array.itemsize, patch or USUAL_PATCH)
    # measured on CT: LZ4 takes 7 % more space than LZ4HC and a ninth of the time to write; patches are read as fast
    settings = {"codec": blosc2.Codec.LZ4, "clevel": 5, "typesize": array.itemsize, "nthreads": 1}
    with atomic_write(path, size=array.nbytes) as partial:
        blosc2.asarray(array, urlpath=str(partial), mode="w", chunks=chunks, blocks=blocks, cparams=settings)
        seal(partial)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays of plain numbers to an ``.npz`` file, uncompressed and with a digest, atomically."""
    with atomic_write(path, size=sum(array.nbytes for array in arrays.values())) as partial:
        np.savez(partial, **dict(arrays))  # type: ignore[arg-type]  # no array is called like an option of savez
        seal(partial)


@contextmanager
def open_arrays(path: Path, *, verify: bool = True) -> Iterator[NpzFile]:
    """Opens what `write_arrays` wrote.

    Args:
        verify: Compare it with its digest first, if it has one.

    Raises:
        ValueError: It is damaged, holds objects, or claims arrays that are larger than the file; also where one is read in the block.
    """
    try:
        if verify:
            check_archive(path, sealed_bytes(path))
        with np.load(path, allow_pickle=False) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError, MemoryError) as error:
        raise ValueError(
            f"{path}: cannot be read as stored arrays: {error}; remove the case's files and run again what makes them"
        ) from error


def read_array(path: Path) -> blosc2.NDArray:
    """Opens what `write_array` wrote, to be sliced into NumPy arrays by the blocks needed.

    Its digest is verified first, so a damaged array is never sliced; and nothing is opened but plain numbers in the form that `write_array`
    gives them: no recipe that is evaluated, no reference to another file, no compression that is looked for outside Blosc2.

    Raises:
        ValueError: The file is missing or damaged, or holds something else.
    """
    import blosc2

    try:
        _check_frame(path, sealed_bytes(path))
        array = blosc2.open(str(path), mode="r", dparams={"nthreads": 1}, deserialize="safe")
        _check_array(array)
    except (RuntimeError, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as a stored array: {error}; remove it and run again what makes it") from error
    return array


def _check_frame(path: Path, sealed: int | None) -> None:
    """Refuses what is no contiguous Blosc2 frame of just the size that its header says."""
    with path.open("rb") as stream:
        head = stream.read(FRAME_SIZE.stop)
    size = path.stat().st_size if sealed is None else sealed
    if head[2:10] != b"b2frame\0" or int.from_bytes(head[FRAME_SIZE], "big") != size:
        raise ValueError(f"expected a Blosc2 frame of {size} bytes, found another file, or a part of one")


def _is_frame(path: Path) -> bool:
    """Whether a file has the size that its header names, with or without a digest after it."""
    with path.open("rb") as stream:
        head = stream.read(FRAME_SIZE.stop)
    size = path.stat().st_size
    return int.from_bytes(head[FRAME_SIZE], "big") in (size, size - SEAL_BYTES)


def _check_array(array: Any) -> None:
    """Refuses all but an array of numbers whose chunks have the sizes of its header, and are compressed as `write_array` does it."""
    import blosc2

    if type(array) is not blosc2.NDArray or array.dtype not in map(np.dtype, DTYPES):
        raise ValueError(f"expected an array of {', '.join(DTYPES)}, found {getattr(array, 'dtype', type(array).__name__)}")
    chunk_bytes, grid = math.prod(array.chunks) * array.dtype.itemsize, zip(array.shape, array.chunks, strict=True)
    if not array.shape or min(array.shape) < 1 or chunk_bytes > MOST_CHUNK_BYTES or array.nbytes > MOST_BYTES:
        limits = f"at most {MOST_BYTES} bytes in chunks of {MOST_CHUNK_BYTES}"
        raise ValueError(f"expected {limits}, found {array.dtype} of shape {array.shape}, chunks {array.chunks}")
    if array.schunk.nchunks != math.prod(math.ceil(n / chunk) for n, chunk in grid):
        raise ValueError(f"expected the chunks of an array of shape {array.shape}, found {array.schunk.nchunks} chunks of {array.chunks}")
    for number in range(array.schunk.nchunks):
        head = array.schunk.get_lazychunk(number)[:CHUNK_HEADER_BYTES]
        codec, filters = head[2] >> 5, set(head[16:22])
        if codec not in CODECS or not filters <= FILTERS or int.from_bytes(head[4:8], "little") % array.dtype.itemsize:
            raise ValueError(f"chunk {number}: expected compression by LZ4, found codec {codec}, filters {sorted(filters)}")


def chunks_and_blocks(shape: Sequence[int], itemsize: int, patch: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes (chunk, block) of the compressed units of an array ``(..., spatial)`` from which patches are read.

    A block starts as one channel of the patch and is halved along its longest axis (relative to the patch) until it has at most
    `BLOCK_BYTES`. A chunk grows from it by doubling the axis that covers least of the patch, up to `CHUNK_BYTES` and `CHUNK_OVER_PATCH`.
    The channels of an image lie in different blocks of the same chunk.
    """
    spatial = tuple(shape[-len(patch) :])
    leading = tuple(shape[: len(shape) - len(spatial)])
    limit = [min(n, math.ceil(CHUNK_OVER_PATCH * p)) for n, p in zip(spatial, patch, strict=True)]
    block = [max(1, min(n, p)) for n, p in zip(spatial, patch, strict=True)]
    while math.prod(block) * itemsize > BLOCK_BYTES:
        axis = max(range(len(block)), key=lambda a: (block[a] > 1, block[a] / patch[a], block[a]))
        block[axis] = math.ceil(block[axis] / 2)
    chunk, channels = list(block), math.prod(leading)
    while True:
        growing = [a for a in range(len(chunk)) if chunk[a] < spatial[a] and min(2 * chunk[a], spatial[a]) <= limit[a]]
        if not growing or 2 * math.prod(chunk) * channels * itemsize > CHUNK_BYTES:
            break
        axis = min(growing, key=lambda a: chunk[a] / patch[a])
        chunk[axis] = min(2 * chunk[axis], spatial[axis])
    if math.prod(chunk) * channels * itemsize > CHUNK_BYTES:
        leading = (1,) * len(leading)
    return (*leading, *chunk), (*((1,) * len(leading)), *block)
