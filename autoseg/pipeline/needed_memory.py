"""Cases that a prediction cannot segment within ``--max-memory``, named with what they need before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from ..data.images import read_case_geometry
from ..inference.ensemble import Ensemble
from ..inference.memory_limit import folder_with_room
from ..inference.memory_need import IMAGE, Need, need
from ..schema import Case, Geometry
from ..schema.settings import PredictSettings

UNCERTAINTY = 16
"""Bytes a voxel of maps of uncertainty while they are made."""


def cases_beyond(ensemble: Ensemble, cases: Sequence[Case], settings: PredictSettings) -> dict[str, str]:
    """Case to the reason, for the cases that need more than is allowed; those whose header cannot be read say so when they are read."""
    failures: dict[str, str] = {}
    most = settings.max_memory
    beside = (UNCERTAINTY if settings.uncertainty else 0) + (IMAGE * len(ensemble.channels) if settings.statistics else 0)
    for case in cases if most is not None else ():
        geometry = None
        with suppress(ValueError, OSError):
            geometry = read_case_geometry(case)
        if geometry is not None and most is not None:
            try:
                check_memory(ensemble, geometry, most, case.name, beside=beside)
            except ValueError as error:
                failures[case.name] = str(error)
    return failures


def check_memory(ensemble: Ensemble, geometry: Geometry, most: int, case: str, *, beside: int = 0) -> None:
    """Refuses (ValueError) an image that cannot be segmented within `most` bytes, or whose arrays no disk has room for.

    `beside` are bytes a voxel that are held while the label map is made.
    """
    wanted = need(ensemble.models.values(), geometry, len(ensemble.channels), beside=beside)
    if wanted.least > most:
        raise ValueError(_refusal(wanted, ensemble, geometry, most, case))
    if wanted.usual > most:
        folder_with_room(wanted.arrays, case)


def _refusal(wanted: Need, ensemble: Ensemble, geometry: Geometry, most: int, case: str) -> str:
    size = " x ".join(map(str, reversed(geometry.shape)))
    least = -(-wanted.least // 10**8) / 10
    return (
        f"{case}: needs {least:.1f} GB of memory for {size} voxels with {ensemble.labels.n_outputs} classes, most of it for "
        f"{wanted.largest}, and --max-memory allows {most / 1e9:.3g} GB; allow {least:.1f}GB, choose a model of a coarser grid or a "
        "smaller patch (-c 3d_lowres, -c 2d), or crop the image"
    )
