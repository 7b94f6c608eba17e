"""Finds the DICOM files of a folder and of the folders in it, and divides them into series and volumes."""

from __future__ import annotations

import filecmp
import os
import re
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from ..runtime.dataset_folders import natural_key
from .dicom_slices import DicomFile, Slice
from .dicom_volumes import Volume, volumes_of

_ENDINGS = (".dcm", ".ima", ".dicom")
_VALUE_REPRESENTATION = re.compile(rb"[A-Z]{2}")


@dataclass(frozen=True)
class Series:
    """A volume of a series (or what should be one), and where it was found.

    Attributes:
        folder: The folder that holds all its files; the file where the search was for one file.
        uid: SeriesInstanceUID, empty where unknown.
        number, description, patient: As its headers say, empty where they do not.
        volume: Its slices in order; with `Volume.fault` where they are no volume.
    """

    folder: Path
    uid: str
    number: str
    description: str
    patient: str
    volume: Volume

    @property
    def files(self) -> list[Path]:
        """Its files, sorted by path."""
        return sorted({one.file for one in self.volume.slices})


@dataclass(frozen=True)
class FoundSeries:
    """What a search found: volumes (sound or not), and what is no image of a case: item -> reason."""

    series: tuple[Series, ...]
    skipped: dict[str, str] = field(default_factory=dict)


def is_dicom_file(file: Path) -> bool:
    """True for an existing file with the ``DICM`` mark, with DICOM content without it, or with an ending of DICOM's."""
    if file.name.upper() == "DICOMDIR" or not file.is_file():
        return False
    return file.suffix.lower() in _ENDINGS or _has_dicom_content(file)


def is_dicom_folder(path: Path) -> bool:
    """True where a file in the folder, or in a folder in it, is DICOM; a disc's table of contents (``DICOMDIR``) does not count."""
    return path.is_dir() and any(is_dicom_file(file) for file in files_in(path))


def files_in(folder: Path) -> Iterator[Path]:
    """The files in a folder and the folders in it, without hidden ones, in natural order; links are followed, once."""
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        folders[:] = sorted((name for name in folders if not name.startswith(".") and real not in seen), key=natural_key)
        if real not in seen:
            yield from (Path(parent, name) for name in sorted(names, key=natural_key) if not name.startswith("."))
        seen.add(real)


def find_series(path: Path) -> FoundSeries:
    """Finds the volumes of a folder and the folders in it, or of one file; what is damaged is a volume with a fault.

    The last results are kept while no file changes: each series of a folder of many is read from one search.

    Raises:
        ValueError: There is nothing at `path`.
    """
    if not path.exists():
        raise ValueError(f"{path}: expected a DICOM file or folder, found nothing")
    found = _search(path, tuple(map(_state, files_in(path) if path.is_dir() else [path])))
    return replace(found, skipped=dict(found.skipped))


@lru_cache(maxsize=8)
def _search(path: Path, state: tuple[tuple[str | int, ...], ...]) -> FoundSeries:
    """As `find_series`; `state` of the files tells whether the result of an earlier call holds."""
    headers, damaged = _headers(path)
    headers = _without_pictures(headers)
    found, skipped = _grouped(path, [header for header in headers if not header.skip])
    broken = {file.parent: reason for file, reason in reversed(damaged.items())}
    series = [one for group in found for one in _series(path, group, broken)]
    hit = {file.parent for group in found for file in (header.path for header in group)}
    lost = {file: reason for file, reason in damaged.items() if file.parent not in hit}
    series += [Series(file, "", "", "", "", Volume("", (), fault=reason)) for file, reason in lost.items()]
    skipped |= _left_out([header for header in headers if header.skip])
    skipped |= {str(one.files[0]): one.volume.skip for one in series if one.volume.skip}
    return FoundSeries(tuple(one for one in series if not one.volume.skip), skipped)


def _state(file: Path) -> tuple[str | int, ...]:
    try:
        found = file.stat()
    except OSError:  # a broken link
        return (str(file),)
    return str(file), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _has_dicom_content(file: Path) -> bool:
    with file.open("rb") as stream:
        head = stream.read(132)
    if head[128:] == b"DICM":
        return True
    if len(head) < 132:
        return False
    for order in "<>":  # without preamble: the first attribute is of the first groups
        group, element = struct.unpack(f"{order}HH", head[:4])
        if group in (0x0002, 0x0008) and element < 0x0100:
            return _VALUE_REPRESENTATION.fullmatch(head[4:6]) is not None or (
                order == "<" and 0 < struct.unpack("<I", head[4:8])[0] < 2**12
            )
    return False


def _headers(path: Path) -> tuple[list[DicomFile], dict[Path, str]]:
    """Headers of the DICOM files, and the files that cannot be parsed with the reason."""
    headers, damaged, others = [], {}, []
    for file in files_in(path) if path.is_dir() else [path]:
        try:
            if is_dicom_file(file):
                headers.append(_read_header(file))
            elif file.name.upper() != "DICOMDIR":
                others.append(file)
        except (OSError, ValueError) as error:
            damaged[file] = str(error)
    sound = {(header.path.parent, header.series) for header in headers if not header.is_cut_short}
    for header in [one for one in headers if one.is_cut_short and (one.path.parent, one.series) not in sound]:
        headers.remove(header)  # of a series that nothing else is of: its header ended before it was said
        damaged[header.path] = f"{header.path}: {header.fault}"
    names = {(header.path.parent, _pattern(header.path)) for header in headers if not header.skip}
    for file in others:
        if re.search(r"\d", file.name) and (file.parent, _pattern(file)) in names:
            damaged[file] = f"{file}: damaged DICOM file: named like the slices beside it, but no DICOM (an interrupted copy?)"
    return headers, damaged


def _read_header(file: Path) -> DicomFile:
    from .dicom_headers import read_header  # pydicom takes a while, and most images are none of its

    return read_header(file)


def _without_pictures(headers: Sequence[DicomFile]) -> list[DicomFile]:
    """Series of colours and films are skipped; they are faults where they are all there is, and beside slices of their own series."""
    images = {header.series for header in headers if not (header.skip or header.picture)}
    alone = {header.series for header in headers} - images if images else set()
    return [
        header
        if not header.picture
        else replace(header, skip=header.picture)
        if header.series in alone
        else replace(header, fault=header.picture)
        for header in headers
    ]


def _pattern(file: Path) -> str:
    return re.sub(r"\d+", "#", file.name)


def _grouped(root: Path, images: Iterable[DicomFile]) -> tuple[list[list[DicomFile]], dict[str, str]]:
    """Images by series, and the copies among them that are left out.

    A series that is spread over folders is one; folders with the same files of a series, or with others that do not complete it, are
    as many.
    """
    by_folder: dict[tuple[str, ...], dict[Path, list[DicomFile]]] = defaultdict(dict)
    skipped: dict[str, str] = {}
    for image in images:
        folders = by_folder[image.patient, image.study, image.series]
        group = folders.setdefault(image.path.parent, [])
        if (copied := _original(image, group)) is not None:
            skipped[str(image.path)] = f"a copy of {copied.path}"
        else:
            group.append(image)
    groups: list[list[DicomFile]] = []
    for folders in by_folder.values():
        merged: list[list[DicomFile]] = []
        for group in folders.values():
            _merge(group, merged, skipped)
        groups += merged
    return groups, skipped


def _original(image: DicomFile, group: Sequence[DicomFile]) -> DicomFile | None:
    """The file of a group of which an image is a copy."""
    same = (one for one in group if image.instance and one.instance == image.instance)
    return next((one for one in same if filecmp.cmp(one.path, image.path, shallow=False)), None)


def _merge(group: list[DicomFile], merged: list[list[DicomFile]], skipped: dict[str, str]) -> None:
    """Adds a folder's part of a series to the part in another folder that it completes, or to `merged` as one of its own."""
    instances = {image.instance for image in group}
    for other in merged:
        if not group[0].series or instances == {image.instance for image in other} or any(image.fault for image in (*group, *other)):
            continue
        copies = {image.path: copied for image in group if (copied := _original(image, other)) is not None}
        new = [image for image in group if image.path not in copies]
        whole = volumes_of([one for image in (*other, *new) for one in image.slices])
        if len(whole) == 1 and not whole[0].fault:
            other += new
            skipped |= {str(path): f"a copy of {original.path}" for path, original in copies.items()}
            return
    merged.append(group)


def _series(root: Path, group: Sequence[DicomFile], broken: dict[Path, str]) -> list[Series]:
    """The volumes of one series; one with a fault where one of its files, or a file beside them, is damaged."""
    first = group[0]
    folders = [image.path.parent for image in group]
    folder = Path(os.path.commonpath(folders)) if root.is_dir() else root
    one = Series(folder, first.series, first.number, first.description, first.patient, Volume("", ()))
    slices: list[Slice] = [slice_ for image in group for slice_ in image.slices]
    fault = next((f"{image.path}: {image.fault}" for image in group if image.fault), "")
    fault = fault or next((broken[parent] for parent in folders if parent in broken), "")
    volumes = [Volume("", tuple(slices), fault=fault)] if fault else volumes_of(slices)
    return [replace(one, volume=_naming(one, volume)) for volume in volumes]


def _naming(one: Series, volume: Volume) -> Volume:
    """The volume with a fault that names the place and the series, of which one folder may hold several."""
    if not volume.fault:
        return volume
    place = "" if volume.fault.startswith(str(one.folder)) else f"{one.folder}: "
    series = " ".join(filter(None, (one.number, one.description, one.uid)))
    return replace(volume, fault=f"{place}{volume.fault}{f' (series {series})' if series else ''}")


def _left_out(headers: Iterable[DicomFile]) -> dict[str, str]:
    """What is no image, one line for the files of one series: item -> reason."""
    groups: dict[tuple[Path, str, str], list[Path]] = defaultdict(list)
    for header in headers:
        groups[header.path.parent, header.series, header.skip].append(header.path)
    return {
        f"{files[0]}{f' and {len(files) - 1} more of its series' if len(files) > 1 else ''}": reason
        for (_, _, reason), files in groups.items()
    }
