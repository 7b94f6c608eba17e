"""Merges datasets in which different organs are annotated: images are referenced, and label maps too where their values stay.

An organ keeps the value it has in the first dataset that names it, if that is free, so that as few label maps as possible are rewritten.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..runtime.outputs import check_outside
from ..runtime.provenance import file_id, files_of, size_of
from ..runtime.serialization import atomic_write, write_json
from ..schema import Case, Dataset
from .datasets import load_dataset
from .external_files import Permission
from .images import ending_of, label_ending, write_label
from .label_names import IGNORE
from .label_placement import read_case_label
from .labels import apply_table, to_internal_values
from .sources import prefixes


@dataclass(frozen=True)
class _Source:
    """One of the datasets: the prefix of its cases' names, and the merged dataset's name of each organ and value of each file value."""

    dataset: Dataset
    prefix: str
    organs: dict[str, str]
    values: dict[int, int]


def merge_datasets(
    folders: Sequence[Path],
    destination: Path,
    *,
    allow_external: Sequence[Permission] = (),
    nifti_geometry: Sequence[str | None] = (),
) -> list[str]:
    """Writes a dataset folder that holds the cases of several, each with the organs that were annotated in it.

    Organs with the same name (upper and lower case are the same, the first spelling stays) are the same organ. A case is called
    ``<dataset>_<case>`` and its patient likewise; cases that share an image file, or whose image files are all the same byte for byte,
    count as one patient, so that no fold is trained on what it validates. Images stay where they are: ``dataset.json`` names them, beside
    the new folder by relative paths, elsewhere by absolute ones. Label maps whose values change are written into ``labelsTr``, and do not
    follow later changes of the original. The new folder appears when it is complete.

    Args:
        allow_external: Of each dataset, as for `load_dataset`; empty means of none. That the new one may read from the folders of the
            others is for the caller to note (`external_files.remember_external`).
        nifti_geometry: Of each dataset (`Case.nifti_geometry`), by which label maps that change are read; empty means None for all.

    Returns:
        Sentences for the user: what became of each dataset, and what to look at.

    Raises:
        ValueError: Fewer than two different datasets, or they do not fit together (regions, numbers of channels, an organ twice in one), a
            label map has undeclared values, or the destination exists or lies in one of them.
    """
    check_outside(destination, map(Path, folders))
    allowed = allow_external or (False,) * len(folders)
    each = zip(folders, allowed, nifti_geometry or (None,) * len(folders), strict=True)
    datasets = [load_dataset(Path(folder), allow_external=one, nifti_geometry=form) for folder, one, form in each]
    _check(datasets, destination)
    labels, sources = _renumbered(datasets)
    with atomic_write(destination) as partial:
        partial.mkdir(parents=True)
        write_json(partial / "dataset.json", _description(sources, labels, destination, partial), digest=False)
    return [*_odd_channels(datasets), *(_sentence(source) for source in sources)]


def _check(datasets: Sequence[Dataset], destination: Path) -> None:
    if destination.exists():
        raise ValueError(f"{destination}: expected a new folder for the merged dataset, found one that is there already")
    if len({os.path.realpath(dataset.folder) for dataset in datasets}) < max(2, len(datasets)):
        raise ValueError(f"datasets to merge: expected at least two different ones, got {', '.join(one.name for one in datasets)}")
    first = datasets[0]
    for dataset in datasets:
        if dataset.labels.regions:
            raise ValueError(
                f"{dataset.folder}: cannot be merged, as its labels are regions ({', '.join(dataset.labels.names)}); "
                "expected one value of its own for each organ"
            )
        if len(dataset.channels) != len(first.channels):
            raise ValueError(
                f"{dataset.folder}: expected {len(first.channels)} channels as in {first.name} ({', '.join(first.channels)}), "
                f"found {len(dataset.channels)} ({', '.join(dataset.channels)})"
            )
        lower = [name.lower() for name in dataset.labels.names]
        if len(set(lower)) < len(lower):
            raise ValueError(f"{dataset.folder}: expected organs whose names differ in more than case, found {list(dataset.labels.names)}")


def _renumbered(datasets: Sequence[Dataset]) -> tuple[dict[str, int], list[_Source]]:
    """The merged dataset's organs with their values (the ignore label among them), and what that means for each dataset."""
    labels: dict[str, int] = {}
    spelling: dict[str, str] = {}
    sources = []
    for dataset, prefix in zip(datasets, prefixes([one.name for one in datasets]), strict=True):
        declared = dict(zip(dataset.labels.names, (members[0] for members in dataset.labels.members), strict=True))
        declared |= {} if dataset.labels.ignore is None else {IGNORE: dataset.labels.ignore}
        for name, value in declared.items():
            merged = spelling.setdefault(name.lower(), name)
            taken = set(labels.values())
            free = value if value not in taken else next(one for one in range(1, len(taken) + 2) if one not in taken)
            labels.setdefault(merged, free)
        organs = {name: spelling[name.lower()] for name in dataset.labels.names}
        values = {value: labels[spelling[name.lower()]] for name, value in declared.items()}
        sources.append(_Source(dataset, prefix, organs, values))
    return labels, sources


def _description(sources: Sequence[_Source], labels: dict[str, int], destination: Path, partial: Path) -> dict[str, Any]:
    """The merged ``dataset.json``; label maps that change are written on the way."""
    cases = [(source, case) for source in sources for case in source.dataset.cases]
    files: dict[str, dict[str, Any]] = {}
    annotated: dict[tuple[str, ...], list[str]] = {}
    all_organs = tuple(name for name in labels if name != IGNORE)
    for source, case in tqdm(cases, desc="Merging", unit="case"):
        name = f"{source.prefix}_{case.name}"
        label = _label(source, case, name, destination, partial)
        files[name] = {"images": [_reference(image, destination) for image in case.images], "label": label}
        organs = {source.organs[organ] for organ in case.annotated or source.dataset.labels.names}
        if organs != set(all_organs):
            annotated.setdefault(tuple(organ for organ in all_organs if organ in organs), []).append(name)
    first = sources[0].dataset
    windows = {source.organs[organ]: window for source in reversed(sources) for organ, window in source.dataset.windows.items()}
    tolerances = {source.organs[organ]: value for source in reversed(sources) for organ, value in source.dataset.tolerances.items()}
    return {
        "channel_names": {str(number): channel for number, channel in enumerate(first.channels)},
        "labels": {"background": 0, **labels},
        "numTraining": len(files),
        "file_ending": first.file_ending,
        "merged_from": [source.dataset.name for source in sources],
        "sources": {f"{source.prefix}_{case.name}": case.source or source.dataset.name for source, case in cases},
        "dataset": files,
        "groups": _groups(cases),
        "annotated": [{"cases": names, "organs": list(organs)} for organs, names in annotated.items()],
        **({"windows": windows} if windows else {}),
        **({"tolerances": tolerances} if tolerances else {}),
    }


def _label(source: _Source, case: Case, name: str, destination: Path, partial: Path) -> str:
    """Path of the case's label map as ``dataset.json`` names it: its own, or that of a copy with other values."""
    if case.label is None:
        raise ValueError(f"{source.dataset.folder}: case {case.name}: expected a label map, found none")
    if all(value == merged for value, merged in source.values.items()):
        return _reference(case.label, destination)
    labels = source.dataset.labels
    label = read_case_label(case, labels)
    internal = to_internal_values(label.array, labels, source=str(case.label))
    table = [0, *(source.values[value] for value in labels.base_values)]
    table += [] if labels.ignore is None else [source.values[labels.ignore]]
    values = apply_table(internal, np.array(table, np.min_scalar_type(max(table))), 0)
    written = write_label(partial / "labelsTr" / f"{name}{label_ending(ending_of(case.label))}", values, label.geometry)
    return f"labelsTr/{written.name}"


def _reference(path: Path, destination: Path) -> str:
    """A path as the ``dataset.json`` of `destination` names it: relative where both lie in one folder of datasets, which may be moved."""
    path, beside = Path(os.path.abspath(path)), Path(os.path.abspath(destination))
    return Path(os.path.relpath(path, beside)).as_posix() if path.is_relative_to(beside.parent) else str(path)


def _groups(cases: Sequence[tuple[_Source, Case]]) -> dict[str, str]:
    """Case -> patient; patients of two datasets that share an image file, or of whom a case has copies of the other's files, are one."""
    contents = _contents({os.path.realpath(image) for _, case in cases for image in case.images})
    alias: dict[str, str] = {}
    seen: dict[str, str] = {}

    def final(group: str) -> str:
        while group in alias:
            group = alias[group]
        return group

    for source, case in cases:
        paths = [os.path.realpath(image) for image in case.images]
        # All channels together: one that is empty is the same in patients who have nothing to do with each other.
        for key in (*paths, "|".join(contents[path] for path in paths)):
            group = final(f"{source.prefix}_{case.group or case.name}")
            other = final(seen.setdefault(key, group))
            if other != group:
                alias[group] = other
    return {f"{source.prefix}_{case.name}": final(f"{source.prefix}_{case.group or case.name}") for source, case in cases}


def _contents(paths: Iterable[str]) -> dict[str, str]:
    """Image file (or DICOM folder) -> what is the same for exact copies: its size, and a hash where another one has that size."""
    sizes: dict[int, list[str]] = {}
    for path in sorted(paths):
        sizes.setdefault(size_of(Path(path)), []).append(path)
    # Of a folder the files' hashes in any order, as copies may have other names.
    return {
        path: f"{size}:{'+'.join(sorted(map(file_id, files_of(Path(path))))) if len(same) > 1 else ''}"
        for size, same in sizes.items()
        for path in same
    }


def _odd_channels(datasets: Sequence[Dataset]) -> list[str]:
    first = datasets[0]
    return [
        f"{dataset.name}: its channels are called {', '.join(dataset.channels)}; they are taken for {', '.join(first.channels)} of "
        f"{first.name}, and normalised so"
        for dataset in datasets[1:]
        if [name.lower() for name in dataset.channels] != [name.lower() for name in first.channels]
    ]


def _sentence(source: _Source) -> str:
    organs = ", ".join(source.organs[name] for name in source.dataset.labels.names)
    changes = ", ".join(f"{value} became {merged}" for value, merged in source.values.items() if value != merged)
    files = f"label maps written anew ({changes})" if changes else "images and label maps stay where they are"
    return f"{source.dataset.name}: {len(source.dataset.cases)} cases with {organs}; {files}"
