"""The end of a prediction: its tables (volumes, what to check first), and how good it looks without references."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.images import ending_of
from ..inference.ensemble import Ensemble
from ..inference.manifest import Manifest, models_key
from ..inference.prediction_files import Destination
from ..inference.uncertainty import OrganUncertainty
from ..runtime.serialization import Writer, atomic_write, from_jsonable
from ..schema import Case
from .case_ranking import RANKED_CASES, compare_with_training, is_ranking, tell_likeness, write_ranked_cases
from .organ_volumes import is_volumes_table, volumes_file, write_volumes
from .validated_dice import warn_of_low_dice

log = logging.getLogger(__name__)


def tables_of(destination: Destination, cases: Sequence[Case]) -> dict[str, list[Path]]:
    """What a prediction of these cases writes besides the files of each: words for it to the file."""
    single = cases[0].name if destination.single else ""
    ranking = {"table of what to check first": [destination.folder / RANKED_CASES]} if destination.has_table(len(cases)) else {}
    return {"table of volumes": [volumes_file(destination.folder, single)], **ranking}


def is_table(path: Path) -> bool:
    """Whether a file is a table that prediction writes, by its name and its first line."""
    return not ending_of(path) and (is_ranking(path) or is_volumes_table(path))


def conclude_prediction(
    destination: Destination,
    cases: Sequence[Case],
    ensemble: Ensemble,
    results: Path,
    *,
    validated: Mapping[str, float] | None = None,
    write: Writer = atomic_write,
) -> None:
    """Writes the table of volumes and, where there is much to check, that of what to check first, and tells how good a prediction looks.

    The tables have all cases that these models predicted into the folder, also in earlier calls; for a file that was named, its case.

    Args:
        cases: That were predicted; those that failed have no estimate.
        results: ``results/<dataset>``, with the cross-validation that the choice comes from.
        validated: Organ to its mean Dice in validation.
    """
    manifest, choice = Manifest(destination.manifest, models_key(ensemble.choice, ensemble.models, ensemble.labels)), ensemble.choice
    rows = _uncertainties(manifest.findings(cases))
    found = compare_with_training(rows, choice, results)
    with manifest.locked():  # or, of two calls that end together, the table of one would lack the other's cases
        everything = rows if destination.single else _uncertainties(manifest.all_findings())
        if everything:
            path = volumes_file(destination.folder, cases[0].name if destination.single else "")
            statistics = _has_statistics(destination, everything)
            channels, by = (ensemble.channels, choice) if statistics else ((), None)
            write_volumes(path, everything, validated or {}, channels=channels, choice=by, write=write)
            log.info("Volumes of the organs: %s", path)
        if destination.has_table(len(cases)):
            path = destination.folder / RANKED_CASES
            write_ranked_cases(path, everything, choice, compare_with_training(everything, choice, results), write=write)
            log.info("What to check first: %s", path)
    tell_likeness(found)
    warn_of_low_dice(validated or {})


def _has_statistics(destination: Destination, rows: Sequence[OrganUncertainty]) -> bool:
    """Whether the table has intensities: they are wanted now, or were before of cases in the same folder."""
    return destination.statistics or any(one.measures is not None and one.measures.mean for one in rows)


def _uncertainties(findings: Sequence[Any]) -> list[OrganUncertainty]:
    return [from_jsonable(one, OrganUncertainty) for one in findings]
