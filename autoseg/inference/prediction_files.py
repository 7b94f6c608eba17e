"""Files of a predicted case: its label map and, where wanted, probabilities and uncertainty maps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..data.images import PICTURES, ending_of, label_ending, sidecar_of, stem_of, write_image, written_ending
from ..runtime.disk import explained_write_errors
from ..runtime.outputs import NOTES
from ..runtime.serialization import Writer, atomic_write
from ..schema import Case, Image
from ..schema.settings import PredictSettings
from .ensemble import Ensemble
from .logits import Logits
from .manifest import MANIFEST
from .organ_measures import MM3_PER_ML, measure_organs
from .organ_places import organ_places
from .organ_statistics import OrganStatistics, organ_statistics
from .uncertainty import LEVELS, CandidatePrediction, OrganUncertainty, along_organ, uncertainty_maps

UNCERTAINTY = "uncertainty"
"""Folder beside the label maps, so that its maps are not taken for label maps."""

STACKS = (".tif", ".tiff")
"""Endings of pictures that hold volumes, whose spacing lies in a file beside them."""


@dataclass(frozen=True)
class PredictionFiles:
    """Files of one case: label map, where wanted a NumPy array of probabilities, and the maps of entropy and of disagreement.

    Attributes:
        statistics: Whether the intensities of the image in each organ are wanted, too.
    """

    label_map: Path
    probabilities: Path | None = None
    uncertainty: tuple[Path, ...] = ()
    statistics: bool = False

    @property
    def all(self) -> list[Path]:
        """All of them."""
        return [self.label_map, *([] if self.probabilities is None else [self.probabilities]), *self.uncertainty]

    @property
    def with_sidecars(self) -> list[Path]:
        """All of them, and the files that hold the spacing of TIFF stacks."""
        return [*self.all, *(sidecar_of(path) for path in (self.label_map, *self.uncertainty) if ending_of(path) in STACKS)]


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where the files of predicted cases go, and which are wanted.

    Attributes:
        folder: Gets ``<case><ending>``.
        ending: As `images.written_ending` gives it; None takes each input's own where label maps can be written so, else ``.nii.gz``.
        probabilities: Also ``<case>_probabilities.npy`` (float16, one channel an organ, file axis order).
        uncertainty: Also ``uncertainty/<case>_entropy<ending>`` and ``..._disagreement<ending>`` (`uncertainty.uncertainty_maps`; as
            float 0..1, in formats of pictures as 0..255), and each organ's uncertainty in the manifest.
        single: A user named the file of the only case: the manifest lies in a hidden folder, not beside it.
        keeps_table: More cases will come: the table of what to check first is kept from the first on.
        statistics: Also each organ's intensities and estimated Dice in the table of volumes.
    """

    folder: Path
    ending: str | None = None
    probabilities: bool = False
    uncertainty: bool = False
    single: bool = False
    keeps_table: bool = False
    statistics: bool = False

    def has_table(self, cases: int) -> bool:
        """Whether a table says what to check first: with the maps, and wherever there are, or will be, several cases to choose from."""
        return self.uncertainty or self.keeps_table or cases > 1

    @property
    def manifest(self) -> Path:
        """Which cases are done (`manifest.Manifest`)."""
        return (self.folder / NOTES if self.single else self.folder) / MANIFEST

    @property
    def folders(self) -> tuple[Path, ...]:
        """Folders that get images of any kind."""
        return (self.folder, self.folder / UNCERTAINTY) if self.uncertainty else (self.folder,)

    def files_of(self, case: Case) -> PredictionFiles:
        """The wanted files of a case."""
        ending = self.ending or label_ending(ending_of(case.images[0]))
        array = self.folder / f"{case.name}_probabilities.npy" if self.probabilities else None
        names = ("entropy", "disagreement") if self.uncertainty else ()
        maps = tuple(self.folder / UNCERTAINTY / f"{case.name}_{name}{ending}" for name in names)
        return PredictionFiles(self.folder / f"{case.name}{ending}", array, maps, self.statistics)


def destination_of(out: Path, cases: Sequence[Case], settings: PredictSettings, *, dim: int) -> tuple[Destination, list[Case]]:
    """Where the files of `cases` go; for an `out` that is named like an image and is no folder, the file of the only case, called so.

    Raises:
        ValueError: Label maps of `dim` axes cannot be written with the ending, or one file is named for several cases.
    """
    ending = None if settings.ending is None else written_ending(settings.ending, dim)
    maps = {"probabilities": settings.save_probabilities, "uncertainty": settings.uncertainty}
    wanted = Destination(folder=out, ending=ending, statistics=settings.statistics, **maps)
    if not ending_of(out) or out.is_dir():
        if out.exists() and not out.is_dir():
            raise ValueError(f"{out}: expected a folder for the label maps, found a file")
        return wanted, list(cases)
    if len(cases) > 1:
        raise ValueError(f"{out}: names one file for {len(cases)} cases; name a folder, or give one image")
    of_file = ending_of(out)
    if written_ending(of_file, dim) != of_file or ending not in (None, of_file):
        better = ending or written_ending(of_file, dim)
        raise ValueError(f"{out}: label maps would be written as {better}, not as {of_file}; name the file so")
    return replace(wanted, folder=out.parent, ending=of_file, single=True), [replace(case, name=stem_of(out)) for case in cases]


def write_probabilities(path: Path, ensemble: Ensemble, logits: Mapping[str, Logits], *, write: Writer = atomic_write) -> None:
    """Streams slab by slab: never more than one slab of all classes in memory. Organs that no model segments have 0."""
    geometry = next(iter(logits.values())).trace.geometry
    shape = (len(ensemble.labels.names), *geometry.shape)
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float16)), "fortran_order": False, "shape": shape}
    # Not through a memory map: a disk that is full would end the process by a signal.
    with write(path) as partial, explained_write_errors(path, partial=partial, size=2 * math.prod(shape)), partial.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        first, slice_bytes = file.tell(), 2 * math.prod(shape[-2:])
        file.truncate(first + 2 * math.prod(shape))
        slices = math.prod(shape[1:-2])
        for index, start, slab in ensemble.probabilities(logits):
            file.seek(first + (index * slices + start) * slice_bytes)
            file.write(slab.astype(np.float16).tobytes())


def organ_uncertainties(
    ensemble: Ensemble,
    candidates: Sequence[CandidatePrediction],
    label_map: np.ndarray,
    maps: Sequence[np.ndarray] = (),
    *,
    image: Image | None = None,
) -> list[OrganUncertainty]:
    """Measures each organ of a case with a label map of internal values; entropy and disagreement only with the two maps.

    With `image` also its intensities in each organ.
    """
    trace = candidates[0].members[0].trace
    found: dict[str, OrganStatistics] = {}
    for candidate in candidates:
        steps = {organ: steps for organ, steps in ensemble.choice.postprocessing.items() if organ in candidate.organs}
        found |= organ_statistics(candidate.members, candidate.labels, steps, organs=candidate.organs)
    places = organ_places(label_map, ensemble.labels, trace.geometry)
    found = {organ: replace(one, place=places.get(organ)) for organ, one in found.items()}
    measures, rows = measure_organs(label_map, ensemble.labels, trace.geometry, image), []
    for organ in (name for name in ensemble.labels.names if name in found):
        volume = measures[organ].voxels * math.prod(trace.geometry.spacing) / MM3_PER_ML
        entropy, disagreement = along_organ(label_map, ensemble.labels, organ, maps)[1] if maps else (math.nan, math.nan)
        row = OrganUncertainty(trace.case, organ, volume, found[organ].expected_dice, entropy, disagreement, found[organ])
        rows.append(replace(row, measures=measures[organ]))
    return rows


def write_uncertainty_maps(
    files: PredictionFiles, candidates: Sequence[CandidatePrediction], *, write: Writer = atomic_write
) -> tuple[np.ndarray, ...]:
    """Writes the maps of entropy and disagreement of a case where they are wanted, and returns them."""
    if not files.uncertainty:
        return ()
    maps = uncertainty_maps(candidates)
    for path, values in zip(files.uncertainty, maps, strict=True):
        picture = ending_of(path) in PICTURES
        geometry = candidates[0].members[0].trace.geometry
        write_image(path, (np.round(values * LEVELS).astype(np.uint8) if picture else values)[None], geometry, write=write)
    return maps
