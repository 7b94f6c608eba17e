"""Overlays of whole folders: images, predictions and references are matched by the names of their cases and drawn."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..data.datasets import find_new_cases
from ..data.descriptions import planned_dataset
from ..data.geometry import geometry_difference
from ..data.images import PICTURES, ending_of, files_read, read_image, read_label, stem_of
from ..data.label_placement import as_segmented
from ..data.label_subsets import translate_labels
from ..data.labels import to_internal_values
from ..data.nifti_geometry import check_form
from ..inference.manifest import written_labels
from ..runtime.failures import failure_of
from ..runtime.outputs import Outputs, check_not_among
from ..runtime.registry import unknown_name_error
from ..runtime.workspace import find_workspace, home_folders
from ..schema import Dataset, Image, Labels
from .directions import directions_of
from .overlay_figure import overlay
from .views import surroundings, upright, upright_spacing, window_for

log = logging.getLogger(__name__)

FORMATS = ("png", "pdf", "svg", "jpg")
"""File formats of the pictures."""

NO_FILE = "no {} of this name"
"""Reason why a case is not drawn that is no failure."""

UNKNOWN_CHANNEL = "unknown"
"""Name of a channel of which nothing is known; it is drawn between percentiles."""


@dataclass(frozen=True, kw_only=True)
class OverlaySettings:
    """Options of the pictures.

    Attributes:
        dataset: Its organ names, regions and windows are used; None: every label value is an organ.
        channel: Number of the channel that is drawn.
        zoom: Show the organs and their surroundings instead of whole slices.
        nifti_geometry: See `autoseg.schema.Case`; None means as the dataset was planned.
    """

    dataset: str | None = None
    format: str = "png"
    channel: int = 0
    zoom: bool = False
    nifti_geometry: str | None = None

    def __post_init__(self) -> None:
        check_form(self.nifti_geometry)
        if self.format not in FORMATS:
            raise unknown_name_error("format of pictures", self.format, FORMATS)
        if self.channel < 0:
            raise ValueError(f"--channel: expected 0 or more, got {self.channel}")


def draw_overlays(
    images: str | Path,
    out: str | Path,
    *,
    prediction: str | Path | None = None,
    reference: str | Path | None = None,
    settings: OverlaySettings | None = None,
    home: str | Path | None = None,
    overwrite: bool = False,
) -> tuple[list[Path], dict[str, str]]:
    """Draws every case of which there are an image and a label map.

    Args:
        images: File, folder of images (``case_0000.nii.gz``), or DICOM series.
        out: Folder for the pictures, or the picture of a single case.
        prediction: Label map, or folder of them.
        overwrite: Replace pictures that this function did not draw, or that were changed since; never what is read, data or models.

    Returns:
        The pictures, and for each case without one the reason.

    Raises:
        ValueError: Nothing matches, a folder is missing, or a file must not be replaced; nothing was drawn then.
    """
    settings, images, out = settings or OverlaySettings(), Path(images), Path(out)
    dataset = None
    if settings.dataset is not None:
        dataset = planned_dataset(find_workspace(home, dataset=settings.dataset), settings.dataset)
        settings = replace(settings, nifti_geometry=settings.nifti_geometry or dataset.nifti_geometry)
    failed: dict[str, str] = {}
    files = find_images(images, dataset, settings.channel, failed)
    folders = {kind: None if path is None else Path(path) for kind, path in (("prediction", prediction), ("reference", reference))}
    maps = {kind: label_files(folder, failed) for kind, folder in folders.items() if folder is not None}
    matched, problems = match({case: of_case for case, of_case in files.items() if case not in failed}, maps) if files else ([], {})
    problems |= failed
    paths = _pictures(out, matched, settings.format)
    check_not_among({path.parent for path in paths.values()}, _without_pictures(images, folders, maps))
    read = [*(file for of_case in files.values() for file in of_case), *(file for of_kind in maps.values() for file in of_kind.values())]
    inputs = [file for path in read for file in (files_read(path) if path.is_file() else [path])]
    folders_of_home = home_folders(home, dataset=settings.dataset)
    outputs = Outputs("autoseg_overlay", inputs=inputs, protected=folders_of_home, overwrite=overwrite)
    outputs.check({case: [path] for case, path in paths.items()})
    drawn: list[Path] = []
    for case, path in tqdm(paths.items(), desc="Drawing", unit="case", disable=len(matched) < 3):
        with failure_of(case, problems, "is not drawn"):
            of_case = {kind: of_kind[case] for kind, of_kind in maps.items() if case in of_kind}
            with outputs.write(path) as partial:
                _draw(case, files[case], of_case, partial, dataset, settings=settings)
            drawn.append(path)
    return drawn, problems


def _without_pictures(images: Path, folders: Mapping[str, Path | None], maps: Mapping[str, Mapping[str, Path]]) -> dict[str, Path | None]:
    """Folders into which no picture is drawn: images, references, and predictions that are pictures themselves (not volumes)."""
    drawn = any(ending_of(file) in PICTURES for file in maps.get("prediction", {}).values())
    return {"images": images, "references": folders["reference"], "predictions": folders["prediction"] if drawn else None}


def _pictures(out: Path, cases: Sequence[str], ending: str) -> dict[str, Path]:
    """Case to its picture: the file that was named where there is one case, else one of its name in a folder."""
    if out.is_dir() or out.suffix.lstrip(".").lower() not in FORMATS:
        return {case: out / f"{case}.{ending}" for case in cases}
    if len(cases) > 1:
        raise ValueError(f"{out}: names one picture for {len(cases)} cases; name a folder")
    return dict.fromkeys(cases, out)


def find_images(folder: Path, dataset: Dataset | None, channel: int, failed: MutableMapping[str, str]) -> dict[str, Sequence[Path]]:
    """Case to the files of which its image is read.

    Args:
        dataset: Whose channels the files have; None: files that end in ``_0000`` ... are the channels of a case.
        failed: Gets case -> reason for those that cannot be one.

    Raises:
        ValueError: There is no image.
    """
    if dataset is not None:
        if channel >= len(dataset.channels):
            raise ValueError(f"--channel: expected 0 to {len(dataset.channels) - 1} ({', '.join(dataset.channels)}), got {channel}")
        found = find_new_cases(folder, dataset.channels)
        failed.update(found.failed)
        return {case.name: case.images for case in found.cases}
    if folder.is_file():
        return {_case_of(folder): (folder,)}
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected an image or a folder of images, found nothing")
    paths = [path for path in sorted(folder.iterdir()) if ending_of(path) and not path.name.startswith(".")]
    numbered = {path: re.search(r"_(\d{4})$", stem_of(path)) for path in paths}
    of_channel = [path for path, number in numbered.items() if number is None or int(number[1]) == channel]
    files: dict[str, Sequence[Path]] = {case: (path,) for case, path in _one_a_case(of_channel, _case_of, "image", failed).items()}
    if not files and not failed:
        others = f"{len(paths)} image files of other channels" if paths else "no image"
        raise ValueError(f"{folder}: expected images of channel {channel}, found {others}")
    return files


def _case_of(path: Path) -> str:
    return re.sub(r"_\d{4}$", "", stem_of(path))


def _one_a_case(paths: Sequence[Path], case_of: Callable[[Path], str], kind: str, failed: MutableMapping[str, str]) -> dict[str, Path]:
    """Case to its file; where two files have the name of one case, whose picture would show one of them only, the case fails."""
    found: dict[str, Path] = {}
    for path in paths:
        if found.setdefault(case_of(path), path) != path:
            failed[case_of(path)] = f"expected one {kind}, found {found[case_of(path)]} and {path}"
    return {case: path for case, path in found.items() if case not in failed}


def label_files(path: Path, failed: MutableMapping[str, str]) -> dict[str, Path]:
    """Case to its label map; `failed` gets case -> reason for those that have two.

    Raises:
        ValueError: There is none.
    """
    if path.is_file():
        return {_case_of(path): path}
    if not path.is_dir():
        raise ValueError(f"{path}: expected a label map or a folder of label maps, found nothing")
    found = [file for file in sorted(path.iterdir()) if ending_of(file) and not file.is_dir() and not file.name.startswith(".")]
    volumes = {stem_of(file) for file in found if ending_of(file) not in PICTURES}
    # Pictures of label maps may have been drawn beside them.
    label_maps = [file for file in found if ending_of(file) not in PICTURES or stem_of(file) not in volumes]
    files = _one_a_case(label_maps, stem_of, "label map", failed)
    if not files and not failed:
        raise ValueError(f"{path}: no label map found")
    return files


def match(files: dict[str, Sequence[Path]], maps: dict[str, dict[str, Path]]) -> tuple[list[str], dict[str, str]]:
    """Cases that can be drawn, and the others with the reason.

    A case needs an image and, where predictions are given, one of them, else one of the references where those are given. One image and
    one label map belong together whatever their names are.

    Raises:
        ValueError: No case can be drawn.
    """
    if len(files) == 1 and all(len(of_cases) == 1 for of_cases in maps.values()):
        name = next(iter(files))
        for of_cases in maps.values():
            of_cases[name] = of_cases.pop(next(iter(of_cases)))
        return [name], {}
    if not maps:
        return sorted(files), {}
    kind = "prediction" if "prediction" in maps else "reference"
    matched = sorted(set(files) & set(maps[kind]))
    problems = dict.fromkeys(sorted(set(files) - set(matched)), NO_FILE.format(kind))
    problems |= dict.fromkeys(sorted(set(maps[kind]) - set(files)), NO_FILE.format("image"))
    if not matched:
        images, labels = (", ".join([*sorted(names)[:3], "..."]) for names in (files, maps[kind]))
        raise ValueError(f"no {kind} has the name of an image: images {images}; {kind}s {labels}")
    return matched, problems


def failures_in(problems: Mapping[str, str]) -> dict[str, str]:
    """Of what `draw_overlays` did not draw the cases that failed: the others have just no image or label map of their name."""
    no_file = [NO_FILE.format(kind) for kind in ("image", "prediction", "reference")]
    return {case: reason for case, reason in problems.items() if reason not in no_file}


def describe_problems(problems: Mapping[str, str], shown: int = 10) -> list[str]:
    """One line for each reason, with the first cases of it."""
    cases_of: dict[str, list[str]] = {}
    for case, reason in problems.items():
        cases_of.setdefault(reason, []).append(case)
    rest = {reason: f" and {len(cases) - shown} more" if len(cases) > shown else "" for reason, cases in cases_of.items()}
    return [f"Not drawn, {reason}: {', '.join(cases[:shown])}{rest[reason]}" for reason, cases in cases_of.items()]


def _draw(
    case: str, paths: Sequence[Path], maps: Mapping[str, Path], path: Path, dataset: Dataset | None, *, settings: OverlaySettings
) -> None:
    image = read_image(paths, nifti_geometry=settings.nifti_geometry)
    channel = settings.channel if len(image.array) > 1 else 0  # a file with one channel holds just the one that was selected
    if channel >= len(image.array):
        raise ValueError(f"--channel: expected 0 to {len(image.array) - 1}, got {channel}: {paths[0]} has {len(image.array)} channels")
    known = None if dataset is None else dataset.labels
    label_images = {kind: read_label(file, nifti_geometry=settings.nifti_geometry) for kind, file in maps.items()}
    label_images = {kind: as_segmented(one, maps[kind], known, lambda: image.geometry) for kind, one in label_images.items()}
    for kind, label_image in label_images.items():
        difference = geometry_difference(image.geometry, label_image.geometry)
        if label_image.array.shape != image.geometry.shape:
            raise ValueError(f"{maps[kind]}: the {kind} lies elsewhere than the image {paths[0]}: {difference}")
        if difference:
            log.warning("%s: drawn voxel by voxel, although the headers put it elsewhere than %s: %s", maps[kind], paths[0], difference)
    labels = dataset.labels if dataset is not None else _labels_of(list(label_images.values()))
    turned = {}
    for kind, label_image in label_images.items():
        file = maps[kind]
        own = labels if dataset is None else written_labels(file.parent).get(file.name, labels)
        array = translate_labels(to_internal_values(label_image.array, own, source=str(file)), own, labels)
        turned[kind] = upright(
            array if labels.internal_ignore is None else np.where(array == labels.internal_ignore, 0, array), image.geometry
        )
    volume, spacing = upright(image.array[channel], image.geometry), upright_spacing(image.geometry)
    organs = np.any([array > 0 for array in turned.values()], axis=0) if turned else np.zeros(volume.shape, bool)
    name = dataset.channels[channel] if dataset is not None else UNKNOWN_CHANNEL
    window, _ = window_for(volume, organs, name, labels.names, dataset.windows if dataset is not None else {})
    overlay(
        *(volume, turned.get("reference"), turned.get("prediction"), spacing, path, labels.names),
        members=labels.internal_members,
        window=window,
        box=surroundings(organs, spacing) if settings.zoom else None,
        directions=directions_of(image.geometry),
        case=case,
    )


def _labels_of(images: Sequence[Image]) -> Labels:
    """An organ for every value that occurs, 0 excepted."""
    values = sorted({int(value) for image in images for value in np.unique(image.array)} - {0})
    return Labels(tuple(f"label {value}" for value in values), tuple((value,) for value in values))
