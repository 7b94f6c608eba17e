"""Checks every case of a dataset and lists all problems. `autoseg.data.repair` repairs what can be repaired."""

from __future__ import annotations

import filecmp
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..runtime.worker_pool import run_cases
from ..schema import Case, Dataset, Geometry, Image, Labels
from .annotations import unannotated_voxels
from .case_sizes import case_voxels
from .datasets import hidden_images, inspect_dataset
from .external_files import Permission
from .geometry import geometry_difference
from .hounsfield import is_ct, not_in_hounsfield_units, warn_of_other_units
from .images import nifti_forms, read_image, read_stored, stored_direction
from .integer_labels import FractionalError
from .label_placement import Reading, describe_readings, placement, read_case_label, voxels_fit
from .labels import undeclared_values
from .raster_checks import NotOrthonormalError

log = logging.getLogger(__name__)

MISSING_CHANNEL = "missing channel"
MISSING_LABEL = "missing label"
UNREADABLE = "unreadable file"
GEOMETRY = "geometry mismatch"
COPY = "label map that is the image"
NOT_FINITE = "NaN or infinite voxels"
UNDECLARED = "undeclared label"
FRACTIONAL = "fractional label"
EMPTY = "empty label"
UNANNOTATED = "organ that dataset.json says is not annotated"
DUPLICATE_IMAGE = "same image twice"
NOT_ORTHONORMAL = "direction not orthonormal"
AMBIGUOUS = "contradictory header"
CONVERTED = "lengths in another unit than mm"
SETTLED = "contradictory header, read by the rule"

ROUNDING = 1e-3
"""Fractional labels no further from an integer than this are rounding errors of another program."""

ORTHONORMAL = 1e-4
"""Largest entry of D D^T - 1 for a direction matrix D that counts as orthonormal."""

_BYTES_PER_VOXEL = 24


@dataclass(frozen=True)
class Problem:
    """A problem of a case: its kind (one of this module's), what was found in a file with its measure, and what was expected.

    Attributes:
        fixable: Whether a repaired copy can be written without knowing more than the files tell.
        readings: Of a label map that lies elsewhere than its image: which headers may be the true one (`label_placement`).
        is_note: Whether the case can be used as it is: what was found is said, and is nobody's fault to repair.
    """

    case: str
    file: str
    kind: str
    found: str
    expected: str
    fixable: bool = False
    readings: tuple[Reading, ...] = ()
    is_note: bool = False


@dataclass(frozen=True)
class CheckedCase:
    """What the check of a case found.

    Attributes:
        problems: Of its files.
        digest: A hash of its images' voxels; empty where they cannot be read.
        other_units: The values of a channel called CT that cannot be Hounsfield units; mostly empty.
        geometry: Of its first channel; None where that cannot be read.
    """

    problems: list[Problem]
    digest: str = ""
    other_units: str = ""
    geometry: Geometry | None = None


def check_dataset(
    folder: Path,
    *,
    groups: str | None = None,
    workers: int | None = None,
    allow_external: Permission = False,
    nifti_geometry: str | None = None,
) -> list[Problem]:
    """Checks every file of every case and lists the problems by case (`checked_dataset`)."""
    return checked_dataset(folder, groups=groups, workers=workers, allow_external=allow_external, nifti_geometry=nifti_geometry)[1]


def checked_dataset(
    folder: Path,
    *,
    groups: str | None = None,
    workers: int | None = None,
    allow_external: Permission = False,
    nifti_geometry: str | None = None,
) -> tuple[Dataset, list[Problem], dict[str, Geometry]]:
    """Checks every file of every case; one problem does not hide the others.

    An empty label is listed, although it may be right (a healthy patient). An image may be there twice if the patient is the same and
    other organs were annotated, as in a dataset that was merged. Nothing but a missing or wrong ``dataset.json`` is a ValueError.

    Args:
        groups: As for `autoseg.data.datasets.load_dataset`, and so `allow_external` and `nifti_geometry`.
        workers: Processes; 0 works in this one, None takes what cores and memory allow.

    Returns:
        The complete cases; the problems by case; the geometry of each case whose first channel can be read.
    """
    dataset, missing = inspect_dataset(folder, groups=groups, allow_external=allow_external, nifti_geometry=nifti_geometry)
    _say_hidden(folder)
    problems = [Problem(m.case, str(m.file), m.kind, m.found, m.expected or "this file") for m in missing]
    cases = (*dataset.cases, *dataset.unlabelled)
    jobs = {case.name: (case, dataset.channels, dataset.labels) for case in cases}
    memory = {case.name: case_voxels(case) * _BYTES_PER_VOXEL * len(case.images) for case in cases}
    results, failures = run_cases(check_case, jobs, workers=workers, title="Checking", memory_per_job=memory)
    for name, reason in failures.items():
        problems.append(Problem(name, str(jobs[name][0].images[0]), UNREADABLE, reason, "a case that can be read"))
    first: dict[str, list[Case]] = {}
    for case in cases:
        checked = results.get(case.name, CheckedCase([]))
        problems += checked.problems
        earlier = first.setdefault(checked.digest, []) if checked.digest else []
        same = next((one for one in earlier if not _are_complementary(one, case)), None)
        if same is not None:
            problems.append(
                Problem(case.name, str(case.images[0]), DUPLICATE_IMAGE, f"the voxels of case {same.name}", "an image of its own", True)
            )
        else:
            earlier.append(case)
    warn_of_other_units({name: checked.other_units for name, checked in results.items() if checked.other_units}, len(cases))
    geometries = {name: checked.geometry for name, checked in results.items() if checked.geometry is not None}
    return dataset, sorted(problems, key=lambda problem: (problem.case, problem.file)), geometries


def _say_hidden(folder: Path) -> None:
    if hidden := hidden_images(folder):
        log.info("%s: %d hidden files (such as %s) are no images and were left out", folder, len(hidden), hidden[0].name)


def check_case(case: Case, channels: Sequence[str], labels: Labels) -> CheckedCase:
    """Checks the files of one case."""
    problems: list[Problem] = []
    images = []
    for path in case.images:
        problems += (contradiction := _check_header(case, path))
        image, found = _check_image(case, path)
        problems += [] if any(not one.is_note for one in contradiction) else found
        images.append(image)
    readable = [image for image in images if image is not None]
    n_channels = sum(len(image.array) for image in readable)
    if len(readable) == len(images) and n_channels != len(channels):
        expected = f"{len(channels)} channels: {', '.join(channels)}"
        problems.append(Problem(case.name, str(case.images[-1]), MISSING_CHANNEL, f"{n_channels} channels", expected))
    for image in readable[1:]:
        problems += _check_channel_place(case.name, image, readable[0].geometry)
    if case.label is not None:
        # A picture's label map is read with the place of its image, and fails with it.
        known = {problem.found for problem in problems if problem.kind == UNREADABLE}
        found = _check_label(case, labels, readable[0] if readable else None)
        problems += [one for one in found if one.kind != UNREADABLE or one.found not in known]
    digest = hashlib.blake2b(digest_size=16)
    for image in readable:
        digest.update(str(image.array.shape).encode())
        digest.update(np.ascontiguousarray(image.array).data)
    is_complete = len(readable) == len(images)
    geometry = images[0].geometry if images[0] is not None else None
    return CheckedCase(
        problems, digest.hexdigest() if is_complete else "", _other_units(readable, channels) if is_complete else "", geometry
    )


def _are_complementary(first: Case, second: Case) -> bool:
    """Whether two cases with the same image are one patient of whom different organs were annotated."""
    return (first.group or first.name) == (second.group or second.name) and first.annotated != second.annotated


def read_with_non_finite(path: Path, nifti_geometry: str | None = None) -> Image:
    """As `read_image` of one path, but with the voxels that are NaN or infinite, which are otherwise read as 0."""
    return read_image([path], nifti_geometry=nifti_geometry, keep_non_finite=True)


def _check_header(case: Case, path: Path) -> list[Problem]:
    """What the header of a NIfTI file says against itself, with both readings; of a file that cannot be read nothing."""
    try:
        forms = nifti_forms(path, case.nifti_geometry)
    except (ValueError, OSError):
        return []
    if forms is not None and forms.converted and not forms.contradiction:
        return [Problem(case.name, str(path), CONVERTED, f"{forms.converted}; {forms.reading}", "millimetres; converted", is_note=True)]
    if forms is None or not forms.contradiction:
        return []
    if forms.reading is None:
        return [Problem(case.name, str(path), AMBIGUOUS, str(forms), "one place; --nifti-geometry sform or qform says which is true")]
    return [Problem(case.name, str(path), SETTLED, str(forms), f"one place; taken: {forms.reading.name}", is_note=True)]


def _check_image(case: Case, path: Path) -> tuple[Image | None, list[Problem]]:
    name = case.name
    try:
        image = read_with_non_finite(path, case.nifti_geometry)
    except ValueError as error:
        return None, [_unreadable(case, path, error)]
    problems = _check_direction(name, path, image.geometry)
    wrong = int(image.array.size - np.isfinite(image.array).sum())
    if wrong:
        repairable = wrong < image.array.size
        problems.append(Problem(name, str(path), NOT_FINITE, f"{wrong} of {image.array.size} voxels", "finite numbers", repairable))
    return image, problems


def _other_units(images: Sequence[Image], channels: Sequence[str]) -> str:
    """What the channels called CT have where that cannot be Hounsfield units, of a case with all its channels."""
    arrays = [array for image in images for array in image.array]
    found = [not_in_hounsfield_units(array) for array, channel in zip(arrays, channels) if is_ct(channel)]
    return next(filter(None, found), "")


def _check_label(case: Case, labels: Labels, reference: Image | None) -> list[Problem]:
    name, path = case.name, Path(str(case.label))
    problems = _check_header(case, path)
    if any(image.is_file() and path.is_file() and filecmp.cmp(image, path, shallow=False) for image in case.images):
        return [*problems, _copy_of_image(case)]
    if any(not one.is_note for one in problems):
        return problems
    try:
        stored = read_stored(path, nifti_geometry=case.nifti_geometry)
        try:
            label = read_case_label(case, labels, stored)
        except FractionalError as error:
            return [*problems, _fractional(name, path, stored.array, error)]
    except ValueError as error:
        return [*problems, _unreadable(case, path, error)]
    problems += _check_direction(name, path, label.geometry)
    if not problems and reference is not None and stored.array.any() and np.array_equal(stored.array, reference.array):
        problems.append(_copy_of_image(case))
    # Of integers none can be anything else.
    wrong = 0 if stored.array.dtype.kind in "iub" else int((~np.isfinite(stored.array)).sum())
    if wrong:
        problems.append(Problem(name, str(path), NOT_FINITE, f"{wrong} of {stored.array.size} voxels", "integers", True))
    if reference is not None:
        problems += _check_label_place(name, label, reference)
    undeclared = undeclared_values(label.array, labels)
    if undeclared:
        found = ", ".join(f"value {value} ({count} voxels)" for value, count in undeclared.items())
        problems.append(Problem(name, str(path), UNDECLARED, found, f"0 or one of {list(labels.base_values)}"))
    contradicting = unannotated_voxels(label.array, labels, case.annotated)
    if contradicting:
        found = ", ".join(f"{organ} ({count} voxels)" for organ, count in contradicting.items())
        problems.append(Problem(name, str(path), UNANNOTATED, found, f"only what is annotated there: {', '.join(case.annotated or ())}"))
    if not label.array.any():
        problems.append(Problem(name, str(path), EMPTY, "background only", "at least one organ (unless the patient has none of them)"))
    return problems


def _copy_of_image(case: Case) -> Problem:
    return Problem(case.name, str(case.label), COPY, f"the voxels of the image {case.images[0]}", "a label map")


def _check_channel_place(name: str, image: Image, expected: Geometry) -> list[Problem]:
    """Compares with the first channel; images are never resampled."""
    difference = geometry_difference(expected, image.geometry)
    if not difference:
        return []
    found, fixable = f"differs in {difference}", voxels_fit(expected, image.geometry)
    return [Problem(name, image.source, GEOMETRY, found, "the geometry of the first channel", fixable)]


def _check_label_place(name: str, label: Image, reference: Image) -> list[Problem]:
    difference = geometry_difference(reference.geometry, label.geometry)
    if not difference:
        return []
    place = placement(label.array, label.geometry, reference.geometry)
    found, expected = f"differs in {difference}", "the geometry of the first channel"
    if place.safe is None and place.readings:
        found += f"; {describe_readings(reference.array[0], label.array, label.geometry, reference.geometry)}"
        expected += f"; if its header is wrong, --fix --geometry {' or '.join(place.readings)} repairs it: the one whose header is true"
    return [Problem(name, label.source, GEOMETRY, found, expected, place.safe is not None, () if place.safe else place.readings)]


def _check_direction(name: str, path: Path, geometry: Geometry) -> list[Problem]:
    return _direction_problems(name, path, np.array(geometry.direction).reshape(geometry.dim, geometry.dim))


def _direction_problems(name: str, path: Path, matrix: np.ndarray) -> list[Problem]:
    deviation = float(np.abs(matrix @ matrix.T - np.eye(len(matrix))).max())
    if deviation <= ORTHONORMAL:
        return []
    is_scale = np.abs(np.linalg.norm(matrix, axis=0) - 1).max() > 0.01  # which is part of the spacing, and would be lost
    fixable = deviation < 0.1 and not is_scale
    return [Problem(name, str(path), NOT_ORTHONORMAL, f"deviation {deviation:.3g}", f"at most {ORTHONORMAL:g}", fixable)]


def _unreadable(case: Case, path: Path, error: ValueError) -> Problem:
    name = case.name
    if path.is_file() and isinstance(error, NotOrthonormalError):
        forms = nifti_forms(path, case.nifti_geometry)
        if forms is None or forms.reading is None:
            return _direction_problems(name, path, stored_direction(path))[0]
        skew = forms.reading.skew()
        return Problem(name, str(path), NOT_ORTHONORMAL, f"deviation {skew:.3g}", f"at most {ORTHONORMAL:g}", 0 < skew < 0.1)
    return Problem(name, str(path), UNREADABLE, str(error), "a file that can be read")


def _fractional(name: str, path: Path, array: np.ndarray, error: FractionalError) -> Problem:
    fixable = len(array) == 1 and bool((np.abs(array - np.rint(array)) <= ROUNDING).all())
    return Problem(name, str(path), FRACTIONAL, str(error).partition("found ")[2], "integers", fixable)
