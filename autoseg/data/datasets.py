"""Reader of dataset folders (nnU-Net's or the Medical Segmentation Decathlon's), and of folders of new images."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..runtime.dataset_folders import natural_key
from ..runtime.outputs import PREDICT, is_written_by
from ..schema import Case, Dataset
from ..schema.names import check_different, check_name
from .annotations import parse_annotated
from .ct_windows import parse_windows
from .dataset_json import read_channels, read_info, warn_of_keys
from .dicom import find_dicom_cases, is_dicom_file
from .external_files import Permission, check_beside, check_data_files, check_external, named_path, with_data_files
from .folder_files import (
    UNLABELLED,
    Item,
    MissingFile,
    case_images,
    commonest,
    image_items,
    label_files,
    same_item,
    split_channel,
    unlabelled_cases,
)
from .found_cases import FoundCases, named_cases
from .images import ENDINGS, ending_of, label_ending, stem_of
from .label_names import parse_labels
from .patients import WITHOUT_LAST_PART, likely_patients, patients_as_far_as_known, patients_of
from .slicer_segmentation import is_segmentation
from .sources import with_sources
from .tolerances import parse_tolerances

log = logging.getLogger(__name__)

OTHER_FORMATS = (".nhdr", ".hdr", ".mnc", ".mgz", ".mgh", ".vtk", ".nia", ".par")
"""Endings of medical images that are not read."""


def load_dataset(
    folder: Path, *, groups: str | None = None, allow_external: Permission = False, nifti_geometry: str | None = None
) -> Dataset:
    """Reads a dataset folder in nnU-Net's format or the Decathlon's.

    Args:
        folder: Holds ``dataset.json``.
        groups: Regular expression on case names; what it matches (its first group, if it has one) is the patient whose cases
            stay together in one fold. Goes before the ``groups`` entry (case -> patient, or such an expression) of ``dataset.json``.
        allow_external: Folders outside of its own (or all: True) from which it may read files that ``dataset.json`` names.
        nifti_geometry: See `Case`.

    Raises:
        ValueError: ``dataset.json`` missing or wrong, no cases, or cases without all their files.
    """
    dataset, missing = inspect_dataset(folder, groups=groups, allow_external=allow_external, nifti_geometry=nifti_geometry)
    if missing:
        more = f"; and {len(missing) - 5} more (autoseg_check lists them all)" if len(missing) > 5 else ""
        raise ValueError(f"{folder}: {'; '.join(map(str, missing[:5]))}{more}")
    return dataset


def inspect_dataset(
    folder: Path, *, groups: str | None = None, allow_external: Permission = False, nifti_geometry: str | None = None
) -> tuple[Dataset, tuple[MissingFile, ...]]:
    """As `load_dataset`, of the complete cases, with what is missing or there twice instead of an error."""
    folder = Path(folder)
    file, info = folder / "dataset.json", read_info(folder)
    warn_of_keys(info, file)
    channels, labels = read_channels(info, file), parse_labels(info, file)
    entries, also_listed = _listed_entries(folder, info), _listed_unlabelled(folder, info)
    check_external(((name, path) for name, (images, label) in entries.items() for path in (*images, label)), folder, allow_external)
    check_external(((name, path) for name, images in also_listed.items() for path in images), folder, allow_external)
    if not entries:
        _check_folders(folder)
    cases, missing = _listed(entries, channels) if entries else _scanned(folder, channels)
    labelled = [*(case.name for case in cases), *(gap.case for gap in missing)]
    unlabelled, incomplete = unlabelled_cases(folder, channels, labelled)
    for name, images in also_listed.items():
        gaps = _gaps(name, images, None, channels)
        incomplete += gaps
        unlabelled += [] if gaps else [Case(name, images)]
    unlabelled.sort(key=lambda case: case.name)
    check_data_files([*cases, *unlabelled], folder, allow_external)
    if not cases and not missing:
        raise ValueError(
            f"{folder}: expected training cases in {folder / 'imagesTr'} and {folder / 'labelsTr'}, found none; {_content(folder)}"
        )
    if info.get("numTraining") not in (None, len(cases)) and not missing:
        log.warning("%s: dataset.json says %s training cases, found %d", folder, info["numTraining"], len(cases))
    missing += incomplete
    patients = patients_of(folder, [case.name for case in cases], groups or info.get("groups"))
    if not groups and not info.get("groups"):
        _warn_of_patients(folder, list(patients))
    case_names = {*patients, *(gap.case for gap in missing)}
    annotated = parse_annotated(info.get("annotated"), case_names, labels, file)
    cases = [replace(case, group=patients[case.name], annotated=annotated.get(case.name), nifti_geometry=nifti_geometry) for case in cases]
    ending = _label_ending(str(info.get("file_ending") or ""), cases)
    windows, tolerances = parse_windows(info, labels, file), parse_tolerances(info, labels, file)
    also = patients_as_far_as_known([case.name for case in unlabelled], groups or info.get("groups"))
    more = tuple(replace(case, group=also[case.name], nifti_geometry=nifti_geometry) for case in unlabelled)
    complete = with_sources(cases, info)
    return Dataset(folder.name, folder, channels, labels, complete, ending, windows, tolerances, more), tuple(missing)


def named_files(folder: Path) -> list[Path]:
    """The files that ``dataset.json`` of a folder names one by one, and those that headers name for their voxels.

    Raises:
        ValueError: ``dataset.json`` is wrong.
    """
    info = read_info(folder)
    listed = [path for images, label in _listed_entries(folder, info).values() for path in (*images, label)]
    listed += [path for images in _listed_unlabelled(folder, info).values() for path in images]
    return with_data_files([*listed, *(path for part in ("imagesTr", "labelsTr", UNLABELLED) for path in (folder / part).glob("*"))])


def find_new_cases(path: Path, channels: Sequence[str], *, nifti_geometry: str | None = None) -> FoundCases:
    """Finds the cases to segment in a folder or file, in natural order.

    Args:
        path: A folder of ``case_0000.ext`` (for one channel also ``case.ext``), one file, one DICOM file, or a folder with DICOM series
            in it or in folders in it; images and DICOM may stand beside each other. With several channels a folder ``case_0000`` holds
            the series of one.
        nifti_geometry: See `Case`.

    Raises:
        ValueError: Nothing there.
    """
    path = Path(path)
    items: dict[Item, Path] = {}
    clashes: dict[str, MissingFile] = {}
    predicted: dict[Item, Path] = {}
    dicom = FoundCases(())
    if path.is_file() and is_segmentation(path):
        raise ValueError(f"{path}: expected an image, found a segmentation of Slicer; name the image that it belongs to")
    if path.is_file() and ending_of(path):
        name = split_channel(path, len(channels))[0]
        items, clashes = image_items(path.parent, len(channels), stem=name) if len(channels) > 1 else ({(name, None): path}, {})
    elif path.is_dir() or is_dicom_file(path):
        dicom = find_dicom_cases(path)
        items, clashes = image_items(path, len(channels), dicom=False) if path.is_dir() else ({}, {})
        predicted = {item: file for item, file in items.items() if is_written_by(file, PREDICT)}
        items = {item: file for item, file in items.items() if item not in predicted}
    elif path.exists():
        raise ValueError(f"{path}: not an image file that can be read")
    else:
        raise ValueError(f"{path}: no such file or folder")
    skipped = dicom.skipped | _other_formats(path) | {str(file): f"is a label map, written by {PREDICT}" for file in predicted.values()}
    failed = {**dicom.failed, **_add_dicom(items, dicom.cases, len(channels)), **{name: str(clash) for name, clash in clashes.items()}}
    names = sorted({name for name, _ in items}, key=natural_key)
    found = {name: case_images(path if path.is_dir() else path.parent, name, items, channels) for name in names if name not in failed}
    failed |= {name: str(gap) for name, (_, gap) in found.items() if gap} | _voxels_elsewhere(found)
    cases, unnamed = named_cases({name: images for name, (images, _) in found.items() if name not in failed}, nifti_geometry=nifti_geometry)
    failed |= unnamed
    if not cases and not failed:
        reasons = [f"{item}: {reason}" for item, reason in skipped.items()]
        raise ValueError(f"{path}: expected images or DICOM series, found none{': ' if reasons else ''}{'; '.join(reasons[:5])}")
    return FoundCases(cases, skipped, failed)


def _other_formats(folder: Path) -> dict[str, str]:
    """Images of a folder in formats that are not read, with the reason."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    reason = "images of this format are not read; write it as .nii.gz, .mha or .nrrd"
    return {str(file): reason for file in files if file.suffix.lower() in OTHER_FORMATS and not file.name.startswith(".")}


def _voxels_elsewhere(found: Mapping[str, tuple[Sequence[Path], MissingFile | None]]) -> dict[str, str]:
    """The cases with a header that names a file outside of its own folder for its voxels, with the reason that they fail."""
    failed = {}
    for name, (images, _) in found.items():
        try:
            for image in images:
                check_beside(image)
        except ValueError as error:
            failed[name] = f"case {name}: {error}"
    return failed


def _add_dicom(items: dict[Item, Path], cases: Sequence[Case], n_channels: int) -> dict[str, str]:
    """Adds DICOM series to image files by (case, channel); gives the cases of which there are both with the reason that they fail."""
    failed = {}
    for case in cases:
        key = split_channel(Path(case.name), n_channels)
        other = same_item(items, key, n_channels)
        if other is None:
            items[key] = case.images[0]
        else:
            failed[key[0]] = f"case {key[0]}: expected one image a channel, found {other} and {case.images[0]}"
    return failed


def _listed_entries(folder: Path, info: Mapping[str, Any]) -> dict[str, tuple[tuple[Path, ...], Path]]:
    """Case to its images and label map as ``dataset.json`` names them; empty where it names none, or (the Decathlon's) files of old."""
    listed: list[tuple[str, list[str], str]] = []
    if "dataset" in info:
        entries = {name: entry["images"] for name, entry in info["dataset"].items()}
        listed = [(name, [one] if isinstance(one, str) else one, info["dataset"][name]["label"]) for name, one in entries.items()]
    elif info.get("training") and _is_there(named_path(folder, info["training"][0]["image"])):
        listed = [(stem_of(Path(entry["image"])), [entry["image"]], entry["label"]) for entry in info["training"]]
    try:
        for name, _, _ in listed:
            check_name(name, "case")
        check_different((name for name, _, _ in listed), "case")
    except ValueError as error:
        raise ValueError(f"{folder / 'dataset.json'}: {error}") from error
    return {name: (tuple(named_path(folder, one) for one in images), named_path(folder, label)) for name, images, label in sorted(listed)}


def _listed_unlabelled(folder: Path, info: Mapping[str, Any]) -> dict[str, tuple[Path, ...]]:
    """Case to the images that ``dataset.json`` names under ``unlabelled``, as `autoseg_merge` writes it; sorted."""
    entry = {name: [one] if isinstance(one, str) else one for name, one in info.get("unlabelled", {}).items()}
    try:
        for name in entry:
            check_name(name, "case")
    except ValueError as error:
        raise ValueError(f"{folder / 'dataset.json'}: unlabelled: {error}") from error
    return {name: tuple(named_path(folder, one) for one in images) for name, images in sorted(entry.items())}


def _listed(entries: Mapping[str, tuple[tuple[Path, ...], Path]], channels: Sequence[str]) -> tuple[list[Case], list[MissingFile]]:
    """Cases that ``dataset.json`` names with their files."""
    cases, missing = [], []
    for name, (images, label) in entries.items():
        if gaps := _gaps(name, images, label, channels):
            missing += gaps
        else:
            cases.append(Case(name, images, label))
    return cases, missing


def _gaps(name: str, images: Sequence[Path], label: Path | None, channels: Sequence[str]) -> list[MissingFile]:
    """What is missing of a case whose files are listed."""
    gaps = missing_files(name, images, label)
    if not gaps and len(images) not in (1, len(channels)):
        found = f"{len(images)} files for the {len(channels)} channels {list(channels)}"
        gaps.append(MissingFile(name, "missing channel", images[-1], found))
    return gaps


def hidden_images(folder: Path) -> list[Path]:
    """Files of a dataset that would be images or label maps but for the dot at the beginning of their names (macOS writes ``._case``)."""
    parts = (folder / part for part in ("imagesTr", "labelsTr", UNLABELLED))
    return [file for part in parts if part.is_dir() for file in sorted(part.iterdir()) if file.name.startswith(".") and ending_of(file)]


def _check_folders(folder: Path) -> None:
    """Raises one ValueError where ``imagesTr`` or ``labelsTr`` is lacking or spelled otherwise, instead of one for each case."""
    lacking = {part: part[:6] for part in ("imagesTr", "labelsTr") if not (folder / part).is_dir()}
    for part, what in lacking.items():
        for path in folder.iterdir():
            if path.is_dir() and re.sub(r"[\W_]", "", path.name).lower() == part.lower():
                raise ValueError(f"{folder}: expected the training {what} in {part}/, found {path.name}/; rename it to {part}")
    if len(lacking) == 1:
        part, what = next(iter(lacking.items()))
        raise ValueError(f"{folder}: expected the training {what} in {part}/, found no such folder; {_content(folder)}")


def _content(folder: Path) -> str:
    """What a folder without cases holds instead, in words."""
    parts = []
    for path in sorted(folder.iterdir(), key=lambda path: natural_key(path.name)):
        if path.is_dir() and not path.name.startswith("."):
            files = [one for one in path.iterdir() if not one.name.startswith(".")]
            images = sum(bool(ending_of(one)) for one in files if one.is_file())
            parts.append(f"{path.name}/ ({images} image files)" if images else f"{path.name}/ ({len(files)} files or folders, no images)")
    alone = [path.name for path in sorted(folder.iterdir()) if path.is_file() and ending_of(path)]
    parts += [f"{len(alone)} image files such as {alone[0]}"] if alone else []
    return f"the folder holds {', '.join(parts) or 'no images and no folders'}"


def _warn_of_patients(folder: Path, names: Sequence[str]) -> None:
    patients = likely_patients(names)
    if not patients:
        return
    first = next(iter(patients.values()))
    shown = ", ".join(sorted(name for name in patients if patients[name] == first)[:3])
    log.warning(
        "%s: the names look like %d patients with several cases each (%s); then one patient's cases must not be trained on and validated:"
        " give --groups '%s' (or a groups entry in dataset.json); if each case is another patient, --groups '.+'",
        *(folder, len(set(patients.values())), shown, WITHOUT_LAST_PART),
    )


def _is_there(path: Path) -> bool:
    """As `Path.exists`, False also for names that no file can have."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def missing_files(case: str, images: Sequence[Path], label: Path | None) -> list[MissingFile]:
    """The files of a case that are not there."""
    gaps = [MissingFile(case, "missing channel", file, "nothing") for file in images if not _is_there(file)]
    return gaps if label is None or _is_there(label) else [*gaps, MissingFile(case, "missing label", label, "nothing")]


def _scanned(folder: Path, channels: Sequence[str]) -> tuple[list[Case], list[MissingFile]]:
    """Cases of ``imagesTr`` and ``labelsTr``; image and label may differ in format."""
    labels, label_clashes = label_files(folder / "labelsTr")
    items, clashes = image_items(folder / "imagesTr", len(channels), known=set(labels))
    image_ending, map_ending = (commonest(map(ending_of, files.values())) for files in (items, labels))
    cases, missing = [], []
    for name in sorted({name for name, _ in items} | set(labels)):
        found = ((), clashes[name]) if name in clashes else case_images(folder / "imagesTr", name, items, channels, usual=image_ending)
        images, gap = found
        gaps = [one for one in (gap, label_clashes.get(name)) if one is not None]
        if name not in labels:
            gaps.append(MissingFile(name, "missing label", folder / "labelsTr" / f"{name}{map_ending}", "nothing"))
        if gaps:
            missing += gaps
        else:
            cases.append(Case(name, images, labels[name]))
    return cases, missing


def _label_ending(declared: str, cases: Sequence[Case]) -> str:
    """Ending of label maps to write: that of ``dataset.json`` if it can be written, else that of the images."""
    declared = f".{declared.lower().lstrip('.')}"
    return label_ending(declared if declared in ENDINGS else commonest(ending_of(case.images[0]) for case in cases))
