"""Reads and writes the description of a planned dataset, ``dataset.json`` in ``preprocessed/`` and ``results/``.

Paths in it are relative to the home folder where they lie inside it, so that a home that was copied or moved reads its own files.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..runtime.dataset_folders import path_in_present_home
from ..runtime.serialization import atomic_write, read_json, to_jsonable, write_json
from ..runtime.workspace import DESCRIPTION, Workspace
from ..schema import Dataset
from .datasets import inspect_dataset, missing_files, named_files
from .external_files import Permission, allowed_folders, check_data_files, check_external, folders_outside, remember_external
from .misnamed import misnamed
from .region_order import check_region_order


def write_description(path: Path, dataset: Dataset, home: Path) -> None:
    """Writes a dataset with paths relative to the home folder; those outside it stay absolute."""
    roots, plain = _home_aliases(home, dataset.folder), to_jsonable(dataset)
    plain["folder"] = _stored_path(dataset.folder, roots)
    for entry, case in zip([*plain["cases"], *plain["unlabelled"]], (*dataset.cases, *dataset.unlabelled), strict=True):
        entry["images"] = [_stored_path(image, roots) for image in case.images]
        entry["label"] = None if case.label is None else _stored_path(case.label, roots)
    write_json(path, {"format": dataset.file_format, **plain})


def read_description(path: Path, *, home: Path, raw: Path) -> Dataset:
    """Reads a dataset as `write_description` or 0.1.0 wrote it, with absolute paths; whether the files exist is not checked.

    Relative paths begin at `home`; files that are no longer where they were are looked for in the folder of datasets `raw`.

    Raises:
        ValueError: The file cannot be read as a dataset.
    """
    stored = read_json(path, Dataset)
    check_region_order(stored.labels, str(path))
    former = (home / stored.folder).parent
    # 0.1.0 wrote absolute paths and no format: files of the present home are its own, though the former home is still there.
    copied = "format" not in read_json(path, dict) and raw.parent == home and stored.folder.parent.name == raw.name

    def absolute(file: Path) -> Path:
        return path_in_present_home(home / file, former, raw, copied=copied)

    cases, unlabelled = (
        tuple(
            replace(case, images=tuple(map(absolute, case.images)), label=None if case.label is None else absolute(case.label))
            for case in some
        )
        for some in (stored.cases, stored.unlabelled)
    )
    return replace(stored, folder=absolute(stored.folder), cases=cases, unlabelled=unlabelled)


def check_leave(dataset: Dataset, home: Path) -> None:
    """Raises a ValueError where images or label maps of a described dataset lie where the home does not allow it to read."""
    cases = (*dataset.cases, *dataset.unlabelled)
    files = [(case.name, path) for case in cases for path in (*case.images, *([] if case.label is None else [case.label]))]
    allowed = allowed_folders(home, dataset.folder)
    check_external(files, dataset.folder, allowed)
    check_data_files(cases, dataset.folder, allowed)


def check_files(dataset: Dataset, home: Path) -> None:
    """Raises a ValueError where images or label maps of a described dataset are not there, or lie where it may not read."""
    check_leave(dataset, home)
    missing = [gap for case in dataset.cases for gap in missing_files(case.name, case.images, case.label)]
    if missing:
        others = sorted({gap.case for gap in missing[5:]} - {gap.case for gap in missing[:5]})
        more = f"; and of {', '.join(others)}" if others else ""
        hint = f"Put them back, or plan without these cases: autoseg_plan_and_preprocess -d {dataset.name}"
        raise ValueError(f"{dataset.folder}: {'; '.join(map(str, missing[:5]))}{more}. {hint}")


def with_references(dataset: Dataset, home: Path) -> Dataset:
    """The dataset without the cases whose label map was removed since it was described.

    Raises:
        ValueError: None is left, or files lie where the home does not allow it to read.
    """
    check_leave(dataset, home)
    cases = tuple(case for case in dataset.cases if case.label is not None and case.label.is_file())
    if not cases:
        raise ValueError(f"{dataset.folder}: expected the label maps of the cases, by which models are judged, found none")
    return replace(dataset, cases=cases)


def _home_aliases(home: Path, folder: Path) -> list[Path]:
    """The home folder, and how else a path inside it may begin: through a link."""
    linked = [one for one in folder.parents if one != home and home.is_dir() and one.is_dir() and one.samefile(home)]
    return [Path(os.path.abspath(home)), home, *linked]


def _stored_path(path: Path, roots: Sequence[Path]) -> str:
    for root in roots:
        # ".." may lead out of the home folder again; it stays in the path, as it means something else behind a link.
        if path.is_relative_to(root) and Path(os.path.normpath(path)).is_relative_to(root):
            return path.relative_to(root).as_posix()
    return str(path)


def raw_dataset(
    workspace: Workspace,
    which: str | int,
    *,
    groups: str | None = None,
    allow_external: bool = False,
    nifti_geometry: str | None = None,
    dry: bool = False,
) -> Dataset:
    """The dataset (by id, name or folder) as its own folder describes it today, for what comes before planning.

    It has the complete cases; see `complete_cases`.
    """
    return complete_cases(workspace, which, groups=groups, allow_external=allow_external, nifti_geometry=nifti_geometry, dry=dry)[0]


def complete_cases(
    workspace: Workspace,
    which: str | int,
    *,
    groups: str | None = None,
    allow_external: bool = False,
    nifti_geometry: str | None = None,
    dry: bool = False,
) -> tuple[Dataset, dict[str, str]]:
    """A dataset as its own folder describes it today, of the complete cases, and what the others lack or have twice, by case.

    With `allow_external` it may name files outside of its folder, now and later: the home remembers where, unless `dry`.

    Raises:
        ValueError: ``dataset.json`` is wrong, or no case is complete.
    """
    folder = workspace.dataset_folder(which)
    permission = allow_external if dry and allow_external else reading_permission(workspace, folder, allow_external=allow_external)
    dataset, missing = inspect_dataset(folder, groups=groups, allow_external=permission, nifti_geometry=nifti_geometry)
    if not dataset.cases:
        more = f"; and {len(missing) - 5} more (autoseg_check lists them all)" if len(missing) > 5 else ""
        words, _ = misnamed([(gap.case, gap.kind) for gap in missing])
        hint = f"the label maps' {words}, which their images lack; give both the same names: " if words else ""
        raise ValueError(f"{folder}: no case is complete: {hint}{'; '.join(map(str, missing[:5]))}{more}")
    names = dict.fromkeys(gap.case for gap in missing)
    return dataset, {name: "; ".join(gap.reason for gap in missing if gap.case == name) for name in names}


def reading_permission(workspace: Workspace, folder: Path, *, allow_external: bool = False) -> Permission:
    """From which folders outside of its own a dataset may read: those that the home remembers; with `allow_external` all, now and later."""
    if not allow_external:
        return allowed_folders(workspace.home, folder)
    remember_external(workspace.home, folder, folders_outside(named_files(folder), folder))
    return True


def planned_nifti_geometry(workspace: Workspace, folder: Path) -> str | None:
    """`Case.nifti_geometry` that a dataset was planned with; None where it is not planned."""
    path = workspace.descriptions().get(folder.name)
    return None if path is None else read_description(path, home=workspace.home, raw=folder.parent).nifti_geometry


def planned_dataset(workspace: Workspace, which: str | int) -> Dataset:
    """The dataset as it was planned: cases, patients, labels and windows; as its own folder describes it where nothing is planned.

    It is found by id, name or folder. Whether its images are still there is not looked at (`check_files`).

    Raises:
        ValueError: None or several fit, or a dataset that is not planned cannot be used.
    """
    folder = workspace.dataset_folder(which)
    path = workspace.descriptions().get(folder.name)
    if path is None:
        return raw_dataset(workspace, which)
    planned = read_description(path, home=workspace.home, raw=folder.parent)
    is_named = folder != workspace.raw / folder.name  # a folder that the user named is read, whatever was planned under its name
    return raw_dataset(workspace, which) if is_named and not _is_same_folder(planned.folder, folder) else planned


def write_planned_dataset(workspace: Workspace, dataset: Dataset) -> None:
    """Writes the description that every stage after planning reads."""
    write_description(workspace.preprocessed(dataset.name) / DESCRIPTION, dataset, workspace.home)


def copy_planned_dataset(workspace: Workspace, dataset: str) -> None:
    """Copies the planned description beside the models, unchanged."""
    source = workspace.preprocessed(dataset) / DESCRIPTION
    if source.is_file():
        with atomic_write(workspace.results(dataset) / DESCRIPTION) as partial:
            shutil.copyfile(source, partial)


def _is_same_folder(one: Path, other: Path) -> bool:
    return one == other or (one.is_dir() and other.is_dir() and one.samefile(other))
