"""DICOM: the volume that a path means, its files, geometry and voxels; the cases of a folder."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ..runtime.hardware import cpu_count
from ..schema import Geometry
from ..schema.conventions import SERIES_MARK
from .dicom_search import Series, files_in, find_series, is_dicom_file, is_dicom_folder
from .dicom_slices import Slice
from .found_cases import FoundCases, named_cases

__all__ = [
    "estimated_voxels",
    "find_dicom_cases",
    "is_dicom_file",
    "is_dicom_folder",
    "is_series",
    "patient_of",
    "read_geometry",
    "read_volume",
    "series_files",
]

READERS = 4
"""Files that are read and decoded at once, at most."""


def is_series(path: Path) -> bool:
    """Whether a path names a series of a folder (or a volume of a file) that holds several, as `find_dicom_cases` writes it."""
    return path.name.startswith(SERIES_MARK)


def read_volume(path: Path) -> tuple[np.ndarray, Geometry]:
    """Reads the one volume of a DICOM file, folder or series.

    Returns:
        Array ``(Z, Y, X)`` in the units of the rescale slopes (HU, Bq/ml), integers where slopes and intercepts are integers, else float32;
        and its geometry. Grey values are as stored also where low ones are to be shown bright (MONOCHROME1), and so are padding values.

    Raises:
        ValueError: No volume, several, or a damaged, missing or unfitting slice.
    """
    series = _one_series(path)
    by_file: dict[Path, list[int]] = {}
    for place, one in enumerate(series.volume.slices):
        by_file.setdefault(one.file, []).append(place)
    with ThreadPoolExecutor(min(READERS, cpu_count())) as pool:
        decoded = pool.map(lambda places: _decode([series.volume.slices[place] for place in places]), by_file.values())
        planes = {place: plane for places, some in zip(by_file.values(), decoded) for place, plane in zip(places, some)}
    kind = np.result_type(*{plane.dtype for plane in planes.values()})
    volume = np.stack([planes[place] for place in range(len(planes))], dtype=np.float32 if kind.kind == "f" else kind, casting="unsafe")
    return volume, _geometry(series)


def read_geometry(path: Path) -> Geometry:
    """Geometry of the one volume of a DICOM file, folder or series, from the headers alone; a ValueError as from `read_volume`."""
    return _geometry(_one_series(path))


def estimated_voxels(folder: Path) -> int:
    """Voxels of the first image of a folder, times the number of its files; a ValueError where there is no image."""
    from .dicom_headers import read_header  # pydicom takes a while, and most images are none of its

    files = list(files_in(folder))
    for file in files:
        if is_dicom_file(file) and (slices := read_header(file).slices):
            return math.prod(slices[0].shape) * len(slices) * len(files)
    raise ValueError(f"{folder}: expected a DICOM image, found none")


def series_files(path: Path) -> list[Path]:
    """The files of the one volume that `path` means; all in a folder that holds none or several."""
    try:
        return _one_series(path).files
    except ValueError:
        if not path.is_dir():
            raise
        return list(files_in(path))


def patient_of(path: Path) -> str:
    """The patient's number in the headers of the one volume that `path` means; empty where they, or the volume, are not there."""
    try:
        return _one_series(path).patient
    except ValueError:
        return ""


def find_dicom_cases(path: Path) -> FoundCases:
    """The volumes of a DICOM file or folder, and of the folders in it, as cases of one channel.

    A case is called like its folder (or file); where that holds several, also by number and description of the series, and by what tells
    volumes of one series apart. Names that would be the same get those of the folders above in front.
    """
    found = find_series(path)
    names = _names(path, found.series)
    sound = [(name, path) for name, path, one in zip(names, _paths(found.series), found.series) if not one.volume.fault]
    cases, unnamed = named_cases({name: (path,) for name, path in sound})
    failed = unnamed | {name: one.volume.fault for name, one in zip(names, found.series) if one.volume.fault}
    return FoundCases(cases, found.skipped, failed)


def _decode(slices: Sequence[Slice]) -> list[np.ndarray]:
    from .dicom_parsing import dicom_errors
    from .dicom_pixels import decode_file

    path = slices[0].file
    with dicom_errors(path):
        planes = decode_file(path, [one.frame for one in slices], [one.rescale for one in slices])
        for one, plane in zip(slices, planes, strict=True):
            if plane.shape != one.shape:
                raise ValueError(f"expected {one.shape} voxels as when its header was read, found {plane.shape}")
        return planes


def _geometry(series: Series) -> Geometry:
    if series.volume.geometry is None:
        raise ValueError(series.volume.fault)
    return series.volume.geometry


def _one_series(path: Path) -> Series:
    """The volume that a path means; a ValueError with a list where it means none or several."""
    if is_series(path):
        fitting = [one for one in find_series(path.parent).series if one.folder == path.parent and _key(one) == path.name]
        listed, wanted = {}, f"one volume {path.name.removeprefix(SERIES_MARK)} in {path.parent}"
    else:
        found = find_series(path)
        fitting, listed = list(found.series), found.skipped
        wanted = "one DICOM image series"
    if len(fitting) == 1:
        if fitting[0].volume.fault:
            raise ValueError(fitting[0].volume.fault)
        return fitting[0]
    lines = [_described(one) for one in fitting] + [f"{item} ({reason})" for item, reason in listed.items()]
    remedy = "; put each into a folder of its own" if fitting else ""
    raise ValueError(f"{path}: expected {wanted}, found {len(fitting) or 'none'}{': ' if lines else ''}{'; '.join(lines[:12])}{remedy}")


def _described(one: Series) -> str:
    patient = f"of patient {one.patient}" if one.patient else ""
    texts = (one.number, one.description, one.uid, patient, one.volume.part, f"{len(one.volume.slices)} slices", one.volume.fault)
    return " ".join(filter(None, texts))


def _key(one: Series) -> str:
    """The last part of the path of a volume among others."""
    part = f"@{one.volume.part}" if one.volume.part else ""
    return f"{SERIES_MARK}{re.sub(r'[^0-9A-Za-z.]', '_', one.uid)}{part}"


def _paths(series: Sequence[Series]) -> list[Path]:
    """Of each its folder or file where that holds nothing else, else that with the series named in it."""
    inside = Counter(folder for one in series for folder in (one.folder, *one.folder.parents))
    return [one.folder if inside[one.folder] == 1 else one.folder / _key(one) for one in series]


def _names(root: Path, series: Sequence[Series]) -> list[str]:
    """A name for each volume, unique and the same in every search."""
    folders = [_folders(root, one.folder) for one in series]
    beside: dict[Path, list[Series]] = defaultdict(list)
    for one in series:
        beside[one.folder].append(one)
    own = [_own_name(one, beside[one.folder]) for one in series]
    depth = [1] * len(series)
    while True:
        names = [_clean("_".join(filter(None, (*parts[-n:], name)))) for parts, n, name in zip(folders, depth, own)]
        counts = Counter(name.lower() for name in names)
        deeper = [i for i, name in enumerate(names) if counts[name.lower()] > 1 and depth[i] < len(folders[i])]
        if not deeper:
            return _numbered(names)
        for i in deeper:
            depth[i] += 1


def _folders(root: Path, folder: Path) -> tuple[str, ...]:
    """Names of the folders from the first below `root` to a volume's own; of `root` where that is its own."""
    inside = folder.relative_to(root).parts if folder != root else (root.resolve().name,)
    return (*inside[:-1], re.sub(r"\.(dcm|ima|dicom)$", "", inside[-1], flags=re.IGNORECASE))


def _own_name(one: Series, beside: Sequence[Series]) -> str:
    """What tells a volume from the others in its folder."""
    patient = one.patient if len({other.patient for other in beside}) > 1 else ""
    several = len({(other.uid, other.patient) for other in beside}) > 1
    shown = {(other.uid, other.patient): f"{other.number} {other.description}".strip() for other in beside}
    text = shown[one.uid, one.patient]
    if not text or list(shown.values()).count(text) > 1:
        text = f"{text} {one.uid.rpartition('.')[2]}".strip()
    return "_".join(filter(None, (patient, text if several else "", one.volume.part)))


def _clean(name: str) -> str:
    """A name of letters, digits, dots, dashes and underscores that does not begin with a dot or dash."""
    return re.sub(r"_+", "_", re.sub(r"[^\w.-]", "_", name)).strip("_").lstrip(".-")[:100] or "case"


def _numbered(names: Sequence[str]) -> list[str]:
    """Names with a number behind those that are there already."""
    given: dict[str, str] = {}
    wanted = {name.lower() for name in names}
    for name in names:
        number, unique = 1, name
        while unique.lower() in given or (number > 1 and unique.lower() in wanted):
            number += 1
            unique = f"{name}_{number}"
        given[unique.lower()] = unique
    return list(given.values())
