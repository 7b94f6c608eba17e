"""A dataset in one line: cases, patients, organs, size and spacing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..schema import Dataset, Geometry
from .datasets import load_dataset
from .external_files import Permission
from .images import read_case_geometry


def describe_dataset(
    folder: Path, *, groups: str | None = None, allow_external: Permission = False, nifti_geometry: str | None = None
) -> str:
    """Describes a dataset folder whose files can be read, from their headers; the options are those of `load_dataset`."""
    return dataset_summary(load_dataset(folder, groups=groups, allow_external=allow_external, nifti_geometry=nifti_geometry))


def dataset_summary(dataset: Dataset, known: Mapping[str, Geometry] | None = None) -> str:
    """One line: "24 cases, 12 patients, 3 organs (...), 1 channel (CT), spacing ... mm, shape ..."; `known` headers are not read."""
    geometries = [(known or {}).get(case.name) or read_case_geometry(case) for case in dataset.cases]
    patients = len({case.group or case.name for case in dataset.cases})
    names = dataset.labels.names
    listed = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    kind = "regions" if dataset.labels.regions else "organs"
    parts = [
        _count(len(dataset.cases), "case"),
        _count(patients, "patient"),
        f"{_count(len(names), kind[:-1])} ({listed})",
        f"{_count(len(dataset.channels), 'channel')} ({', '.join(dataset.channels)})",
        f"spacing {_spread([one.spacing for one in geometries])} mm",
        f"shape {_spread([one.shape for one in geometries])}",
        *([_count(len(dataset.unlabelled), "unlabelled image")] if dataset.unlabelled else []),
    ]
    return ", ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _spread(rows: Sequence[Sequence[float]]) -> str:
    """The median of each axis, with its range where it varies; of rows of several lengths (2D and 3D) each is listed."""
    lengths = sorted({len(row) for row in rows})
    texts = []
    for length in lengths:
        table = np.array([row for row in rows if len(row) == length], float)
        low, middle, high = table.min(axis=0), np.median(table, axis=0), table.max(axis=0)
        axes = [f"{m:.4g}" if lo == hi else f"{m:.4g} ({lo:.4g} to {hi:.4g})" for lo, m, hi in zip(low, middle, high, strict=True)]
        texts.append(" x ".join(axes))
    return "; ".join(texts)
