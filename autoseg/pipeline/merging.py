"""Several datasets of the home folder become one that is partially labelled."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ..data.datasets import load_dataset
from ..data.descriptions import planned_nifti_geometry, reading_permission
from ..data.external_files import external_folders, remember_external
from ..data.merge import merge_datasets
from ..data.nifti_geometry import check_form
from ..data.sources import bare_name
from ..runtime.dataset_folders import list_datasets, matching_names
from ..runtime.locks import remove_partial_files
from ..runtime.workspace import find_workspace
from ..schema.names import check_name


def merge(
    which: Sequence[str | int],
    number: int,
    *,
    name: str | None = None,
    home: str | Path | None = None,
    allow_external: bool = False,
    nifti_geometry: str | None = None,
    mapping: Sequence[str] = (),
) -> tuple[Path, list[str]]:
    """Makes ``raw/DatasetNNN_<name>`` out of several datasets with different organs (`autoseg.data.merge`).

    Args:
        which: Ids, names or folders of the datasets.
        number: Id of the new one, 1 to 999.
        name: Its name; None joins theirs.
        allow_external: Let the ``dataset.json`` of each name files outside of its folder. That the new one may read theirs is remembered.
        nifti_geometry: See `autoseg.schema.Case`; None means as each dataset was planned. Planning the new one needs it, too.
        mapping: What becomes of labels, such as ``lits:tumor=liver`` or ``kits:kidney=left kidney+right kidney`` (`data.label_mapping`).

    Returns:
        The new folder, and sentences that say what became of each dataset.

    Raises:
        ValueError: The datasets do not fit together, or the id or the name cannot be used.
    """
    if not which:
        raise ValueError("datasets to merge: expected at least two, got none")
    check_form(nifti_geometry)
    workspace = find_workspace(home, dataset=str(which[0]))
    folders = [workspace.dataset_folder(one) for one in which]
    name = name or "_".join(bare_name(folder.name) for folder in folders)
    if not re.fullmatch(r"[A-Za-z0-9_.+-]+", name):
        raise ValueError(f"name of the merged dataset: expected letters, digits and _ . + -, got {name!r}")
    check_name(f"Dataset{number:03d}_{name}", "dataset")
    if not 1 <= number <= 999:
        raise ValueError(f"id of the merged dataset: expected 1 to 999, got {number}")
    remove_partial_files(workspace.raw)
    taken = matching_names([folder.name for folder in list_datasets(workspace.raw)], number)
    if taken:
        raise ValueError(f"id of the merged dataset: expected a free one, got {number}, which {', '.join(taken)} has")
    target = workspace.raw / f"Dataset{number:03d}_{name}"
    allowed = [reading_permission(workspace, folder, allow_external=allow_external) for folder in folders]
    forms = [nifti_geometry or planned_nifti_geometry(workspace, folder) for folder in folders]
    messages = merge_datasets(folders, target, allow_external=allowed, nifti_geometry=forms, mapping=mapping)
    remember_external(workspace.home, target, external_folders(load_dataset(target, allow_external=True)))
    return target, messages
