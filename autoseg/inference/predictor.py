"""Sliding-window prediction of a whole volume: tiles, mirrored copies and folds averaged in one pass with bounded memory."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace

import numpy as np
import torch

from ..runtime.hardware import is_out_of_memory
from ..schema import Configuration, Labels, Tiling
from .memory_limit import MemoryLimit
from .mirroring import Network, averaged_logits
from .network_input import NetworkInput, patch_3d
from .patch_aggregator import PatchAggregator, background_logits, box_at, empty_logits
from .plain_mean import probabilities_of
from .tiling import tile_starts
from .volume_predictor import Progress, Volume

log = logging.getLogger(__name__)

CPU_BATCH_VOXELS = 2**18
"""Voxels of a batch on a CPU, where a larger batch gains nothing once all cores are busy."""


@dataclass
class Predictor:
    """A `VolumePredictor` that moves a patch over the volume with all its networks in memory.

    Only an error that means "out of memory" makes it try again, with smaller batches and then with the sums in main memory; it
    remembers what worked. Everything else is raised.

    Attributes:
        networks: One a fold, on `device` and in evaluation mode, which are averaged.
        configuration: Patch size, number of axes, valid flips; with a ``previous_stage`` `logits` needs that stage's segmentation.
        labels: Give the number of outputs ``K``, and the channels that change places when left and right do.
        mirror: Average over all combinations of the configuration's valid flips.
        step: Distance of neighbouring tiles as a share of the patch, in (0, 1]; None: the configuration's.
        batch: Tiles at once; None: what suits the device.
        computed: Tiles of the last volume that were computed.
        skipped: Those that were not, as they do not touch the candidate region.

    Raises:
        ValueError: No networks, or a step or batch that makes no sense.
    """

    networks: Sequence[Network]
    configuration: Configuration
    labels: Labels
    _: KW_ONLY
    device: torch.device
    mirror: bool = True
    step: float | None = None
    batch: int | None = None
    computed: int = field(default=0, init=False)
    skipped: int = field(default=0, init=False)
    tiling: Tiling = field(init=False, repr=False)
    _batch: int = field(init=False, repr=False)
    _aggregator_device: torch.device = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.networks:
            raise ValueError("Predictor: expected at least one network, got none")
        self.tiling = tiling_of(self.configuration, self.step)
        self.step = self.tiling.step
        if self.batch is not None and self.batch < 1:
            raise ValueError(f"batch: expected at least 1 tile, got {self.batch}")
        self.device = torch.device(self.device)
        self._aggregator_device = self.device
        planned = self.configuration.batch_size
        if self.device.type == "cpu":
            planned = CPU_BATCH_VOXELS // int(np.prod(self.configuration.input_size))
        self._batch = self.batch or max(1, planned)

    def logits(self, volume: Volume, *, progress: Progress | None = None) -> torch.Tensor:
        """See `VolumePredictor.logits`.

        Besides the result it holds the sums of one patch's thickness along the axis that the patch covers least. Images smaller than the
        patch are padded with zeros and the result cropped; tiles that do not touch the candidate region are not computed.

        Raises:
            ValueError: The image has not four axes; `previous` is missing or not expected, or it or `region` is of another shape; a
                network's output has the wrong shape; or logits are not finite (or beyond float16).
        """
        case = volume.case
        inputs = NetworkInput.of(volume, self.configuration, whole_tiles=self.tiling == Tiling(1.0, "plain"))
        shape, limit = (self.labels.n_outputs, *inputs.image.shape[1:]), volume.limit
        result = empty_logits(shape, case) if limit is None else limit.empty(shape, torch.float16, case)
        report = _Report(progress)
        while not self._try(inputs, result, report, case, limit):
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        log.debug("%s: %d tiles computed, %d skipped", case, self.computed, self.skipped)
        # Without a copy: of logits in a file it would have to lie in memory.
        return result[inputs.crop]

    def _try(self, inputs: NetworkInput, result: torch.Tensor, report: _Report, case: str, limit: MemoryLimit | None) -> bool:
        """Fills `result`; False if memory ran out and there is a smaller way. A function of its own, so that its tensors are freed then."""
        try:
            self._slide(inputs, result, report, case, limit)
        except (RuntimeError, MemoryError) as error:
            smallest = self._batch == 1 and self._aggregator_device.type == "cpu"
            if not is_out_of_memory(error) or smallest:
                raise
            if self._batch == 1:
                self._aggregator_device = torch.device("cpu")
            self._batch = max(1, self._batch // 2)
            batch, device = self._batch, self._aggregator_device
            log.warning("%s: out of memory on %s; going on with batches of %d, sums on %s", case, self.device, batch, device)
            return False
        return True

    @torch.inference_mode()
    def _slide(self, inputs: NetworkInput, result: torch.Tensor, report: _Report, case: str, limit: MemoryLimit | None) -> None:
        patch, shape, configuration = patch_3d(self.configuration), tuple(inputs.image.shape[1:]), self.configuration
        every = tile_starts(shape[-configuration.dim :], configuration.patch_size, self.tiling.step)
        if configuration.dim == 2:
            every = [(z, *start) for z in range(shape[0]) for start in every]
        starts = [start for start in every if inputs.touches_region(box_at(start, patch))]
        self.computed, self.skipped = len(starts), len(every) - len(starts)
        # If the tiles come sorted along an axis, the sums need only reach one patch along it: take the axis where that saves most.
        axis = int(np.argmax([size / edge for size, edge in zip(shape, patch, strict=True)]))
        starts.sort(key=lambda start: start[axis])
        probable = probabilities_of(self.labels) if self.tiling.mean == "plain" else None
        aggregator = PatchAggregator(result, patch, axis, device=self._aggregator_device, source=case, probable=probable)
        if limit is not None:
            aggregator.keep_within(limit)
        if inputs.region is not None:
            aggregator.restrict_to(inputs.region, background_logits(self.labels))
        for first in range(0, len(starts), self._batch):
            chunk = starts[first : first + self._batch]
            patches = inputs.batch([box_at(start, patch) for start in chunk], self.labels, self.device, slices=configuration.slices)
            if configuration.dim == 2:
                patches = patches.squeeze(2)
            outputs = averaged_logits(
                *(self.networks, patches, configuration, self.labels), mirror=self.mirror, probable=probable, most=self._batch
            )
            for start, output in zip(chunk, outputs.to(self._aggregator_device), strict=True):
                aggregator.add(start, output.reshape(-1, *patch))
            report.at((first + len(chunk)) / len(starts))
        aggregator.finish()


def tiling_of(configuration: Configuration, step: float | None) -> Tiling:
    """The tiling of a configuration, with another step where one is asked for; a ValueError for one outside (0, 1]."""
    return configuration.tiling if step is None else replace(configuration.tiling, step=step)


class _Report:
    """Passes on how much more is done; after a restart nothing until it is further than before."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress, self.done = progress, 0.0

    def at(self, share: float) -> None:
        if self.progress is not None and share > self.done:
            self.progress(share - self.done)
            self.done = share
