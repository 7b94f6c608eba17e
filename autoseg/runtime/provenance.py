"""What artefacts were made from, by content: one is up to date if the content ids of its inputs and its settings are the same.

Times of files decide nothing: a copied, moved or unzipped folder is as current as the original, and a replaced file is noticed however old
it claims to be. A content id holds the size of what it identifies, so that another size tells without reading that the content changed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from ..schema import Case
from ..schema.conventions import SERIES_MARK
from .hardware import cpu_count
from .registry import lookup
from .serialization import read_json, to_jsonable, write_json

T = TypeVar("T")

BLOCK_BYTES = 2**20
"""Read at once while a file is hashed."""

SEVERAL_FILES = {
    "DICOM": "autoseg.data.dicom:series_files",
    "header": "autoseg.data.raster_headers:data_file",
    "spacing": "autoseg.data.images:spacing_beside",
}
"""What finds the files of images that are no single file, and what a file beside a picture says of its spacing."""

HEADERS = (".mhd", ".mha", ".nrrd")
"""Endings of files whose voxels may lie in a second file, which their header names."""

SPACING_MARK = "+"
"""In the content id of a picture, before what tells the spacing that is written beside it."""

READERS = 4
"""Files that are hashed at once, at most: hashing outruns most disks."""


@dataclass(frozen=True)
class Stamp:
    """What an artefact was made from.

    Attributes:
        inputs: Name of each input to its content id.
        settings: Name of everything else that its content depends on, to a text that tells values apart (`value_id` of larger ones).
    """

    inputs: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)


def file_id(path: Path) -> str:
    """The content id of one file: SHA-256 and size in bytes."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
            size += len(block)
    return f"{digest.hexdigest()}:{size}"


def content_id(path: Path) -> str:
    """The content id of an image or label map: of its file, or of its files in the order of their names where it has several.

    Of a picture it tells the spacing that is written beside it, after a `SPACING_MARK`.

    Raises:
        ValueError: There is nothing at `path`.
    """
    ids = [file_id(file) for file in files_of(path)]
    if len(ids) != 1 or path.is_dir():
        return f"{hashlib.sha256(' '.join(ids).encode()).hexdigest()}:{sum(map(size_in, ids))}"
    digest, _, size = ids[0].partition(":")
    return f"{digest}{_spacing_mark(path)}:{size}"


def same_content(recorded: str, now: str) -> bool:
    """Whether a recorded content id is that of a file as it is now; one that was recorded before spacings counted tells nothing of them."""
    return recorded in (now, re.sub(rf"{re.escape(SPACING_MARK)}.*:", ":", now))


def same_spacing(recorded: str, path: Path) -> bool:
    """Whether the spacing that is written beside a picture is that of a recorded content id; True for other files."""
    return _spacing_mark(path) == "".join(recorded.partition(":")[0].partition(SPACING_MARK)[1:])


def _spacing_mark(path: Path) -> str:
    """What a content id tells of the spacing beside a picture; empty without one."""
    beside: str = lookup(SEVERAL_FILES, "spacing", "images of several files")(path)
    return f"{SPACING_MARK}{value_id(beside)[:16]}" if beside else ""


def value_id(value: Any) -> str:
    """SHA-256 of a value that JSON can hold (dataclasses allowed)."""
    return hashlib.sha256(json.dumps(to_jsonable(value), sort_keys=True).encode()).hexdigest()


def size_in(identity: str) -> int:
    """The size in bytes that a content id holds."""
    return int(identity.rpartition(":")[2])


def size_of(path: Path) -> int:
    """Bytes of an image or label map, all its files together.

    Raises:
        ValueError: There is nothing at `path`.
    """
    return sum(file.stat().st_size for file in files_of(path))


def files_of(path: Path) -> list[Path]:
    """The files of an image or label map: of a DICOM folder those of its series, of a header also that of its voxels.

    Raises:
        ValueError: There is nothing at `path`.
    """
    if path.is_dir() or path.name.startswith(SERIES_MARK):
        files: list[Path] = lookup(SEVERAL_FILES, "DICOM", "images of several files")(path)
        return sorted(files)
    if not path.is_file():
        raise ValueError(f"{path}: expected a file or a folder with a DICOM series, found nothing")
    if path.suffix.lower() not in HEADERS:
        return [path]
    voxels: Path | None = lookup(SEVERAL_FILES, "header", "images of several files")(path)
    return [path] if voxels is None or not voxels.is_file() else sorted({path, voxels})


def content_ids(paths: Iterable[Path], *, what: str) -> dict[Path, str]:
    """Content ids of images and label maps, several read at once; shows bytes per second and the time left.

    Raises:
        ValueError: There is nothing at one of them.
    """
    wanted = list(dict.fromkeys(paths))
    sizes = [size_of(path) for path in wanted]
    found: dict[Path, str] = {}
    bar = tqdm(total=sum(sizes), desc=what, unit="B", unit_scale=True, disable=not wanted)
    with bar, ThreadPoolExecutor(min(READERS, cpu_count())) as pool:
        for path, size, identity in zip(wanted, sizes, pool.map(content_id, wanted), strict=True):
            found[path] = identity
            bar.update(size)
    return found


def case_paths(case: Case) -> list[Path]:
    """Images and label map of a case, in the order of `Case.digests`."""
    return [*case.images, *([] if case.label is None else [case.label])]


def case_ids(case: Case) -> tuple[str, ...]:
    """Content ids of a case's images and label map: those that are recorded, else by reading the files."""
    return case.digests or tuple(content_id(path) for path in case_paths(case))


def label_id(case: Case) -> str:
    """Content id of the label map of a case that has one: the recorded one, else by reading the file."""
    if case.digests:
        return case.digests[-1]
    if case.label is None:
        raise ValueError(f"{case.name}: expected a label map, found none")
    return content_id(case.label)


def case_inputs(case: Case, values: Sequence[T]) -> dict[str, T]:
    """What is known of a case's files, in the order of `case_paths`, by what they are: ``image 0`` ... and ``label``."""
    names = [*(f"image {channel}" for channel in range(len(case.images))), *([] if case.label is None else ["label"])]
    return dict(zip(names, values, strict=True))


def annotated_setting(case: Case) -> str:
    """The organs that were annotated in a case, as a setting of a `Stamp`."""
    return "all" if case.annotated is None else ", ".join(case.annotated)


def reading_setting(cases: Iterable[Case]) -> dict[str, str]:
    """How contradictory NIfTI headers of the cases are read, as a setting of a `Stamp`; empty where nobody said how."""
    wanted = sorted({case.nifti_geometry for case in cases if case.nifti_geometry is not None})
    return {"nifti_geometry": ", ".join(wanted)} if wanted else {}


def stamp_path(artefact: Path) -> Path:
    """Where the stamp of an artefact lies that cannot hold it itself."""
    return artefact.with_name(artefact.name.removesuffix(".json") + ".stamp.json")


def is_current(artefact: Path, stamp: Stamp) -> bool:
    """Whether an artefact is there and was made from what `stamp` says; False where its own stamp is missing or unreadable."""
    return artefact.exists() and recorded_stamp(artefact) == stamp


def recorded_stamp(artefact: Path) -> Stamp | None:
    """What an artefact was made from, as `record` noted it; None where nothing readable was noted."""
    try:
        return read_json(stamp_path(artefact), Stamp)
    except (ValueError, OSError):
        return None


def record(artefact: Path, stamp: Stamp) -> None:
    """Notes what an artefact was made from; to be called when it is complete."""
    write_json(stamp_path(artefact), stamp)


def forget(artefact: Path) -> None:
    """Removes an artefact's stamp; to be called before it is replaced, as the stamp says nothing of its new content."""
    stamp_path(artefact).unlink(missing_ok=True)


def forget_id(path: Path) -> None:
    """Removes what `record_id` noted; to be called before the file is replaced."""
    _id_path(path).unlink(missing_ok=True)


def record_id(path: Path) -> None:
    """Notes the content id of a large file beside it; to be called by who has just written it."""
    write_json(_id_path(path), {"id": file_id(path)})


def recorded_ids(paths: Iterable[Path], *, what: str) -> dict[Path, str]:
    """Content ids of files that this program wrote: the recorded ones; of files without one, or of another size, by reading them."""
    found = {path: _recorded_id(path) for path in paths}
    return {path: identity for path, identity in found.items() if identity} | content_ids(
        [path for path, identity in found.items() if not identity], what=what
    )


def _recorded_id(path: Path) -> str:
    """The recorded content id of a file, empty where there is none or where the size shows that it is of another content."""
    try:
        identity = str(read_json(_id_path(path), dict)["id"])
        return identity if size_in(identity) == path.stat().st_size else ""
    except (ValueError, KeyError, OSError):
        return ""


def _id_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.id.json")
