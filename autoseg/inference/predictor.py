"""A network of patches applied to a whole volume: tiles, mirrored copies and folds averaged in one pass with bounded memory."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field

import numpy as np
import torch
from torch.nn import functional

from ..preprocessing.adjacent_slices import neighbours
from ..runtime.hardware import autocast, is_out_of_memory, memory_format
from ..schema import Configuration, Labels
from .cascade import organs_as_channels
from .patch_aggregator import PatchAggregator, background_logits, box_at, empty_logits
from .tiling import tile_starts

log = logging.getLogger(__name__)

Network = Callable[[torch.Tensor], torch.Tensor]

CPU_BATCH_VOXELS = 2**18
"""Voxels of a batch on a CPU, where a larger batch gains nothing once all cores are busy."""


@dataclass
class Predictor:
    """Sliding-window prediction.

    Only an error that means "out of memory" makes it try again, with smaller batches and then with the sums in main memory; it
    remembers what worked. Everything else is raised.

    Attributes:
        networks: One a fold, on `device` and in evaluation mode: ``(B, C, *patch)`` to logits ``(B, K, *patch)``, which are averaged.
        configuration: Patch size, number of axes, valid flips; with a ``previous_stage`` `logits` needs that stage's segmentation.
        labels: Give the number of outputs ``K``, and the channels that change places when left and right do.
        device: Where to compute.
        mirror: Average over all combinations of the configuration's valid flips.
        step: Distance of neighbouring tiles as a share of the patch, in (0, 1].
        batch: Tiles at once; None: what suits the device.
        computed: Tiles of the last volume that were computed.
        skipped: Those that were not, as they do not touch the region.

    Raises:
        ValueError: No networks, or a step or batch that makes no sense.
    """

    networks: Sequence[Network]
    configuration: Configuration
    labels: Labels
    _: KW_ONLY
    device: torch.device
    mirror: bool = True
    step: float = 0.5
    batch: int | None = None
    computed: int = field(default=0, init=False)
    skipped: int = field(default=0, init=False)
    _batch: int = field(init=False, repr=False)
    _aggregator_device: torch.device = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.networks:
            raise ValueError("Predictor: expected at least one network, got none")
        if not 0 < self.step <= 1:
            raise ValueError(f"step: expected a share of the patch in (0, 1], got {self.step}")
        if self.batch is not None and self.batch < 1:
            raise ValueError(f"batch: expected at least 1 tile, got {self.batch}")
        self.device = torch.device(self.device)
        self._aggregator_device = self.device
        planned = self.configuration.batch_size
        if self.device.type == "cpu":
            planned = CPU_BATCH_VOXELS // int(np.prod(self.configuration.patch_size))
        self._batch = self.batch or max(1, planned)

    def logits(
        self,
        image: np.ndarray | torch.Tensor,
        *,
        previous: np.ndarray | torch.Tensor | None = None,
        region: np.ndarray | torch.Tensor | None = None,
        progress: Callable[[float], None] | None = None,
        source: str = "image",
    ) -> torch.Tensor:
        """Logits of a preprocessed volume.

        Besides the result it holds the sums of one patch's thickness along the axis that the patch covers least.

        Args:
            image: ``(C, Z, Y, X)`` float32, any size; smaller ones are padded with zeros and the result cropped.
            previous: Label map of a cascade's first stage, ``(Z, Y, X)`` internal values; becomes input channels tile by tile.
            region: Where to look at all, ``(Z, Y, X)`` bool: tiles that do not touch it are not computed, what lies outside is background.
            progress: Called with the share of the volume done since the last call.
            source: Name of the case, for messages.

        Returns:
            ``(K, Z, Y, X)`` float16 on the CPU; backed by a temporary file where memory is scarce.

        Raises:
            ValueError: The image has not four axes; `previous` is missing or not asked for, or it or `region` is of another shape; a
                network's output has the wrong shape; or logits are not finite (or beyond float16).
        """
        volume = torch.as_tensor(image)
        if volume.ndim != 4:
            raise ValueError(f"{source}: expected an image (C, Z, Y, X), got shape {tuple(volume.shape)}")
        organs = self._checked_previous(previous, volume, source)
        volume, crop = _padded(volume.float(), self._patch)
        if organs is not None:
            organs = _padded(organs[None], self._patch)[0][0]
        looked_at = self._checked_region(region, tuple(torch.as_tensor(image).shape[1:]), source)
        result = empty_logits((self.labels.n_outputs, *volume.shape[1:]), source)
        report = _Report(progress)
        while not self._try(_Input(volume, organs, looked_at), result, report, source):
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        log.debug("%s: %d tiles computed, %d skipped", source, self.computed, self.skipped)
        # Without a copy: of logits in a file it would have to lie in memory.
        return result[crop]

    def _checked_previous(self, previous: np.ndarray | torch.Tensor | None, volume: torch.Tensor, source: str) -> torch.Tensor | None:
        stage = self.configuration.previous_stage if self.configuration.sees_previous else None
        if (previous is None) != (stage is None):
            expected = f"the segmentation of {stage}" if stage else "no segmentation of a previous stage"
            raise ValueError(f"{source}: {self.configuration.name} expects {expected}, got {'none' if previous is None else 'one'}")
        if previous is None:
            return None
        expected, found = tuple(volume.shape[1:]), tuple(previous.shape)
        if found != expected:
            raise ValueError(f"{source}: expected a segmentation of {stage} on the image's grid {expected}, got {found}")
        return torch.as_tensor(previous).to(torch.int16)

    def _checked_region(self, region: np.ndarray | torch.Tensor | None, shape: tuple[int, ...], source: str) -> torch.Tensor | None:
        if region is None:
            return None
        if tuple(region.shape) != shape:
            raise ValueError(f"{source}: expected a region on the image's grid {shape}, got {tuple(region.shape)}")
        return _padded(torch.as_tensor(region, dtype=torch.bool)[None], self._patch)[0][0]

    @property
    def _patch(self) -> tuple[int, int, int]:
        patch = self.configuration.patch_size
        return (1, *patch) if self.configuration.dim == 2 else patch

    def _try(self, given: _Input, result: torch.Tensor, report: _Report, source: str) -> bool:
        """Fills `result`; False if memory ran out and there is a smaller way. A function of its own, so that its tensors are freed then."""
        try:
            self._slide(given, result, report, source)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or not self._smaller():
                raise
            log.warning(
                "%s: out of memory on %s; going on with batches of %d, sums on %s",
                source,
                self.device,
                self._batch,
                self._aggregator_device,
            )
            return False
        return True

    def _smaller(self) -> bool:
        if self._batch > 1:
            self._batch //= 2
        elif self._aggregator_device.type != "cpu":
            self._aggregator_device = torch.device("cpu")
        else:
            return False
        return True

    @torch.inference_mode()
    def _slide(self, given: _Input, result: torch.Tensor, report: _Report, source: str) -> None:
        patch, shape = self._patch, tuple(given.image.shape[1:])
        every = self._starts(shape)
        starts = [start for start in every if given.touches(box_at(start, patch))]
        self.computed, self.skipped = len(starts), len(every) - len(starts)
        # If the tiles come sorted along an axis, the sums need only reach one patch along it: take the axis where that saves most.
        axis = int(np.argmax([size / edge for size, edge in zip(shape, patch, strict=True)]))
        starts.sort(key=lambda start: start[axis])
        sums = PatchAggregator(result, patch, axis, device=self._aggregator_device, source=source)
        if given.region is not None:
            sums.only_inside(given.region, background_logits(self.labels))
        for first in range(0, len(starts), self._batch):
            chunk = starts[first : first + self._batch]
            tiles = given.tiles([box_at(start, patch) for start in chunk], self.labels, self.device, slices=self.configuration.slices)
            if self.configuration.dim == 2:
                tiles = tiles.squeeze(2)
            outputs = self._averaged(tiles).to(self._aggregator_device)
            for start, output in zip(chunk, outputs, strict=True):
                sums.add(start, output.reshape(-1, *patch))
            report.at((first + len(chunk)) / len(starts))
        sums.finish()

    def _starts(self, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        patch = self.configuration.patch_size
        if self.configuration.dim == 3:
            return tile_starts(shape, patch, self.step)
        return [(z, *start) for z in range(shape[0]) for start in tile_starts(shape[1:], patch, self.step)]

    def _averaged(self, tiles: torch.Tensor) -> torch.Tensor:
        """Mean logits ``(B, K, *patch)`` float32 over flips and networks."""
        expected = (len(tiles), self.labels.n_outputs, *tiles.shape[2:])
        total = torch.zeros(expected, device=self.device)
        flips = list(self._flips())
        with autocast(self.device):
            for flip in flips:
                sided = self.configuration.mirroring.lateral_axis in flip
                dims = tuple(axis + 2 for axis in flip)
                inputs = tiles[:, self._swapped_inputs(tiles.shape[1])] if sided else tiles
                inputs = inputs.flip(dims).contiguous(memory_format=memory_format(self.configuration.dim))
                for network in self.networks:
                    output = network(inputs)
                    if not isinstance(output, torch.Tensor) or output.shape != expected:
                        found = tuple(output.shape) if isinstance(output, torch.Tensor) else f"a {type(output).__name__}"
                        raise ValueError(f"network in evaluation mode: expected logits of shape {expected}, got {found}")
                    output = output.float().flip(dims)
                    total += output[:, self._swapped_outputs()] if sided else output
        return total / (len(flips) * len(self.networks))

    def _flips(self) -> Iterator[tuple[int, ...]]:
        axes = self.configuration.mirroring.axes if self.mirror else ()
        return itertools.chain.from_iterable(itertools.combinations(axes, count) for count in range(len(axes) + 1))

    def _swapped_outputs(self) -> list[int]:
        """Output channels with left and right organs exchanged: what looks like the left kidney in a mirror is the right one."""
        first = 0 if self.labels.regions else 1
        pairs = [(first + left, first + right) for left, right in self.configuration.mirroring.pairs]
        return _exchanged(self.labels.n_outputs, pairs)

    def _swapped_inputs(self, channels: int) -> list[int]:
        """Input channels likewise: those at the end that hold the previous stage's labels, one per foreground value."""
        if not self.configuration.sees_previous:
            return list(range(channels))
        # Internal value 1 is the first of the label channels.
        first = channels - len(self.labels.base_values) - 1
        members = self.labels.internal_members
        pairs = [(first + members[left][0], first + members[right][0]) for left, right in self.configuration.mirroring.pairs]
        return _exchanged(channels, pairs)


@dataclass(frozen=True)
class _Input:
    """A padded image ``(C, Z, Y, X)``, in a cascade the first stage's label map ``(Z, Y, X)`` int16, and a region likewise, bool."""

    image: torch.Tensor
    previous: torch.Tensor | None
    region: torch.Tensor | None

    def touches(self, box: tuple[slice, ...]) -> bool:
        """Whether some voxel of the tile is to be looked at."""
        return self.region is None or bool(self.region[box].any())

    def tiles(self, boxes: Sequence[tuple[slice, ...]], labels: Labels, device: torch.device, *, slices: int = 1) -> torch.Tensor:
        """Input of the network ``(B, C, *patch)`` on `device`; label maps become channels there, a tile of them at a time.

        Args:
            boxes: Of the tiles.
            labels: Of the previous stage's label map.
            device: Of the result.
            slices: Adjacent ones that become channels, in the order of `conventions`; the tiles are one slice thick then.
        """
        tiles = torch.stack([self._cut(box, slices) for box in boxes]).to(device, non_blocking=True)
        if self.previous is None:
            return tiles
        organs = torch.stack([self.previous[box] for box in boxes]).to(device, non_blocking=True)
        return torch.cat([tiles, organs_as_channels(organs, labels)], 1)

    def _cut(self, box: tuple[slice, ...], slices: int) -> torch.Tensor:
        """A tile ``(C, *patch)`` of the image."""
        if slices == 1:
            return self.image[(slice(None), *box)]
        around = neighbours(box[0].start, slices, self.image.shape[1])
        return self.image[:, around, box[1], box[2]].flatten(0, 1)[:, None]


class _Report:
    """Passes on how much more is done; after a restart nothing until it is further than before."""

    def __init__(self, progress: Callable[[float], None] | None) -> None:
        self.progress, self.done = progress, 0.0

    def at(self, share: float) -> None:
        if self.progress is not None and share > self.done:
            self.progress(share - self.done)
            self.done = share


def _padded(volume: torch.Tensor, patch: Sequence[int]) -> tuple[torch.Tensor, tuple[slice, ...]]:
    """Zeros around ``(C, Z, Y, X)`` up to the patch, as equal as can be on both sides, and the slices that take them off again."""
    sizes = volume.shape[1:]
    missing = [max(0, edge - size) for size, edge in zip(sizes, patch, strict=True)]
    crop = tuple(slice(lack // 2, lack // 2 + size) for size, lack in zip(sizes, missing, strict=True))
    if any(missing):
        volume = functional.pad(volume, [width for lack in reversed(missing) for width in (lack // 2, lack - lack // 2)])
    return volume, (slice(None), *crop)


def _exchanged(count: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    order = list(range(count))
    for left, right in pairs:
        order[left], order[right] = right, left
    return order
