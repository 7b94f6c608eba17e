"""Files of a predicted case: its label map and, where wanted, probabilities and uncertainty maps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.images import PICTURES, ending_of, label_ending, write_image
from ..runtime.serialization import atomic_write
from ..schema import Case
from .ensemble import Ensemble
from .logits import Logits
from .uncertainty import LEVELS, MM3_PER_ML, CandidatePrediction, OrganUncertainty, along_organ, expected_dice, uncertainty_maps

UNCERTAINTY = "uncertainty"
"""Folder beside the label maps, so that its maps are not taken for label maps."""


@dataclass(frozen=True)
class PredictionFiles:
    """Files of one case: label map, where wanted a NumPy array of probabilities, and the maps of entropy and of disagreement."""

    label_map: Path
    probabilities: Path | None = None
    uncertainty: tuple[Path, ...] = ()

    @classmethod
    def of(cls, case: Case, out: Path, ending: str | None, *, probabilities: bool, uncertainty: bool) -> PredictionFiles:
        """Names the wanted files of a case; without an ending they get the input's where label maps can be written so."""
        ending = ending or label_ending(ending_of(case.images[0]))
        array = out / f"{case.name}_probabilities.npy" if probabilities else None
        maps = tuple(out / UNCERTAINTY / f"{case.name}_{name}{ending}" for name in ("entropy", "disagreement")) if uncertainty else ()
        return cls(out / f"{case.name}{ending}", array, maps)

    @property
    def all(self) -> list[Path]:
        """All of them."""
        return [self.label_map, *([] if self.probabilities is None else [self.probabilities]), *self.uncertainty]


def write_probabilities(path: Path, ensemble: Ensemble, logits: Mapping[str, Logits]) -> None:
    """Streams slab by slab: never more than one slab of all classes in memory. Organs that no model segments have 0."""
    geometry = next(iter(logits.values())).trace.geometry
    shape = (len(ensemble.labels.names), *geometry.shape)
    with atomic_write(path) as partial:
        file = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float16, shape=shape)
        view = file[:, None] if geometry.dim == 2 else file
        for index, start, slab in ensemble.probabilities(logits):
            view[index, start : start + len(slab)] = slab
        file.flush()


def write_uncertainty(
    files: PredictionFiles, ensemble: Ensemble, candidates: Sequence[CandidatePrediction], label_map: np.ndarray
) -> list[OrganUncertainty]:
    """Writes the uncertainty maps of a case with a label map of internal values; returns each organ's uncertainty."""
    trace = candidates[0].members[0].trace
    maps = uncertainty_maps(candidates)
    for path, values in zip(files.uncertainty, maps, strict=True):
        picture = ending_of(path) in PICTURES
        write_image(path, (np.round(values * LEVELS).astype(np.uint8) if picture else values)[None], trace.geometry)
    expected: dict[str, float] = {}
    for candidate in candidates:
        steps = {organ: steps for organ, steps in ensemble.choice.postprocessing.items() if organ in candidate.organs}
        expected |= expected_dice(candidate.members, candidate.labels, steps, organs=candidate.organs)
    rows = []
    for organ in (name for name in ensemble.labels.names if name in expected):
        voxels, (entropy, disagreement) = along_organ(label_map, ensemble.labels, organ, maps)
        volume = voxels * math.prod(trace.geometry.spacing) / MM3_PER_ML
        rows.append(OrganUncertainty(trace.case, organ, volume, expected[organ], entropy, disagreement))
    return rows
