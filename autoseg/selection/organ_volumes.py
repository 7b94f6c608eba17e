"""The table of the organs' volumes that is written with every prediction: a row for each organ of each case."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from ..data.hounsfield import is_ct
from ..inference.organ_measures import OrganMeasures
from ..inference.uncertainty import OrganUncertainty
from ..runtime.dataset_folders import natural_key
from ..runtime.serialization import Writer, atomic_write
from ..runtime.shown_text import spreadsheet_cell
from ..schema import Choice
from .case_ranking import ranked

VOLUMES = "volumes.csv"
"""In the folder of the label maps; of a single file that was named, behind its name."""

HEADS = {"ml": ("case", "organ", "volume_ml", "voxels"), "mm2": ("case", "organ", "area_mm2", "pixels")}
"""Unit to the first columns."""


def volumes_file(folder: Path, single: str = "") -> Path:
    """Where the table lies: in the folder of the label maps, or beside the file of the only case, whose name without ending is `single`."""
    return folder / (f"{single}_{VOLUMES}" if single else VOLUMES)


def is_volumes_table(path: Path) -> bool:
    """Whether a file is such a table, by its name and its first line."""
    if not path.name.endswith(VOLUMES):
        return False
    with path.open("rb") as file:
        first = file.readline(1000).decode(errors="replace")
    return any(first.startswith(",".join(head)) for head in HEADS.values())


def write_volumes(
    path: Path,
    uncertainties: Sequence[OrganUncertainty],
    validated: Mapping[str, float],
    *,
    channels: Sequence[str] = (),
    choice: Choice | None = None,
    write: Writer = atomic_write,
) -> None:
    """Writes the volume of each organ of each case, or its area in 2D, with its number of voxels and its Dice in validation.

    Args:
        uncertainties: Organs of cases with their measures; those of earlier versions have a volume only.
        validated: Organ to the mean Dice of held-out cases.
        channels: Also the mean and standard deviation of these channels' intensities, and the estimated Dice.
        choice: For the estimate.
    """
    table = io.StringIO()
    _write_table(table, sorted(uncertainties, key=lambda one: natural_key(one.case)), validated, channels, choice)
    content = table.getvalue().encode()
    if path.is_file() and path.read_bytes() == content:
        return  # nothing is written by a call that finds all predicted already
    with write(path) as partial:
        partial.write_bytes(content)


def _write_table(
    table: TextIO, rows: Sequence[OrganUncertainty], validated: Mapping[str, float], channels: Sequence[str], choice: Choice | None
) -> None:
    unit = next((one.measures.unit for one in rows if one.measures is not None), "ml")
    estimated = {(row.uncertainty.case, row.uncertainty.organ): row.dice for row in ranked(rows, choice)} if choice is not None else {}
    intensities = [name for channel in channels for name in (f"mean_{_in_units(channel)}", f"sd_{_in_units(channel)}")]
    writer = csv.writer(table, lineterminator="\n")
    further = [*map(spreadsheet_cell, intensities), *(["estimated_dice"] if choice is not None else [])]
    writer.writerow([*HEADS[unit], "validation_dice", *further])
    for one in rows:
        measures = one.measures or OrganMeasures(-1, one.volume_ml)
        pairs = zip(measures.mean, measures.deviation, strict=True)
        values = [value for pair in pairs for value in pair] or [math.nan] * len(intensities)
        sizes = [_cell(measures.size, ".6g"), str(measures.voxels) if measures.voxels >= 0 else ""]
        cells = [_cell(validated.get(one.organ, math.nan), ".4f"), *(_cell(value, ".6g") for value in values)]
        cells += [_cell(estimated[one.case, one.organ], ".4f")] if choice is not None else []
        writer.writerow([spreadsheet_cell(one.case), spreadsheet_cell(one.organ), *sizes, *cells])


def _in_units(channel: str) -> str:
    return f"{channel}_HU" if is_ct(channel) else channel


def _cell(value: float, form: str) -> str:
    return "" if math.isnan(value) else format(value, form)
