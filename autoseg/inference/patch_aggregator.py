"""Aggregates the overlapping tiles of a sliding window: sums one patch thick, and a result in memory or in a file."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Sequence

import numpy as np
import torch

from ..runtime.hardware import available_memory
from ..schema import Labels
from .memory_limit import MemoryLimit
from .plain_mean import Probabilities
from .tiling import gaussian_window

log = logging.getLogger(__name__)

FLOAT16_MAX = torch.finfo(torch.float16).max

RESULT_SHARE = 0.25
"""Of the available memory; logits that need more (many organs in a large volume) lie in a file. Several models' are held at once."""

IMPOSSIBLE = -100.0
"""A logit whose probability is zero, and small enough that interpolating between it and its neighbours moves no border far."""


def background_logits(labels: Labels) -> torch.Tensor:
    """Logits ``(K,)`` of a voxel that is background for certain."""
    logits = torch.full((labels.n_outputs,), IMPOSSIBLE)
    if not labels.regions:
        logits[0] = 0.0
    return logits


class PatchAggregator:
    """Weighted sums of overlapping tiles, held only for the slices that a coming tile can still reach; finished ones go to the result.

    The tiles come sorted along `axis`; `result` is ``(K, Z, Y, X)``, `patch` the voxels of a tile, `source` the case's name. With
    `probable` the tiles hold probabilities, whose plain mean the result gets as logits.
    """

    def __init__(
        self,
        result: torch.Tensor,
        patch: tuple[int, ...],
        axis: int,
        *,
        device: torch.device,
        source: str,
        probable: Probabilities | None = None,
    ) -> None:
        self.result, self.patch, self.axis, self.source, self.probable = result, patch, axis, source, probable
        self.window = gaussian_window(patch, device=device) if probable is None else torch.ones(patch, device=device)
        shape = list(result.shape[1:])
        shape[axis] = patch[axis]
        self.total = torch.zeros((len(result), *shape), device=device)
        self.weight = torch.zeros(shape, device=device)
        self.base = 0
        self.region: torch.Tensor | None = None
        self.outside = torch.empty(0)
        self.limit: MemoryLimit | None = None

    def restrict_to(self, region: torch.Tensor, outside: torch.Tensor) -> None:
        """Voxels outside `region` ``(Z, Y, X)`` bool get the logits `outside` ``(K,)``, and no tile needs to cover them."""
        self.region, self.outside = region, outside.to(self.total.device)

    def keep_within(self, limit: MemoryLimit) -> None:
        """Sums on the CPU that are larger than a limit of memory leaves lie in a file, and are worked on channel by channel."""
        self.limit = limit
        # The mean of probabilities needs all channels of a voxel at once.
        if self.total.device.type == "cpu" and self.probable is None:
            self.total = limit.empty(tuple(self.total.shape), torch.float32, self.source, share=1.0)

    def add(self, start: tuple[int, ...], logits: torch.Tensor) -> None:
        """Adds the logits ``(K, *patch)`` of the tile at `start`. Tiles come in the order of their start along the axis."""
        self._move_to(start[self.axis])
        corner = tuple(0 if axis == self.axis else first for axis, first in enumerate(start))
        z, y, x = box_at(corner, self.patch)
        if self.limit is None:
            self.total[:, z, y, x] += logits * self.window
        else:
            for total, channel in zip(self.total, logits, strict=True):
                total[z, y, x].addcmul_(channel, self.window)
                self.limit.release()
        self.weight[z, y, x] += self.window

    def finish(self) -> None:
        """Writes the remaining slices."""
        self._move_to(self.result.shape[self.axis + 1] - self.patch[self.axis])
        self._write(self.patch[self.axis])

    def _move_to(self, start: int) -> None:
        edge = self.patch[self.axis]
        while self.base < start:
            count = min(start - self.base, edge)
            self._write(count)
            keep = edge - count
            for volume in (*self.total, self.weight):
                # The clone is one channel: source and target overlap.
                volume.narrow(self.axis, 0, keep).copy_(volume.narrow(self.axis, count, keep).clone())
                volume.narrow(self.axis, keep, count).zero_()
                if self.limit is not None:
                    self.limit.release()
            self.base += count

    def _write(self, count: int) -> None:
        mean, target = self.total.narrow(self.axis + 1, 0, count), self.result.narrow(self.axis + 1, self.base, count)
        weight = self.weight.narrow(self.axis, 0, count)
        if self.limit is None or self.probable is not None:
            self._finish(mean, weight, target, self.outside)
            return
        for channel, (sums, one) in enumerate(zip(mean, target, strict=True)):
            self._finish(sums[None], weight, one[None], self.outside[channel : channel + 1])
            self.limit.release()

    def _finish(self, mean: torch.Tensor, weight: torch.Tensor, target: torch.Tensor, outside: torch.Tensor) -> None:
        """Sums ``(K, z, y, x)`` of finished slices become logits in `target`, of the channels that `outside` belongs to."""
        mean /= weight
        if self.probable is not None:
            mean = self.probable.logits(mean)
        if self.region is not None:
            # Where no tile was, the mean is NaN; it is outside the region, too.
            beyond = ~self.region.narrow(self.axis, self.base, mean.shape[self.axis + 1]).to(mean.device)
            for channel, value in zip(mean, outside, strict=True):
                channel.masked_fill_(beyond, value)
        low, high = (float(value) for value in mean.aminmax())
        # Written so that NaN, which compares as false with everything, is caught too.
        if not (low >= -FLOAT16_MAX and high <= FLOAT16_MAX):
            raise ValueError(
                f"{self.source}: expected finite logits within float16, got values from {low} to {high}; "
                "the network's weights or the image's intensities are broken"
            )
        target.copy_(mean)


def empty_logits(shape: tuple[int, ...], source: str) -> torch.Tensor:
    """Memory for logits, float16: in RAM, or, where they would take much of what is left of it, in a temporary file."""
    size, free = 2 * int(np.prod(shape, dtype=np.int64)), available_memory()
    if size > RESULT_SHARE * free:
        try:
            return _empty_in_file(shape, size)
        except OSError as error:
            log.warning(
                "%s: logits of %.1f GB stay in memory, of which only %.1f GB are free: %s has no room for them (%s); "
                "set TMPDIR to a larger folder",
                *(source, size / 1e9, free / 1e9, tempfile.gettempdir(), error),
            )
    return torch.empty(shape, dtype=torch.float16)


def _empty_in_file(shape: tuple[int, ...], size: int) -> torch.Tensor:
    # The file has no name (or, on Windows, goes when it is closed), so that nothing is left behind by a process that is killed.
    with tempfile.TemporaryFile(prefix="autoseg-") as file:
        if hasattr(os, "posix_fallocate"):
            # A disk that is full later, when the memory map is written, would end the process.
            os.posix_fallocate(file.fileno(), 0, size)
        elif shutil.disk_usage(tempfile.gettempdir()).free < size:
            raise OSError(f"{size / 1e9:.1f} GB are needed")
        return torch.from_numpy(np.memmap(file, dtype=np.float16, mode="w+", shape=shape))


def box_at(start: Sequence[int], patch: Sequence[int]) -> tuple[slice, ...]:
    """The index of the patch whose first corner is `start`."""
    return tuple(slice(first, first + edge) for first, edge in zip(start, patch, strict=True))
