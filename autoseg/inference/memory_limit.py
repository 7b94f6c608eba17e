"""Keeps a prediction within a limit of memory: large arrays lie in temporary files, whose pages do not stay in the process's memory."""

from __future__ import annotations

import math
import mmap
import os
import shutil
import tempfile
import weakref
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..runtime.disk import is_in_memory
from ..runtime.hardware import memory_in_use
from .logits import Logits

RESULT_SHARE = 0.25
"""Of the memory that is left; logits that need more lie in a file, since those of several models are held at once."""

NUMBERS: dict[torch.dtype, type[np.floating[Any]]] = {torch.float16: np.float16, torch.float32: np.float32}


@dataclass(frozen=True, eq=False)
class MemoryLimit:
    """The memory of one volume's prediction, and its large arrays.

    Attributes:
        most: Bytes that the process may hold.
        reserve: Of them, for what comes beside the arrays: a tile of the network, and the steps after it.
    """

    most: int
    reserve: int = 0
    _held: list[tuple[weakref.ref[np.ndarray], int]] = field(default_factory=list, repr=False)
    _files: dict[int, weakref.ref[mmap.mmap]] = field(default_factory=dict, repr=False)
    _before: list[int] = field(default_factory=list, repr=False)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype, source: str, *, share: float = RESULT_SHARE) -> torch.Tensor:
        """Memory for an array: in RAM, or, where that takes more than a share of what the limit leaves, in a temporary file of zeros.

        Raises:
            ValueError: No folder for temporary files has room for it.
        """
        size = dtype.itemsize * math.prod(shape)
        if size > share * self.free():
            return self._in_file(shape, dtype, size, source)
        array = np.zeros(shape, NUMBERS[dtype])
        self._held.append((weakref.ref(array), size))
        return torch.from_numpy(array)

    def free(self) -> int:
        """Bytes that arrays may still take."""
        if not self._before:
            self._before.append(memory_in_use())
        # Pages of an array count as in use only once they are written.
        held = sum(size for array, size in self._held if array() is not None)
        return max(0, self.most - self.reserve - self._before[0] - held)

    def release(self) -> None:
        """Takes the pages of arrays in files out of the process's memory; nothing is lost, as they are the file's."""
        for reference in self._files.values():
            mapping = reference()
            if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
                mapping.madvise(mmap.MADV_DONTNEED)

    def is_in_file(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor, or what it is a view of, lies in a file of this limit."""
        reference = self._files.get(tensor.untyped_storage().data_ptr())
        return reference is not None and reference() is not None

    def readable(self, logits: Logits) -> Logits:
        """Logits whose parts are copied out of their file when they are read; those in memory as they are."""
        in_file = isinstance(logits.array, torch.Tensor) and self.is_in_file(logits.array)
        return replace(logits, array=_OnDisk(logits.array, self)) if in_file else logits

    def _in_file(self, shape: tuple[int, ...], dtype: torch.dtype, size: int, source: str) -> torch.Tensor:
        # The file has no name (or, on Windows, goes when it is closed), so that nothing is left behind by a process that is killed.
        with tempfile.TemporaryFile(prefix="autoseg-", dir=folder_with_room(size, source)) as file:
            if hasattr(os, "posix_fallocate"):
                # A disk that is full later, when the memory map is written, would end the process.
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
            mapping = mmap.mmap(file.fileno(), size)
        tensor = torch.from_numpy(np.frombuffer(mapping, NUMBERS[dtype]).reshape(shape))
        self._files[tensor.untyped_storage().data_ptr()] = weakref.ref(mapping)
        return tensor


@dataclass(frozen=True, eq=False)
class _OnDisk:
    """An array in a file, of which only what is asked for is read."""

    tensor: torch.Tensor
    limit: MemoryLimit

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    def __getitem__(self, index: Any) -> np.ndarray:
        part = self.tensor[index].clone().numpy()
        self.limit.release()
        return part


def folder_with_room(size: int, source: str) -> Path:
    """A folder for a temporary file of so many bytes, on a disk: that of TMPDIR, or where this is held in memory ``/var/tmp``.

    Raises:
        ValueError: There is none.
    """
    folders = [folder for folder in dict.fromkeys([Path(tempfile.gettempdir()), Path("/var/tmp")]) if folder.is_dir()]
    on_disk = [folder for folder in folders if not is_in_memory(folder)]
    for folder in on_disk:
        if shutil.disk_usage(folder).free > size and os.access(folder, os.W_OK):
            return folder
    found = (
        ", ".join(f"{shutil.disk_usage(one).free / 1e9:.1f} GB in {one}" for one in on_disk) or f"none on a disk ({folders[0]} is memory)"
    )
    raise ValueError(
        f"{source}: to keep --max-memory {size / 1e9:.1f} GB of temporary files are needed, found {found}; set TMPDIR to a larger folder"
    )
