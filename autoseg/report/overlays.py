"""Pictures of predictions: images, label maps and references matched by the names of their cases, and drawn over each other."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..data.datasets import find_new_cases
from ..data.descriptions import planned_dataset
from ..data.images import ending_of, geometry_difference, read_image, read_label, stem_of
from ..data.labels import to_internal
from ..runtime.registry import unknown
from ..runtime.workspace import find_workspace
from ..schema import Dataset, Image, Labels
from .overlay_figure import overlay
from .views import surroundings, upright, upright_spacing, window_for

log = logging.getLogger(__name__)

FORMATS = ("png", "pdf", "svg", "jpg")
"""Of pictures."""

UNKNOWN_CHANNEL = "unknown"
"""Name of a channel of which nothing is known; it is drawn between percentiles."""


@dataclass(frozen=True, kw_only=True)
class OverlaySettings:
    """What a user may ask of the pictures.

    Attributes:
        dataset: Whose organ names, regions and windows to use; None: every label value is an organ.
        format: Ending of the pictures.
        channel: Number of the channel that is drawn.
        zoom: Show the organs and their surroundings instead of whole slices.
    """

    dataset: str | None = None
    format: str = "png"
    channel: int = 0
    zoom: bool = False

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise unknown("format of pictures", self.format, FORMATS)
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
) -> tuple[list[Path], dict[str, str]]:
    """Draws every case of which there are an image and a label map.

    Args:
        images: File, folder of images (``case_0000.nii.gz``), or DICOM series.
        out: Folder for the pictures, or the picture of a single case.
        prediction: Label map, or folder of them.
        reference: The same.
        settings: See `OverlaySettings`.
        home: Home folder.

    Returns:
        The pictures, and case to why it has none: what does not match is named.

    Raises:
        ValueError: Nothing matches, or a folder is missing.
    """
    settings, images, out = settings or OverlaySettings(), Path(images), Path(out)
    dataset = None
    if settings.dataset is not None:
        dataset = planned_dataset(find_workspace(home, dataset=settings.dataset), settings.dataset)
    files = find_images(images, dataset, settings.channel)
    maps = {
        what: label_files(Path(folder)) for what, folder in (("prediction", prediction), ("reference", reference)) if folder is not None
    }
    matched, problems = match(files, maps)
    single = len(matched) == 1 and out.suffix.lstrip(".").lower() in FORMATS
    drawn = []
    for case in tqdm(matched, desc="Drawing", unit="case", disable=len(matched) < 3):
        path = out if single else out / f"{case}.{settings.format}"
        try:
            _draw(files[case], {what: found[case] for what, found in maps.items() if case in found}, path, dataset, settings)
            drawn.append(path)
        except (ValueError, OSError, RuntimeError) as error:
            problems[case] = str(error)
    return drawn, problems


def find_images(folder: Path, dataset: Dataset | None, channel: int) -> dict[str, Sequence[Path]]:
    """Case to the files of which its image is read.

    Args:
        folder: File or folder.
        dataset: Whose channels the files have; None: files that end in ``_0000`` ... are the channels of a case.
        channel: The one that is drawn.

    Raises:
        ValueError: There is no image.
    """
    if dataset is not None:
        if channel >= len(dataset.channels):
            raise ValueError(f"--channel: expected 0 to {len(dataset.channels) - 1} ({', '.join(dataset.channels)}), got {channel}")
        return {case.name: case.images for case in find_new_cases(folder, dataset.channels)}
    if folder.is_file():
        return {_case_of(folder): (folder,)}
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected an image or a folder of images, found nothing")
    paths = [path for path in sorted(folder.iterdir()) if ending_of(path) and not path.name.startswith(".")]
    numbered = {path: re.search(r"_(\d{4})$", stem_of(path)) for path in paths}
    found = {_case_of(path): (path,) for path, number in numbered.items() if number is None or int(number[1]) == channel}
    if not found:
        others = f"{len(paths)} image files of other channels" if paths else "no image"
        raise ValueError(f"{folder}: expected images of channel {channel}, found {others}")
    return found


def _case_of(path: Path) -> str:
    return re.sub(r"_\d{4}$", "", stem_of(path))


def label_files(path: Path) -> dict[str, Path]:
    """Case to its label map.

    Raises:
        ValueError: There is none.
    """
    if path.is_file():
        return {_case_of(path): path}
    if not path.is_dir():
        raise ValueError(f"{path}: expected a label map or a folder of label maps, found nothing")
    found = {stem_of(one): one for one in sorted(path.iterdir()) if ending_of(one) and one.is_file() and not one.name.startswith(".")}
    if not found:
        raise ValueError(f"{path}: no label map found")
    return found


def match(files: dict[str, Sequence[Path]], maps: dict[str, dict[str, Path]]) -> tuple[list[str], dict[str, str]]:
    """Cases that can be drawn, and the others with the reason.

    A case needs an image and, where predictions are given, one of them, else one of the references where those are given. One image and
    one label map belong together whatever their names are.

    Raises:
        ValueError: No case can be drawn.
    """
    if len(files) == 1 and all(len(found) == 1 for found in maps.values()):
        name = next(iter(files))
        for found in maps.values():
            found[name] = found.pop(next(iter(found)))
        return [name], {}
    if not maps:
        return sorted(files), {}
    what = "prediction" if "prediction" in maps else "reference"
    matched = sorted(set(files) & set(maps[what]))
    problems = dict.fromkeys(sorted(set(files) - set(matched)), f"no {what} of this name")
    problems |= dict.fromkeys(sorted(set(maps[what]) - set(files)), "no image of this name")
    if not matched:
        shown = ", ".join([*sorted(files)[:3], "..."]), ", ".join([*sorted(maps[what])[:3], "..."])
        raise ValueError(f"no {what} has the name of an image: images {shown[0]}; {what}s {shown[1]}")
    return matched, problems


def describe_problems(problems: Mapping[str, str], shown: int = 10) -> list[str]:
    """One line a reason, with the first cases of it."""
    reasons: dict[str, list[str]] = {}
    for case, why in problems.items():
        reasons.setdefault(why, []).append(case)
    rest = {why: f" and {len(cases) - shown} more" if len(cases) > shown else "" for why, cases in reasons.items()}
    return [f"Not drawn, {why}: {', '.join(cases[:shown])}{rest[why]}" for why, cases in reasons.items()]


def _draw(paths: Sequence[Path], maps: Mapping[str, Path], path: Path, dataset: Dataset | None, settings: OverlaySettings) -> None:
    image = read_image(paths)
    channel = settings.channel if len(image.array) > 1 else 0  # a file of its own holds just the channel that was asked for
    if channel >= len(image.array):
        raise ValueError(f"--channel: expected 0 to {len(image.array) - 1}, got {channel}: {paths[0]} has {len(image.array)} channels")
    read = {what: read_label(file) for what, file in maps.items()}
    for what, one in read.items():
        difference = geometry_difference(image.geometry, one.geometry)
        if one.array.shape != image.geometry.shape:
            raise ValueError(f"{maps[what]}: the {what} lies elsewhere than the image {paths[0]}: {difference}")
        if difference:
            log.warning("%s: drawn voxel by voxel, although the headers put it elsewhere than %s: %s", maps[what], paths[0], difference)
    labels = dataset.labels if dataset is not None else _labels_of(list(read.values()))
    arrays = {what: to_internal(one.array, labels, source=str(maps[what])) for what, one in read.items()}
    if labels.internal_ignore is not None:
        arrays = {what: np.where(one == labels.internal_ignore, 0, one) for what, one in arrays.items()}
    standing = upright(image.array[channel], image.geometry)
    turned = {what: upright(one, image.geometry) for what, one in arrays.items()}
    organs = np.any([one > 0 for one in turned.values()], axis=0) if turned else np.zeros(standing.shape, bool)
    name = dataset.channels[channel] if dataset is not None else UNKNOWN_CHANNEL
    window, _ = window_for(standing, organs, name, labels.names, dataset.windows if dataset is not None else {})
    spacing = upright_spacing(image.geometry)
    how = {"members": labels.internal_members, "window": window, "box": surroundings(organs, spacing) if settings.zoom else None}
    overlay(standing, turned.get("reference"), turned.get("prediction"), spacing, path, labels.names, **how)


def _labels_of(images: Sequence[Image]) -> Labels:
    """An organ for every value that occurs, 0 excepted."""
    values = sorted({int(value) for image in images for value in np.unique(image.array)} - {0})
    return Labels(tuple(f"label {value}" for value in values), tuple((value,) for value in values))
