"""What a user names as input: files, folders and patterns, several of them, to the cases that they mean."""

from __future__ import annotations

import glob
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..runtime.dataset_folders import natural_key
from ..runtime.outputs import PREDICT, is_written_by
from ..schema import Case
from .datasets import find_new_cases
from .dicom import is_dicom_file
from .found_cases import FoundCases
from .images import ending_of

log = logging.getLogger(__name__)

Given = str | Path | Sequence[str | Path]
"""One path or pattern, or several."""


@dataclass(frozen=True)
class Inputs:
    """The paths that a user named, patterns replaced by what they match.

    Attributes:
        paths: In the order in which they were named, each once.
        skipped: Matches of patterns that are no images: item -> reason.
    """

    paths: tuple[Path, ...]
    skipped: dict[str, str]

    @property
    def folders(self) -> list[Path]:
        """The folders that images are read from: those that were named, and where there are several paths, those of the files."""
        alone = len(self.paths) == 1
        return list(dict.fromkeys(path if path.is_dir() or alone else path.parent for path in self.paths))


def given_inputs(given: Given) -> Inputs:
    """Replaces patterns (``scans/*.nii.gz``, ``**/T1.nii.gz``) by the files and folders that they match, in natural order.

    A file of that very name goes before a pattern. Several DICOM files of one folder, which are slices of its series, become the folder.

    Raises:
        ValueError: Nothing is there of a name or pattern.
    """
    several = [given] if isinstance(given, (str, Path)) else list(given)
    if not several:
        raise ValueError("expected images or folders of images, got none")
    paths, skipped = [], dict[str, str]()
    for one in several:
        path = Path(one).expanduser()
        if os.path.lexists(path) or not glob.has_magic(str(path)):
            paths.append(path)
            continue
        matching = [Path(name) for name in sorted(glob.glob(str(path), recursive=True), key=natural_key)]
        if not matching:
            raise ValueError(f"{path}: no file or folder matches this pattern")
        paths += matching
    paths = list(dict.fromkeys(paths))
    if len(paths) > 1:
        skipped = {str(path): reason for path in paths if (reason := _no_image(path))}
        paths = _with_series([path for path in paths if str(path) not in skipped])
        if not paths:
            raise ValueError(f"{'; '.join(f'{item}: {reason}' for item, reason in list(skipped.items())[:3])}: expected images")
    return Inputs(tuple(paths), skipped)


def _no_image(path: Path) -> str:
    """Why one of several paths is left out; empty where it is an image or folder, or is not there, which is an error."""
    if not path.is_file() or ending_of(path) or is_dicom_file(path):
        return f"is a label map, written by {PREDICT}" if path.is_file() and is_written_by(path, PREDICT) else ""
    return "not an image file that can be read"


def _with_series(paths: Sequence[Path]) -> list[Path]:
    """Paths with the folder in place of several DICOM files in it."""
    dicom = {path for path in paths if not ending_of(path) and is_dicom_file(path)}
    counts = Counter(path.parent for path in dicom)
    for folder, count in counts.items():
        if count > 1:
            log.info("%s: %d DICOM files are taken as the series of this folder.", folder, count)
    return list(dict.fromkeys(path.parent if path in dicom and counts[path.parent] > 1 else path for path in paths))


def find_cases_in(inputs: Inputs, channels: Sequence[str], *, nifti_geometry: str | None = None) -> FoundCases:
    """As `find_new_cases`, of all inputs; a case that two of them mean counts once.

    Raises:
        ValueError: Nothing there, or two cases of one name, which would be written to one file; both are named.
    """
    cases: dict[str, Case] = {}
    skipped, failed = dict(inputs.skipped), dict[str, str]()
    for path in inputs.paths:
        found = find_new_cases(path, channels, nifti_geometry=nifti_geometry)
        skipped |= found.skipped
        failed |= found.failed
        for case in found.cases:
            other = cases.setdefault(case.name, case)
            if _files(other) != _files(case):
                first, second = (", ".join(map(str, one.images)) for one in (other, case))
                raise ValueError(
                    f"two cases are called {case.name}, and would be written to one file: {first} and {second}; rename one, or predict "
                    "them into different folders"
                )
    return FoundCases(tuple(cases.values()), skipped, failed)


def _files(case: Case) -> list[str]:
    return [os.path.realpath(path) for path in case.images]
