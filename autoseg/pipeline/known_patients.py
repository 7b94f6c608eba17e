"""Which cases are of one patient, as far as anybody said so: the user, the dataset, or those who predicted the cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..data.dataset_json import read_info
from ..data.dicom import patient_of
from ..data.patients import patients_as_far_as_known, patients_of, read_groups
from ..inference.manifest import recorded_cases
from ..schema import Case, Dataset, Plan

Known = tuple[str, dict[str, str]]
"""Where patients are known from, in words, and case to patient."""


def known_patients(
    cases: Sequence[str], predictions: Sequence[Path], *, groups: str | None = None, dataset: Dataset | None = None
) -> list[Known]:
    """What is known of the patients of some cases, what goes first first.

    Args:
        groups: As the user gave them (`read_groups`): of every case.
        dataset: Whose patients count next.
        predictions: Folders or files of label maps, with notes of what they were made from.

    Raises:
        ValueError: `groups` is no such file or expression, or lacks a case.
    """
    known: list[Known] = []
    if groups:
        known.append(("--groups", patients_of(Path("--groups"), cases, read_groups(groups))))
    if dataset is not None:
        known.append(("those of the dataset", {case.name: case.group or case.name for case in dataset.cases}))
    recorded = {name: patient for one in predictions for name, patient in _recorded(one, cases).items()}
    return [*known, ("noted with the predictions", recorded)]


def _recorded(prediction: Path, cases: Sequence[str]) -> dict[str, str]:
    """The patients of predicted cases: as noted then, else as their images say that are still there."""
    entries = {name: entry for name, entry in recorded_cases(prediction).items() if name in cases}
    noted = {name: str(entry["patient"]) for name, entry in entries.items() if entry.get("patient")}
    sources = {name: [Path(one) for one in entry.get("source") or []] for name, entry in entries.items() if name not in noted}
    found = {name: _patient_of_image(name, paths[0]) for name, paths in sources.items() if paths and paths[0].exists()}
    return noted | {name: patient for name, patient in found.items() if patient}


def _patient_of_image(name: str, image: Path) -> str:
    """The patient of an image by the ``groups`` of the dataset that it lies in, or by its DICOM headers; empty where nobody says so."""
    patient = patients_as_far_as_known([name], _groups_beside(image))[name]
    return patient if patient != name else patient_of(image) if image.is_dir() else ""


def _groups_beside(image: Path) -> Mapping[str, str] | str | None:
    """The ``groups`` of the dataset in which an image lies, ``imagesTs/a.nii.gz``; None where it lies in none."""
    folder = image.parents[1] if len(image.parents) > 1 else image.parent
    try:
        groups = read_info(folder).get("groups") if (folder / "dataset.json").is_file() else None
    except ValueError:  # of another program
        return None
    return groups if isinstance(groups, (str, dict)) else None


def with_patients(cases: Sequence[Case], plan: Plan) -> list[Case]:
    """New cases with their patients, where the plan's expression for patients, or the dataset that an image lies in, says so."""
    planned = plan.settings.groups if plan.settings is not None else None
    return [_with_patient(case, planned or _groups_beside(case.images[0])) for case in cases]


def _with_patient(case: Case, groups: Mapping[str, str] | str | None) -> Case:
    return replace(case, group=patients_as_far_as_known([case.name], groups)[case.name])
