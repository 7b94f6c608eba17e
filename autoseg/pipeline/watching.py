"""A folder into which scans fall, served with a model that stays loaded: each is predicted as soon as it is complete.

The folder is looked at again and again, and compared with what was there before: that works on drives of other computers too, which do not
tell of changes, and whose clocks may be wrong.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..data.datasets import find_new_cases
from ..data.dicom import series_files
from ..data.found_cases import FoundCases
from ..data.images import ending_of, files_read
from ..runtime.failures import ends_all_cases, reason_of
from ..schema import Case
from .loaded_model import LoadedModel, check_destination, predict_found, tell_models

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
"""Between two looks at the folder, where nothing else is said."""

DICOM_QUIET_SECONDS = 15.0
"""For so long nothing of a DICOM series must change: no file says how many slices are still to come."""

CHUNK = 1 << 20
"""Bytes that are unpacked at once to see whether a file is whole."""

State = tuple[tuple[str, int, int], ...]
"""Files with their sizes and times of change."""


@dataclass
class Watch:
    """Serves a folder; each `look` predicts what is complete and was not predicted before.

    A case is taken when all its channels are there and its files look the same as one look ago (those of DICOM for `DICOM_QUIET_SECONDS`),
    compressed ones to their last byte. What cannot be predicted is named once, and tried again when its files change. What an earlier call
    predicted with the same models stays.

    Attributes:
        model: Predicts.
        folder: Gets scans: files, or DICOM folders.
        out: Gets label maps.
        overwrite: See `predict_each`.
        clock: Seconds that only grow.
        written: Cases with their label maps, so far.
        failures: Case -> reason for those that could not be predicted as they are now.
        incomplete: Case -> reason for those that wait, as a file ends early: it is still being copied, or broken.

    Raises:
        ValueError: There is no such folder, or nothing may be written to `out`.
    """

    model: LoadedModel
    folder: Path
    out: Path
    overwrite: bool = False
    clock: Callable[[], float] = time.monotonic
    written: set[str] = field(default_factory=set, init=False)
    failures: dict[str, str] = field(default_factory=dict, init=False)
    incomplete: dict[str, str] = field(default_factory=dict, init=False)
    _since: dict[str, tuple[State, float]] = field(default_factory=dict, init=False)
    _taken: dict[str, State] = field(default_factory=dict, init=False)
    _faults: dict[str, str] = field(default_factory=dict, init=False)
    _told: dict[str, str] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            raise ValueError(f"--watch {self.folder}: expected a folder, found {'a file' if self.folder.is_file() else 'nothing'}")
        if ending_of(self.out) and not self.out.is_dir():
            raise ValueError(f"{self.out}: expected a folder, as --watch segments every image that comes; found the name of a file")
        check_destination(self.out, [self.folder], self.model.source)
        tell_models(self.model)

    def serve(self, seconds: float = LOOK_SECONDS) -> None:
        """Looks at the folder for ever; ends by an interruption, which leaves no half-written file."""
        while True:
            self.look()
            time.sleep(seconds)

    def look(self) -> list[str]:
        """Predicts every case that is complete; returns their names."""
        try:
            found = self._found()
            ready = [case for case in found.cases if self._is_ready(case)]
        except OSError as error:  # a drive that is away for a moment
            self._tell({str(self.folder): f"cannot be looked at now: {reason_of(error)}"})
            return []
        gone = (self._taken.keys() | self.incomplete.keys()) - {case.name for case in found.cases}
        for known in (self._taken, self._since, self.failures, self.incomplete):
            for name in gone:
                known.pop(name, None)
        for case in ready:
            self._predict(case)
        return [case.name for case in ready]

    def _found(self) -> FoundCases:
        """What lies in the folder now; what is wrong with it is told once it was so for two looks, as a copy may be under way."""
        try:
            found = find_new_cases(self.folder, self.model.channels, nifti_geometry=self.model.source.nifti_geometry(self.model.settings))
        except ValueError:  # nothing there yet
            if not self.folder.is_dir():
                raise FileNotFoundError(f"{self.folder} is not there") from None
            found = FoundCases(())
        faults = {**{item: f"skipped: {reason}" for item, reason in found.skipped.items()}, **found.failed}
        self._tell({item: reason for item, reason in faults.items() if self._faults.get(item) == reason})
        self._faults = faults
        return found

    def _tell(self, faults: Mapping[str, str]) -> None:
        """Warns of what is new."""
        for item, reason in faults.items():
            if self._told.get(item) != reason:
                self._told[item] = reason
                log.warning("%s: %s; looked at again when it changes", item, reason)

    def _is_ready(self, case: Case) -> bool:
        """Whether a case is complete and was not taken as it is now."""
        now, state = self.clock(), _state_of(case)
        before, since = self._since.get(case.name, (None, now))
        if state != before:
            self._since[case.name] = state, now
            return False
        if self._taken.get(case.name) == state or (_is_dicom(case) and now - since < DICOM_QUIET_SECONDS):
            return False
        half = [path for path in case.images if path.suffix.lower() == ".gz" and path.is_file() and _ends_early(path)]
        if half:
            self._tell({str(path): "is not complete yet" for path in half})
            self.incomplete[case.name] = f"not predicted, as {half[0]} ends early: it was still being copied, or is broken"
            return False
        self._taken[case.name] = state
        self.incomplete.pop(case.name, None)
        return True

    def _predict(self, case: Case) -> None:
        self.failures.pop(case.name, None)
        try:
            done = predict_found(self.model, FoundCases((case,)), [self.folder], self.out, overwrite=self.overwrite, keeps_table=True)
            self.written |= {*done.written}
            self.failures |= done.failures
        except Exception as error:
            if ends_all_cases(error) or not isinstance(error, ValueError):
                raise
            self.failures[case.name] = reason_of(error)
            log.error("%s failed: %s", case.name, error)


def _is_dicom(case: Case) -> bool:
    """Whether a channel is a series of files instead of one."""
    return any(not path.is_file() for path in case.images)


def _state_of(case: Case) -> State:
    """The files of a case as they are now."""
    files = [file for path in case.images for file in (files_read(path) if path.is_file() else series_files(path))]
    return tuple((str(file), (status := file.stat()).st_size, status.st_mtime_ns) for file in files)


def _ends_early(path: Path) -> bool:
    """Whether a gzip file stops before its last byte; one that is damaged otherwise does not, as reading it says more."""
    unpack = zlib.decompressobj(wbits=31)
    with path.open("rb") as file:
        try:
            while chunk := file.read(CHUNK):
                while chunk:
                    unpack.decompress(chunk, 16 * CHUNK)
                    chunk = unpack.unconsumed_tail
        except zlib.error:
            return False
    return not unpack.eof
