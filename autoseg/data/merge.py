"""Merges datasets in which different organs are annotated: images are referenced, and label maps too where their values stay.

An organ keeps the value it has in the first dataset that names it, if that is free, so that as few label maps as possible are rewritten.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..runtime.outputs import check_outside
from ..runtime.provenance import file_id, files_of, size_of
from ..runtime.serialization import atomic_write, write_json
from ..schema import Case, Dataset
from .annotations import UNION, members_of
from .datasets import load_dataset
from .external_files import Permission
from .images import ending_of, label_ending, write_label
from .label_clashes import check_clashes
from .label_mapping import MappedLabels, Organs, mapped_labels
from .label_names import IGNORE
from .label_placement import read_case_label
from .labels import apply_table, to_internal_values
from .sources import prefixes


@dataclass(frozen=True)
class _Source:
    """One of the datasets: what becomes of its labels, and the prefix of its cases' names."""

    mapped: MappedLabels
    prefix: str

    @property
    def dataset(self) -> Dataset:
        return self.mapped.dataset

    def annotated(self, case: Case) -> dict[Organs, tuple[str, ...]]:
        """What is annotated of a case in the merged dataset, organs and unions, to the labels that it is made of.

        It is known where all labels that become one of its organs were annotated.
        """
        names, organs = self.dataset.labels.names, self.mapped.organs
        claims: dict[Organs, set[str]] = {}
        for entry in case.annotated or names:
            parts = members_of(entry, names)
            new = tuple(dict.fromkeys(organ for part in parts for organ in organs[part]))
            claims.setdefault(new, set()).update(parts)
        needed = {new: {name for name in names if organs[name] and set(organs[name]) <= set(new)} for new in claims if new}
        return {new: tuple(name for name in names if name in claims[new]) for new, labels in needed.items() if labels <= claims[new]}

    def values(self, case: Case, labels: Mapping[str, int]) -> dict[int, int]:
        """Value in the case's label map to that in the merged one, of labels that were annotated in it; `labels` are the merged ones."""
        own = self.dataset.labels
        merged = {label: labels[new[0]] for new, olds in self.annotated(case).items() for label in olds}
        shown = {name for entry in case.annotated or own.names for name in members_of(entry, own.names)}
        found = {members[0]: merged.get(name, 0) for name, members in zip(own.names, own.members, strict=True) if name in shown}
        return found if own.ignore is None else found | {own.ignore: labels[IGNORE]}


def merge_datasets(
    folders: Sequence[Path],
    destination: Path,
    *,
    allow_external: Sequence[Permission] = (),
    nifti_geometry: Sequence[str | None] = (),
    mapping: Sequence[str] = (),
) -> list[str]:
    """Writes a dataset folder that holds the cases of several, each with the organs that were annotated in it.

    Organs with the same name (upper and lower case are the same, the first spelling stays) are the same organ. A case is called
    ``<dataset>_<case>`` and its patient likewise, also of images without label maps (``unlabelled``); cases that share an image file, or
    whose image files are all the same byte for byte, count as one patient, so that no fold is trained on what it validates. Images stay
    where they are: ``dataset.json`` names them, beside the new folder by relative paths, elsewhere by absolute ones. Label maps whose
    values change are written into ``labelsTr``, and do not follow later changes of the original. The new folder appears when it
    is complete.

    Args:
        allow_external: Of each dataset, as for `load_dataset`; empty means of none. That the new one may read from the folders of the
            others is for the caller to note (`external_files.remember_external`).
        nifti_geometry: Of each dataset (`Case.nifti_geometry`), by which label maps that change are read; empty means None for all.
        mapping: What becomes of labels (`label_mapping`): ``lits:tumor=liver``, ``kits:kidney=left kidney+right kidney``.

    Returns:
        Sentences for the user: what became of each dataset, and what to look at.

    Raises:
        ValueError: Fewer than two different datasets, or they do not fit together (numbers of channels, an organ twice in one, labels that
            mean different things: `label_clashes`), a label map has undeclared values, or the destination exists or lies in one of them.
    """
    check_outside(destination, map(Path, folders))
    allowed = allow_external or (False,) * len(folders)
    each = zip(folders, allowed, nifti_geometry or (None,) * len(folders), strict=True)
    datasets = [load_dataset(Path(folder), allow_external=one, nifti_geometry=form) for folder, one, form in each]
    _check(datasets, destination)
    mapped = mapped_labels(datasets, mapping)
    check_clashes(mapped)
    sources = [_Source(one, prefix) for one, prefix in zip(mapped, prefixes([one.name for one in datasets]), strict=True)]
    labels = _renumbered(sources)
    with atomic_write(destination) as partial:
        partial.mkdir(parents=True)
        write_json(partial / "dataset.json", _description(sources, labels, destination, partial), digest=False)
    return [*_odd_channels(datasets), *(_sentence(source, labels) for source in sources)]


def _check(datasets: Sequence[Dataset], destination: Path) -> None:
    if destination.exists():
        raise ValueError(f"{destination}: expected a new folder for the merged dataset, found one that is there already")
    if len({os.path.realpath(dataset.folder) for dataset in datasets}) < max(2, len(datasets)):
        raise ValueError(f"datasets to merge: expected at least two different ones, got {', '.join(one.name for one in datasets)}")
    first = datasets[0]
    for dataset in datasets:
        if len(dataset.channels) != len(first.channels):
            raise ValueError(
                f"{dataset.folder}: expected {len(first.channels)} channels as in {first.name} ({', '.join(first.channels)}), "
                f"found {len(dataset.channels)} ({', '.join(dataset.channels)})"
            )
        lower = [name.lower() for name in dataset.labels.names]
        if len(set(lower)) < len(lower):
            raise ValueError(f"{dataset.folder}: expected organs whose names differ in more than case, found {list(dataset.labels.names)}")


def _renumbered(sources: Sequence[_Source]) -> dict[str, int]:
    """The merged dataset's organs with their values, the ignore label among them."""
    labels: dict[str, int] = {}
    for source in sources:
        own = source.dataset.labels
        declared: dict[str, int] = {}
        for name, members in zip(own.names, own.members, strict=True):
            if len(new := source.mapped.organs[name]) == 1:
                declared.setdefault(new[0], members[0])
        declared |= {} if own.ignore is None else {IGNORE: own.ignore}
        for name, value in declared.items():
            taken = set(labels.values())
            free = value if value not in taken else next(one for one in range(1, len(taken) + 2) if one not in taken)
            labels.setdefault(name, free)
    return labels


def _description(sources: Sequence[_Source], labels: dict[str, int], destination: Path, partial: Path) -> dict[str, Any]:
    """The merged ``dataset.json``; label maps that change are written on the way."""
    cases = [(source, case) for source in sources for case in source.dataset.cases]
    more = [(source, case) for source in sources for case in source.dataset.unlabelled]
    _check_names([*cases, *more])
    files: dict[str, dict[str, Any]] = {}
    annotated: dict[tuple[str, ...], list[str]] = {}
    all_organs = tuple(name for name in labels if name != IGNORE)
    for source, case in tqdm(cases, desc="Merging", unit="case"):
        name = f"{source.prefix}_{case.name}"
        label = _label(source, case, name, labels, (destination, partial))
        files[name] = {"images": [_reference(image, destination) for image in case.images], "label": label}
        known = source.annotated(case)
        if not known:
            raise ValueError(f"{source.dataset.folder}: case {case.name}: expected an organ that is left by the mapping, found none")
        if known.keys() != {(organ,) for organ in all_organs}:
            entries = [organ for organ in all_organs if (organ,) in known] + [UNION.join(one) for one in known if len(one) > 1]
            annotated.setdefault(tuple(entries), []).append(name)
    first = sources[0].dataset
    windows, tolerances = _of_organs(sources, "windows"), _of_organs(sources, "tolerances")
    unlabelled = {f"{source.prefix}_{case.name}": [_reference(image, destination) for image in case.images] for source, case in more}
    return {
        "channel_names": {str(number): channel for number, channel in enumerate(first.channels)},
        "labels": {"background": 0, **labels},
        "numTraining": len(files),
        "file_ending": first.file_ending,
        "merged_from": [source.dataset.name for source in sources],
        "sources": {f"{source.prefix}_{case.name}": case.source or source.dataset.name for source, case in cases},
        "dataset": files,
        **({"unlabelled": unlabelled} if unlabelled else {}),
        "groups": _groups([*cases, *more]),
        "annotated": [{"cases": names, "organs": list(organs)} for organs, names in annotated.items()],
        **({"windows": windows} if windows else {}),
        **({"tolerances": tolerances} if tolerances else {}),
    }


def _check_names(cases: Sequence[tuple[_Source, Case]]) -> None:
    """Refuses cases that would have one name: case ``b_c`` of ``A``, and ``c`` of ``A_b``."""
    seen: dict[str, _Source] = {}
    for source, case in cases:
        other = seen.setdefault(f"{source.prefix}_{case.name}".lower(), source)
        if other is not source:
            names = f"{other.dataset.name} and {source.dataset.name}"
            raise ValueError(f"{names}: cases of both would be called {source.prefix}_{case.name}; rename one of the folders")


def _of_organs(sources: Sequence[_Source], entry: str) -> dict[str, Any]:
    """An entry of the datasets that gives labels a value each, by the merged organs; the first dataset's counts."""
    return {
        organ: value
        for source in reversed(sources)
        for label, value in getattr(source.dataset, entry).items()
        for organ in source.mapped.organs[label]
    }


def _label(source: _Source, case: Case, name: str, merged: Mapping[str, int], folders: tuple[Path, Path]) -> str:
    """Path of the case's label map as ``dataset.json`` names it: its own, or that of a copy with other values."""
    if case.label is None:
        raise ValueError(f"{source.dataset.folder}: case {case.name}: expected a label map, found none")
    destination, partial = folders
    changes = source.values(case, merged)
    if all(value == new for value, new in changes.items()):
        return _reference(case.label, destination)
    labels = source.dataset.labels
    label = read_case_label(case, labels)
    internal = to_internal_values(label.array, labels, source=str(case.label))
    table = [0, *(changes.get(value, 0) for value in labels.base_values)]
    table += [] if labels.ignore is None else [changes[labels.ignore]]
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


def _sentence(source: _Source, labels: Mapping[str, int]) -> str:
    own, mapped = source.dataset.labels, source.mapped.organs
    organs = ", ".join(dict.fromkeys(UNION.join(mapped[name]) for name in own.names if mapped[name]))
    renamed = ", ".join(
        f"{name} is {UNION.join(new) or 'background'}" for name, new in mapped.items() if tuple(map(str.lower, new)) != (name.lower(),)
    )
    values = {members[0]: labels[new[0]] if (new := mapped[name]) else 0 for name, members in zip(own.names, own.members, strict=True)}
    values |= {} if own.ignore is None else {own.ignore: labels[IGNORE]}
    changes = ", ".join(f"{value} became {merged}" for value, merged in values.items() if value != merged)
    files = f"label maps written anew ({changes})" if changes else "images and label maps stay where they are"
    return (
        f"{source.dataset.name}: {len(source.dataset.cases)} cases with {organs or 'no organ'}{f' ({renamed})' if renamed else ''}"
        f"{f' and {more} images without label maps' if (more := len(source.dataset.unlabelled)) else ''}; {files}"
    )
