"""Writes a repaired copy of a dataset; the original is never changed."""

from __future__ import annotations

import dataclasses
import glob
import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..runtime.disk import explained_write_errors
from ..runtime.failures import ends_all_cases, reason_of
from ..runtime.outputs import check_outside
from ..runtime.serialization import atomic_write, write_json
from ..schema import Case, Dataset, Geometry, Image
from . import nifti_header
from .checks import DUPLICATE_IMAGE, EMPTY, NOT_FINITE, NOT_ORTHONORMAL, ROUNDING, SETTLED, Problem, check_case
from .dataset_json import read_info
from .datasets import inspect_dataset
from .external_files import Permission
from .folder_files import UNLABELLED
from .geometry import geometry_difference
from .images import (
    PICTURES,
    ending_of,
    label_ending,
    nifti_forms,
    read_geometry,
    read_label,
    read_stored,
    read_straightened,
    sidecar_of,
    stem_of,
    write_image,
    write_label,
)
from .integer_labels import integer_labels
from .label_placement import Reading, place_label, placement, voxels_fit
from .nifti_geometry import straightened
from .pictures import sidecars_of
from .raster_headers import data_file
from .slicer_segmentation import on_grid, read_segments


def fix_dataset(
    folder: Path,
    problems: Sequence[Problem],
    destination: Path,
    *,
    geometry: Reading | None = None,
    allow_external: Permission = False,
    nifti_geometry: str | None = None,
) -> list[str]:
    """Writes a copy of a dataset in which what `check_dataset` found is repaired; a sentence for each case that was changed or left out.

    Labels get their image's header where it differs by less than half a voxel, and are resampled (nearest neighbour) where they are another
    grid over the same field of view. Of those that lie elsewhere one cannot know which header is true: they are left out unless `geometry`
    says so. NaN and infinite voxels become 0, as they are read; labels that miss an integer by rounding are rounded;
    directions become orthonormal; headers that contradict themselves say what is read of them; of equal images the first stays. Cases
    beyond repair are left out. An empty label stays. Every repaired case is checked again before it is kept. The new folder, of real
    copies, appears when it is complete.

    Args:
        folder: The dataset.
        problems: As `check_dataset` found them.
        destination: A new or empty folder, not in the dataset.
        geometry: Whose header is true where image and label map lie apart: ``image`` (the label map gets it), ``label`` (it is
            resampled).
        nifti_geometry: See `Case`; headers that contradict themselves become ones that say what was read.

    Raises:
        ValueError: The destination lies in the dataset, or exists and is not empty; or no case is left.
    """
    folder, destination = Path(folder), Path(destination)
    check_outside(destination, [folder])
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise ValueError(f"{destination}: expected a new or empty folder for the repaired copy")
    dataset, _ = inspect_dataset(folder, allow_external=allow_external, nifti_geometry=nifti_geometry)
    cases = (*dataset.cases, *dataset.unlabelled)
    check_outside(destination, (image for case in cases for image in case.images))  # folders of DICOM, which may be links
    by_case: dict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        by_case[problem.case].append(problem)
    lost = {name: beyond for name, found in by_case.items() if (beyond := [one for one in found if _is_beyond_repair(one, geometry)])}
    messages = [
        f"case {name}: left out: {'; '.join(f'{one.kind} in {Path(one.file).name} ({one.found})' for one in beyond)}"
        for name, beyond in lost.items()
    ]
    complete: list[Case] = []
    with atomic_write(destination) as partial:
        for part in ("imagesTr", "labelsTr", *([UNLABELLED] if dataset.unlabelled else [])):
            (partial / part).mkdir(parents=True, exist_ok=True)
        for case in tqdm(cases, desc="Repairing", unit="case"):
            if case.name not in lost:
                message, is_complete = _repair_case(case, by_case[case.name], dataset, partial, geometry=geometry)
                complete += [case] if is_complete and case.label is not None else []
                messages += [message] if message else []
        if not complete:
            raise ValueError(f"{folder}: no case is left after repairing: {'; '.join(messages[:5])}")
        _copy_rest(folder, partial, complete)
    return sorted(messages)


def _is_beyond_repair(problem: Problem, geometry: Reading | None) -> bool:
    return problem.kind == DUPLICATE_IMAGE or not (
        problem.fixable or problem.is_note or problem.kind == EMPTY or geometry in problem.readings
    )


def _repair_case(case: Case, problems: Sequence[Problem], dataset: Dataset, target: Path, *, geometry: Reading | None) -> tuple[str, bool]:
    """Copies or rewrites one case; returns what was done in a sentence ("" where nothing was) and whether the case was kept."""
    done: list[str] = []
    folder = target / ("imagesTr" if case.label is not None else UNLABELLED)
    kinds: dict[str, set[str]] = defaultdict(set)
    for problem in problems:
        kinds[problem.file].add(problem.kind)
    try:
        images: list[Path] = []
        for index, path in enumerate(case.images):
            number = f"_{index:04d}" if len(case.images) == len(dataset.channels) else ""
            reference = read_geometry(images[0]) if images else None
            images.append(_repair_image(path, folder / f"{case.name}{number}", kinds[str(path)], reference, done, case.nifti_geometry))
        place = read_geometry(images[0]), geometry
        label = None if case.label is None else _repair_label(case, target / "labelsTr" / case.name, kinds[str(case.label)], place, done)
        checked = check_case(dataclasses.replace(case, images=tuple(images), label=label), dataset.channels, dataset.labels)
        left = [problem for problem in checked.problems if problem.kind != EMPTY and not problem.is_note]
        reason = "; ".join(f"{problem.kind} ({problem.found})" for problem in left)
    except Exception as error:
        if ends_all_cases(error):
            raise
        reason = reason_of(error)
    if not reason:
        return (f"case {case.name}: {', '.join(done)}" if done else ""), True
    names = {case.name, *(f"{case.name}_{index:04d}" for index in range(len(case.images)))}
    pattern = f"{glob.escape(case.name)}*"
    for file in (*folder.glob(pattern), *(target / "labelsTr").glob(pattern)):
        if (file.name if file.is_dir() else stem_of(file).removesuffix(".json")) in names:
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    return f"case {case.name}: left out: {reason}", False


def _repair_image(
    source: Path, stem: Path, kinds: set[str], reference: Geometry | None, done: list[str], nifti_geometry: str | None
) -> Path:
    """Writes the image as `stem` plus its ending; `reference` is the geometry of the first channel for the others."""
    target, was_straightened = _copy_straight(source, stem, kinds, nifti_geometry)
    if was_straightened:
        done.append(f"{source.name}: direction made orthonormal")
    if SETTLED in kinds:
        target = _rewrite(target, stem, read_stored(target, nifti_geometry=nifti_geometry))
        done.append(f"{source.name}: header that says one thing")
    if NOT_FINITE in kinds:
        image = read_stored(target)
        array, count = _finite(image.array)
        done.append(f"{source.name}: {count} NaN or infinite voxels made 0")
        target = _rewrite(target, stem, Image(array, image.geometry))
    if reference is not None and (difference := geometry_difference(reference, read_geometry(target))):
        if not voxels_fit(reference, read_geometry(target)):
            raise ValueError(f"{source}: geometry differs from the first channel in {difference}")
        target = _rewrite(target, stem, Image(read_stored(target).array, reference))
        done.append(f"{source.name}: header of the first channel (differed in {difference})")
    return target


def _repair_label(case: Case, stem: Path, kinds: set[str], place: tuple[Geometry, Reading | None], done: list[str]) -> Path:
    """Writes the label map as `stem` plus its ending; `place` is the image's geometry and whose header is true where they differ."""
    source, (reference, wanted) = Path(str(case.label)), place
    if read_segments(source) and (difference := geometry_difference(reference, read_geometry(source))):
        done.append(f"label put on its image's grid (differed in {difference})")
        whole = on_grid(read_label(source), reference)
        return write_label(stem.with_name(stem.name + label_ending(ending_of(source))), whole.array, reference)
    target, was_straightened = _copy_straight(source, stem, kinds, case.nifti_geometry)
    found = read_geometry(target, nifti_geometry=case.nifti_geometry)
    difference = geometry_difference(reference, found)
    raw = np.nan_to_num(read_stored(target, nifti_geometry=case.nifti_geometry).array[0], copy=False, nan=0, posinf=0, neginf=0)
    array = integer_labels(raw, str(source), tolerance=ROUNDING)
    rounded = int((raw != array).sum())
    if difference:
        possible = placement(array, found, reference)
        reading = possible.safe or wanted
        if reading is None or (possible.safe is None and reading not in possible.readings):
            raise ValueError(f"{source}: its header cannot be repaired without --geometry: differs in {difference}")
        array = place_label(array, found, reference, reading)
        change = "given its image's header" if reading == "image" else "resampled to its image"
        done.append(f"label {change} (differed in {difference})")
    if rounded:
        done.append(f"{rounded} label voxels rounded to integers")
    if was_straightened:
        done.append("label: direction made orthonormal")
    if NOT_FINITE in kinds:
        done.append("NaN label voxels made background")
    if SETTLED in kinds:
        done.append("label: header that says one thing")
    if not (difference or rounded or {NOT_FINITE, SETTLED} & kinds):
        return target
    target.unlink()
    return write_label(stem.with_name(stem.name + label_ending(ending_of(source))), array, reference)


def _copy_straight(source: Path, stem: Path, kinds: set[str], nifti_geometry: str | None) -> tuple[Path, bool]:
    """Copies a file or DICOM folder to `stem` plus ending, with an orthonormal direction where that was a problem."""
    ending = ending_of(source) if source.is_file() else ""
    target = stem.with_name(stem.name + (".mha" if ending == ".mhd" else ending))
    forms = nifti_forms(source, nifti_geometry) if NOT_ORTHONORMAL in kinds else None
    if forms is not None and forms.reading is not None:
        nifti_header.copy_with_orientation(source, target, straightened(nifti_header.read_orientation(source), forms.reading))
        return target, True
    if NOT_ORTHONORMAL in kinds or data_file(source) is not None:  # of a header alone the copy would have no voxels
        image = read_straightened(source) if NOT_ORTHONORMAL in kinds else read_stored(source)
        return write_image(target, image.array, image.geometry), NOT_ORTHONORMAL in kinds
    if source.is_dir():
        _copy_folder(source, target)
    else:
        shutil.copyfile(source, target)
        sidecars = [file for file in sidecars_of(source, stem_of(source)) if file.is_file()] if ending in PICTURES else []
        if sidecars:
            shutil.copyfile(sidecars[0], sidecar_of(target))
    return target, False


def _copy_folder(source: Path, target: Path) -> None:
    with explained_write_errors(target):
        shutil.copytree(source, target)


def _rewrite(old: Path, stem: Path, image: Image) -> Path:
    """Replaces a copied image; a DICOM folder becomes a NIfTI file, a picture that cannot hold fractions a TIFF."""
    ending = ending_of(old) if old.is_file() else ".nii.gz"
    shutil.rmtree(old) if old.is_dir() else old.unlink()
    ending = ".tif" if ending in (".png", ".bmp", ".jpg", ".jpeg") else ending
    return write_image(stem.with_name(stem.name + ending), image.array, image.geometry)


def _finite(array: np.ndarray) -> tuple[np.ndarray, int]:
    """NaN and infinite voxels become 0, as every reader takes them; and how many there were."""
    finite = np.isfinite(array)
    if not all(channel.any() for channel in finite):
        raise ValueError("a channel without any finite voxel")
    return np.where(finite, array, array.dtype.type(0)), int(array.size - finite.sum())


def _copy_rest(folder: Path, target: Path, cases: Sequence[Case]) -> None:
    """Test cases as they are, and the description for the plain folder layout; what it says of cases, of those that were kept."""
    for part in ("imagesTs", "labelsTs"):
        if (folder / part).is_dir():
            _copy_folder(folder / part, target / part)
    listings = ("training", "test", "dataset", "unlabelled", "numTest")
    info = {key: value for key, value in read_info(folder).items() if key not in listings}
    if "annotated" in info:
        info["annotated"] = {case.name: case.annotated for case in cases if case.annotated is not None}
    if "sources" in info:
        info["sources"] = {case.name: case.source for case in cases if case.source}
    write_json(target / "dataset.json", {**info, "numTraining": len(cases)}, digest=False)
