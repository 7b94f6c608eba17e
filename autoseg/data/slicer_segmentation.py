"""Segmentations of 3D Slicer (``case.seg.nrrd``): what their header says of each segment, and their place on the image's grid."""

from __future__ import annotations

import logging
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..schema import Geometry, Image, Labels
from .geometry import geometry_difference, to_index, to_world

log = logging.getLogger(__name__)

REMEDY = "export the segmentation in Slicer as a label map (Segmentations module, Export to files, Use labelmap) with one value an organ"
WHOLE_VOXEL = 0.01
"""Largest distance in voxels between a crop's voxels and those of its image."""

_FIELD = re.compile(r"Segment(\d+)_(Name|LabelValue|Layer):=(.*)")
_LONGEST_HEADER = 1 << 20


class SegmentationError(ValueError):
    """A segmentation whose meaning or place differs from what the dataset and the image say."""


@dataclass(frozen=True)
class Segment:
    """A segment as the header names it: its value in the file, and the layer (volume of the file) that it lies in."""

    name: str
    value: int
    layer: int = 0


def is_segmentation(path: Path) -> bool:
    """Whether a file's name says that it is a segmentation of Slicer, and no image."""
    return path.name.lower().endswith(".seg.nrrd")


def read_segments(path: Path) -> tuple[Segment, ...]:
    """The segments that the header of an NRRD file names, whatever its ending; none where it is no segmentation of Slicer.

    Raises:
        SegmentationError: Two segments share a value, a value is no integer, or they lie in several layers, which may overlap.
    """
    if not path.name.lower().endswith(".nrrd") or not path.is_file():
        return ()
    fields: dict[int, dict[str, str]] = {}
    dimension = 0
    with path.open("rb") as file:
        while (line := file.readline(_LONGEST_HEADER).decode("utf-8", "replace").strip()) and file.tell() < _LONGEST_HEADER:
            if found := _FIELD.fullmatch(line):
                fields.setdefault(int(found[1]), {})[found[2]] = found[3].strip()
            elif found := re.fullmatch(r"dimension:\s*(\d+)", line):
                dimension = int(found[1])
    try:
        of_number = sorted(fields.items())
        segments = tuple(
            Segment(one.get("Name", f"Segment{number}"), int(one["LabelValue"]), int(one.get("Layer", 0))) for number, one in of_number
        )
    except (KeyError, ValueError) as error:
        raise SegmentationError(
            f"{path}: expected a LabelValue that is an integer for each segment in its header, found {fields}; {REMEDY}"
        ) from error
    if segments and (dimension > 3 or len({one.layer for one in segments}) > 1):
        layers = ", ".join(f"{one.name!r} in layer {one.layer}" for one in segments)
        raise SegmentationError(f"{path}: expected a segmentation of one layer, found several, which may overlap ({layers}); {REMEDY}")
    shared = [value for value, count in Counter(one.value for one in segments).items() if count > 1]
    if shared:
        names = ", ".join(repr(one.name) for one in segments if one.value == shared[0])
        raise SegmentationError(f"{path}: expected a value of its own for each segment, found {shared[0]} for {names}; {REMEDY}")
    return segments


def check_segments(path: Path, labels: Labels) -> None:
    """Compares the values that a segmentation gives its segments with those of the organs of the same names.

    Upper and lower case, blanks and underscores make no difference. A segment that ``dataset.json`` does not name is taken by its value,
    with a warning where that is an organ's.

    Raises:
        SegmentationError: An organ has another value than in ``dataset.json``; both are named. As `read_segments`.
    """
    members = {_plain(name): (name, values) for name, values in zip(labels.names, labels.members, strict=True)}
    members |= {"background": ("background", (0,))} | ({} if labels.ignore is None else {"ignore": ("ignore", (labels.ignore,))})
    wrong, unknown = [], []
    for segment in read_segments(path):
        organ, values = members.get(_plain(segment.name), ("", ()))
        if organ and segment.value not in values:
            wrong.append(f"segment {segment.name!r} has the value {segment.value}, dataset.json says {' or '.join(map(str, values))}")
        elif not organ:
            unknown += [f"{segment.name!r} ({segment.value}) as {name}" for name, values in members.values() if segment.value in values]
    if wrong:
        raise SegmentationError(f"{path}: expected the label values of dataset.json, found that {'; '.join(wrong)}; {REMEDY}")
    if unknown:
        log.warning("%s: dataset.json has no organs with the names of some segments; by their values they are %s", path, ", ".join(unknown))


def on_grid(label: Image, expected: Geometry) -> Image:
    """A segmentation on the grid of its image: Slicer stores only the part around the segments, whose header says where that lies.

    Raises:
        SegmentationError: Its voxels are not those of the image, or foreground lies outside of the image.
    """
    difference = geometry_difference(expected, label.geometry)
    if not difference:
        return label
    found, remedy = label.geometry, "export it with the image as its reference geometry"
    if found.dim != expected.dim:
        raise SegmentationError(f"{label.source}: expected {expected.dim} axes as the image has, found {found.dim}; {remedy}")
    corners = np.array([np.zeros(found.dim), np.array(found.shape[::-1]) - 1.0])
    index = to_index(expected, to_world(found, np.vstack([corners, np.diag(corners[1])])))
    start = np.rint(index[0]).astype(int)
    if np.abs(index - (np.vstack([corners, np.diag(corners[1])]) + start)).max() > WHOLE_VOXEL:
        raise SegmentationError(
            f"{label.source}: expected voxels of the image, a part of it moved by whole voxels, found one that differs from it in"
            f" {difference}; {remedy}"
        )
    array = np.zeros(expected.shape, label.array.dtype)
    spans = [(int(first), size, whole) for first, size, whole in zip(start[::-1], found.shape, expected.shape, strict=True)]
    target = tuple(slice(max(first, 0), max(min(first + size, whole), 0)) for first, size, whole in spans)
    source = tuple(slice(one.start - first, max(one.stop - first, 0)) for one, (first, _, _) in zip(target, spans, strict=True))
    if np.count_nonzero(label.array[source]) != np.count_nonzero(label.array):
        raise SegmentationError(f"{label.source}: expected all segments inside of the image, found voxels outside of it; {remedy}")
    array[target] = label.array[source]
    return Image(array, expected, label.source)


def _plain(name: str) -> str:
    return re.sub(r"[\s_]+", "_", name.strip().casefold())
