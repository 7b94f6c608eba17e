"""What is wrong with a dataset, case by case."""

from __future__ import annotations

from pathlib import Path

from ..data import checks
from ..data.descriptions import planned_nifti_geometry, reading_permission
from ..data.external_files import Permission
from ..runtime.workspace import Workspace, find_workspace


def check_dataset(
    which: str | int | Path,
    *,
    home: str | Path | None = None,
    groups: str | None = None,
    workers: int | None = None,
    allow_external: Permission = False,
    nifti_geometry: str | None = None,
) -> list[checks.Problem]:
    """Checks every file of every case and lists the problems by case.

    Args:
        which: Dataset id, name or folder.
        home: Home folder; a dataset that is named by its folder needs none.
        groups: Regular expression that finds the patient in a case's name.
        workers: Processes; 0 works in this one, None takes what cores and memory allow.
        allow_external: Let ``dataset.json`` name files outside of its folder (all: True, or in these folders).
        nifti_geometry: ``sform`` or ``qform`` where a NIfTI file's contradict each other; None means as planned.

    Raises:
        ValueError: There is no such dataset, or its ``dataset.json`` is missing or wrong.
    """
    folder, workspace = Path(str(which)).expanduser(), _workspace(which, home)
    if workspace is not None and not (folder / "dataset.json").is_file():
        folder = workspace.dataset_folder(str(which))
    if workspace is not None:
        nifti_geometry = nifti_geometry or planned_nifti_geometry(workspace, folder)
        allow_external = allow_external or reading_permission(workspace, folder)
    return checks.check_dataset(folder, groups=groups, workers=workers, allow_external=allow_external, nifti_geometry=nifti_geometry)


def _workspace(which: str | int | Path, home: str | Path | None) -> Workspace | None:
    """The home; None where there is none and the dataset is named by its folder."""
    try:
        return find_workspace(home, dataset=str(which))
    except ValueError:
        if Path(str(which)).expanduser().is_dir():
            return None
        raise
