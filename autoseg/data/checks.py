"""Checks every case of a dataset and lists all problems. `autoseg.data.repair` repairs what can be repaired."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..runtime.worker_pool import run_cases
from ..schema import Case, Geometry, Image, Labels
from . import nifti_header
from .annotations import unannotated_voxels
from .datasets import inspect_dataset
from .images import displacement, geometry_difference, read_geometry, read_image, read_label, to_index, to_world
from .labels import foreground_box, undeclared_values

MISSING_CHANNEL = "missing channel"
MISSING_LABEL = "missing label"
UNREADABLE = "unreadable file"
GEOMETRY = "geometry mismatch"
NOT_FINITE = "NaN or infinite voxels"
UNDECLARED = "undeclared label"
FRACTIONAL = "fractional label"
EMPTY = "empty label"
UNANNOTATED = "organ that dataset.json says is not annotated"
DUPLICATE_IMAGE = "same image twice"
NOT_ORTHONORMAL = "direction not orthonormal"

HEADER_TOLERANCE_VOXELS = 1.0
"""Equal shape and no corner further away than this many of the smallest voxel edges: the header is inexact, the voxels fit."""

ROUNDING = 1e-3
"""Fractional labels no further from an integer than this are rounding errors of another program."""

ORTHONORMAL = 1e-4
"""Largest entry of D D^T - 1 for a direction matrix D that counts as orthonormal."""

_BYTES_PER_VOXEL = 24


@dataclass(frozen=True)
class Problem:
    """A problem of a case: its kind (one of this module's), what was found in a file with its measure, and what was expected.

    `fixable` tells whether a repaired copy can be written.
    """

    case: str
    file: str
    kind: str
    found: str
    expected: str
    fixable: bool = False


def check_dataset(folder: Path, *, groups: str | None = None, workers: int | None = None) -> list[Problem]:
    """Checks every file of every case and lists the problems by case; one problem does not hide the others.

    An empty label is listed, although it may be right (a healthy patient). An image may be there twice if the patient is the same and
    other organs were annotated, as in a dataset that was merged. Nothing but a missing or wrong ``dataset.json`` is a ValueError.

    Args:
        groups: As for `autoseg.data.datasets.load_dataset`.
        workers: Processes; 0 works in this one, None takes what cores and memory allow.
    """
    dataset, missing = inspect_dataset(folder, groups=groups)
    problems = [Problem(m.case, str(m.file), m.kind, m.found, "this file") for m in missing]
    jobs = {case.name: (case, dataset.channels, dataset.labels) for case in dataset.cases}
    memory = {case.name: _memory(case) for case in dataset.cases}
    results, failures = run_cases(check_case, jobs, workers=workers, title="Checking", memory_per_job=memory)
    for name, reason in failures.items():
        problems.append(Problem(name, str(jobs[name][0].images[0]), UNREADABLE, reason, "a case that can be read"))
    first: dict[str, list[Case]] = {}
    for case in dataset.cases:
        found, digest = results.get(case.name, ([], ""))
        problems += found
        earlier = first.setdefault(digest, []) if digest else []
        same = next((one for one in earlier if not _are_complementary(one, case)), None)
        if same is not None:
            problems.append(
                Problem(case.name, str(case.images[0]), DUPLICATE_IMAGE, f"the voxels of case {same.name}", "an image of its own", True)
            )
        else:
            earlier.append(case)
    return sorted(problems, key=lambda problem: (problem.case, problem.file))


def check_case(case: Case, channels: Sequence[str], labels: Labels) -> tuple[list[Problem], str]:
    """The problems of one case, and a hash of its images' voxels (empty where they cannot be read)."""
    problems: list[Problem] = []
    images = []
    for path in case.images:
        image, found = _check_image(case.name, path)
        problems += found
        images.append(image)
    readable = [image for image in images if image is not None]
    n_channels = sum(len(image.array) for image in readable)
    if len(readable) == len(images) and n_channels != len(channels):
        expected = f"{len(channels)} channels: {', '.join(channels)}"
        problems.append(Problem(case.name, str(case.images[-1]), MISSING_CHANNEL, f"{n_channels} channels", expected))
    for image in readable[1:]:
        problems += _check_place(case.name, image.source, readable[0].geometry, image.geometry, None)
    reference = readable[0].geometry if readable else None
    if case.label is not None:
        problems += _check_label(case, labels, reference)
    digest = hashlib.blake2b(digest_size=16)
    for image in readable:
        digest.update(str(image.array.shape).encode())
        digest.update(np.ascontiguousarray(image.array).data)
    return problems, digest.hexdigest() if len(readable) == len(images) else ""


def _are_complementary(first: Case, second: Case) -> bool:
    """Whether two cases with the same image are one patient of whom different organs were annotated."""
    return (first.group or first.name) == (second.group or second.name) and first.annotated != second.annotated


def foreground_inside(label: np.ndarray, label_geometry: Geometry, image_geometry: Geometry) -> bool:
    """Whether the box around a label map's foreground lies inside the image, to one voxel."""
    if label_geometry.dim != image_geometry.dim or not label.any():
        return False
    spans = [(float(start), float(stop - 1)) for start, stop in foreground_box(label)]
    corners = np.array(list(itertools.product(*reversed(spans))))
    index = to_index(image_geometry, to_world(label_geometry, corners))
    return bool((index >= -1).all() and (index <= np.array(image_geometry.shape[::-1])).all())


def read_with_non_finite(path: Path) -> Image:
    """As `read_image` of one path, but with the NaN and infinite voxels that ITK turns into 0 in NIfTI files."""
    image = read_image([path])
    stored = nifti_header.float_voxels(path) if path.is_file() and nifti_header.is_nifti(path) else None
    if stored is None or stored.size != image.array.size:
        return image
    stored = stored.reshape(image.array.shape)
    return dataclasses.replace(image, array=np.where(np.isfinite(stored), image.array, stored.astype(np.float32)))


def voxels_fit(expected: Geometry, found: Geometry) -> bool:
    """Whether the voxels fit and only the header is inexact."""
    return expected.shape == found.shape and displacement(expected, found) <= HEADER_TOLERANCE_VOXELS * min(expected.spacing)


def _check_image(name: str, path: Path) -> tuple[Image | None, list[Problem]]:
    try:
        image = read_with_non_finite(path)
    except ValueError as error:
        return None, [_unreadable(name, path, error)]
    problems = _check_direction(name, path, image.geometry)
    wrong = int(image.array.size - np.isfinite(image.array).sum())
    if wrong:
        repairable = wrong < image.array.size
        problems.append(Problem(name, str(path), NOT_FINITE, f"{wrong} of {image.array.size} voxels", "finite numbers", repairable))
    return image, problems


def _check_label(case: Case, labels: Labels, reference: Geometry | None) -> list[Problem]:
    name, path = case.name, Path(str(case.label))
    try:
        label = read_label(path)
    except ValueError as error:
        return [_fractional(name, path, error)]
    problems = _check_direction(name, path, label.geometry)
    stored = read_with_non_finite(path).array
    if not np.isfinite(stored).all():
        found = f"{int((~np.isfinite(stored)).sum())} of {stored.size} voxels"
        problems.append(Problem(name, str(path), NOT_FINITE, found, "integers", True))
    if reference is not None:
        problems += _check_place(name, str(path), reference, label.geometry, label.array)
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


def _check_place(name: str, file: str, expected: Geometry, found: Geometry, label: np.ndarray | None) -> list[Problem]:
    """Compares with the first channel; `label` is None for images, which are never resampled."""
    difference = geometry_difference(expected, found)
    if not difference:
        return []
    fixable = voxels_fit(expected, found) or (label is not None and foreground_inside(label, found, expected))
    return [Problem(name, file, GEOMETRY, f"differs in {difference}", "the geometry of the first channel", fixable)]


def _check_direction(name: str, path: Path, geometry: Geometry) -> list[Problem]:
    matrix = np.array(geometry.direction).reshape(geometry.dim, geometry.dim)
    deviation = float(np.abs(matrix @ matrix.T - np.eye(geometry.dim)).max())
    if deviation <= ORTHONORMAL:
        return []
    return [Problem(name, str(path), NOT_ORTHONORMAL, f"deviation {deviation:.3g}", f"at most {ORTHONORMAL:g}", deviation < 0.1)]


def _unreadable(name: str, path: Path, error: ValueError) -> Problem:
    if path.is_file() and nifti_header.is_nifti(path) and "not orthonormal" in str(error):
        skew = nifti_header.skew(nifti_header.read_orientation(path))
        return Problem(name, str(path), NOT_ORTHONORMAL, f"deviation {skew:.3g}", f"at most {ORTHONORMAL:g}", 0 < skew < 0.1)
    return Problem(name, str(path), UNREADABLE, str(error), "a file that can be read")


def _fractional(name: str, path: Path, error: ValueError) -> Problem:
    """Tells labels that are no integers from files that cannot be read."""
    try:
        array = read_with_non_finite(path).array
    except ValueError:
        return _unreadable(name, path, error)
    fixable = len(array) == 1 and bool((np.abs(array - np.rint(array)) <= ROUNDING).all())
    return Problem(name, str(path), FRACTIONAL, str(error).partition("found ")[2], "integers", fixable)


def _memory(case: Case) -> int:
    """Bytes that checking takes, from the header; 0 where that cannot be read (which the check then reports)."""
    with contextlib.suppress(ValueError):
        return math.prod(read_geometry(case.images[0]).shape) * _BYTES_PER_VOXEL * len(case.images)
    return 0
