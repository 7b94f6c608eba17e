"""What lies in a folder of images or label maps, by case and channel, and which files a case lacks or has twice."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..runtime.dataset_folders import natural_key
from ..runtime.failures import reason_of
from ..runtime.shown_text import in_one_line
from ..schema import Case
from .dicom import is_dicom_folder
from .images import count_channels, ending_of, stem_of
from .slicer_segmentation import is_segmentation

log = logging.getLogger(__name__)

UNLABELLED = "imagesUn"
"""Folder of a dataset for images without label maps, beside ``imagesTr``."""

_CHANNEL = re.compile(r"^(.+)_(\d{4})$")


@dataclass(frozen=True)
class MissingFile:
    """A file that a case should have, or has twice, and what there is instead.

    Attributes:
        kind: ``missing channel``, ``missing label``, ``two files`` or ``unreadable file``.
        expected: Where it is not just `file`.
    """

    case: str
    kind: str
    file: Path
    found: str
    expected: str = ""

    @property
    def reason(self) -> str:
        """What is wrong, without the case's name."""
        return in_one_line(f"{self.kind}, expected {self.expected or self.file}, found {self.found}")

    def __str__(self) -> str:
        return f"case {in_one_line(self.case)}: {self.reason}"


Item = tuple[str, int | None]
"""Case and channel of a file; the channel is None where the name does not say it."""


def label_files(folder: Path) -> tuple[dict[str, Path], dict[str, MissingFile]]:
    """Case to its label map; and the cases that have two."""
    files: dict[str, Path] = {}
    clashes = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else []:
        if ending_of(file) and not file.name.startswith("."):
            name = stem_of(file)
            if name in files:
                clashes[name] = MissingFile(name, "two files", files[name], f"{files[name]} and {file}", "one label map")
            files.setdefault(name, file)
    return files, clashes


def image_items(
    folder: Path, n_channels: int, *, stem: str | None = None, known: frozenset[str] | set[str] = frozenset(), dicom: bool = True
) -> tuple[dict[Item, Path], dict[str, MissingFile]]:
    """Image files and (with `dicom`) DICOM folders directly in a folder by (case, channel); and the cases with two files for one thing.

    A number in the name that is no channel belongs to the case's name, and names of cases that are `known` (labels) are never taken apart.
    `stem` limits the search to one case.
    """
    items: dict[Item, Path] = {}
    clashes = {}
    for path in sorted(folder.iterdir(), key=lambda path: natural_key(path.name)) if folder.is_dir() else []:
        is_folder = path.is_dir()
        name = path.name if is_folder else stem_of(path)
        key = (name, None) if name in known else split_channel(path, n_channels)
        # Names first: a folder of another name may hold a whole archive, in which DICOM would be looked for.
        if path.name.startswith(".") or (stem is not None and key[0] != stem):
            continue
        if not (dicom and is_dicom_folder(path) if is_folder else ending_of(path)):
            continue
        if is_segmentation(path):
            log.warning("%s: is a segmentation of Slicer and no image: it is left out", path)
            continue
        other = same_item(items, key, n_channels)
        if other is not None:
            clashes[key[0]] = MissingFile(key[0], "two files", other, f"{other} and {path}", "one file a channel")
        items.setdefault(key, path)
    return items, clashes


def same_item(items: Mapping[Item, Path], key: Item, n_channels: int) -> Path | None:
    """What is there already of a case's channel; of one channel alone the number in the name does not matter."""
    return items.get(key) or (items.get((key[0], None)) or items.get((key[0], 0)) if n_channels == 1 else None)


def split_channel(path: Path, n_channels: int) -> Item:
    """Case and channel that the name of a file or folder says."""
    name = path.name if path.is_dir() else stem_of(path)
    match = _CHANNEL.match(name)
    return (match[1], int(match[2])) if match and int(match[2]) < n_channels else (name, None)


def case_images(
    folder: Path, name: str, items: Mapping[Item, Path], channels: Sequence[str], *, usual: str = ""
) -> tuple[tuple[Path, ...], MissingFile | None]:
    """The files of a case in channel order, or what is missing; one file may hold all channels.

    `usual` is the ending of images of which there is no file that shows it.
    """
    files = {channel: items[name, channel] for channel in (None, *range(len(channels))) if (name, channel) in items}
    if all(channel in files for channel in range(len(channels))):
        return tuple(files[channel] for channel in range(len(channels))), None
    present = list(files.values())
    try:
        if len(present) == 1 and (len(channels) == 1 or count_channels(present[0]) == len(channels)):
            return (present[0],), None
    except Exception as error:  # whatever a damaged header leads to is the fault of this case alone
        return (), MissingFile(name, "unreadable file", present[0], reason_of(error), f"all {len(channels)} channels in {present[0]}")
    gap = next(channel for channel in range(len(channels)) if channel not in files)
    ending = ending_of(present[0]) if present else usual
    found = ", ".join(path.name for path in present) or "nothing"
    kind = f"missing channel {gap} ({channels[gap]})" if len(channels) > 1 else "missing channel"
    return (), MissingFile(name, kind, folder / f"{name}_{gap:04d}{ending}", found)


def commonest(endings: Iterable[str]) -> str:
    """The ending that most files have; ``.nii.gz`` where none has one."""
    counts = Counter(ending for ending in endings if ending)
    return counts.most_common(1)[0][0] if counts else ".nii.gz"


def unlabelled_cases(folder: Path, channels: Sequence[str], labelled: Iterable[str]) -> tuple[list[Case], list[MissingFile]]:
    """Cases of ``imagesUn`` in a dataset's folder, sorted by name, and what is missing of them.

    Images of cases that are labelled are left out, which is logged: whatever else is there as well is no mistake, but nothing new either.
    """
    items, clashes = image_items(folder / UNLABELLED, len(channels))
    known, names = set(labelled), sorted({name for name, _ in items})
    if also := [name for name in names if name in known]:
        log.warning("%s: %d images of labelled cases (such as %s) are left out", folder / UNLABELLED, len(also), also[0])
    ending = commonest(map(ending_of, items.values()))
    cases, missing = [], []
    for name in names:
        if name not in known:
            found = ((), clashes[name]) if name in clashes else case_images(folder / UNLABELLED, name, items, channels, usual=ending)
            images, gap = found
            cases += [] if gap else [Case(name, images)]
            missing += [gap] if gap else []
    return cases, missing
