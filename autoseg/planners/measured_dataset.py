"""The fingerprint of a dataset, measured again only where its files have another content than the recorded one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from ..data.descriptions import read_description
from ..data.images import read_geometry
from ..runtime.migrate.artefacts import OLD_FINGERPRINT_KEY, fingerprint_of_0_1_0_fits
from ..runtime.provenance import (
    SPACING_MARK,
    Stamp,
    annotated_setting,
    case_inputs,
    case_paths,
    content_ids,
    forget,
    is_current,
    reading_setting,
    record,
    recorded_stamp,
    same_content,
    same_spacing,
    size_in,
    size_of,
    value_id,
)
from ..runtime.serialization import read_json, write_json
from ..runtime.workspace import DESCRIPTION, Workspace
from ..schema import Case, CaseFingerprint, Dataset, Fingerprint
from .fingerprint import measure_dataset

log = logging.getLogger(__name__)

FINGERPRINT = "fingerprint.json"
MEASURED = tuple(one.name for one in fields(CaseFingerprint))
"""What is measured of a case; a fingerprint that lacks one of them is made again."""


@dataclass(frozen=True)
class MeasuredDataset:
    """A dataset with the content ids of all cases that could be measured, and their fingerprint.

    Attributes:
        failures: Case -> reason for the others; with some the fingerprint is measured again the next time.
    """

    dataset: Dataset
    fingerprint: Fingerprint
    failures: dict[str, str] = field(default_factory=dict)


def measured_dataset(workspace: Workspace, dataset: Dataset, *, workers: int | None = None, trust_files: bool = False) -> MeasuredDataset:
    """Measures a dataset, or reads its fingerprint where its files still have the content that was measured.

    Args:
        workspace: Where the fingerprint lies.
        dataset: As its own folder describes it.
        workers: See `measure_dataset`.
        trust_files: Do not read files whose path and size are as recorded to verify their content.

    Raises:
        ValueError: Not one case can be used.
    """
    folder = workspace.preprocessed(dataset.name)
    path = folder / FINGERPRINT
    known = _identified(workspace, dataset, trust_files=trust_files)
    if known is not None and is_current(path, fingerprint_stamp(known)):
        return MeasuredDataset(known, _read(path, known))
    if (known := _identified_since_0_1_0(folder, dataset)) is not None:
        return MeasuredDataset(known, _read(path, known))
    measured = measure_dataset(dataset, workers=workers)
    for case, reason in measured.failures.items():
        log.error("%s is left out: %s", case, reason)
    found = _with_digests(dataset, measured.digests)
    return MeasuredDataset(_with_former_ids(workspace, found), measured.fingerprint, measured.failures)


def with_unlabelled_ids(dataset: Dataset) -> Dataset:
    """The dataset with the content ids of its images without label maps, read now; nothing else of them is measured."""
    ids = content_ids((path for case in dataset.unlabelled for path in case_paths(case)), what="Identifying images without label maps")
    identified = (replace(case, digests=tuple(ids[path] for path in case_paths(case))) for case in dataset.unlabelled)
    return replace(dataset, unlabelled=tuple(identified))


def _read(path: Path, dataset: Dataset) -> Fingerprint:
    """The fingerprint of a dataset; a ValueError where it is that of other channels or cases."""
    found = read_json(path, Fingerprint)
    if len(found.intensities) != len(dataset.channels) or {one.name for one in found.cases} - {one.name for one in dataset.cases}:
        expected = f"the intensities of {len(dataset.channels)} channels, and cases of {dataset.folder}"
        raise ValueError(f"{path}: expected {expected}, found others; remove it, and plan again to measure anew")
    return found


def keep_fingerprint(folder: Path, measured: MeasuredDataset) -> None:
    """Writes a fingerprint with its stamp; one that lacks cases gets none, so that they are tried again."""
    path = folder / FINGERPRINT
    forget(path)
    (folder / OLD_FINGERPRINT_KEY).unlink(missing_ok=True)
    write_json(path, measured.fingerprint)
    if not measured.failures:
        record(path, fingerprint_stamp(measured.dataset))


def fingerprint_stamp(dataset: Dataset) -> Stamp:
    """What a fingerprint is made from; all cases have their content ids."""
    ids = {case.name: case_inputs(case, case.digests) for case in dataset.cases}
    return Stamp({f"{case} {name}": one for case, some in ids.items() for name, one in some.items()}, _settings(dataset))


def _settings(dataset: Dataset) -> dict[str, str]:
    """What a fingerprint depends on besides files."""
    annotated = {case.name: annotated_setting(case) for case in dataset.cases if case.annotated is not None}
    settings = {"labels": dataset.labels, "channels": len(dataset.channels), "annotated": annotated, "measured": MEASURED}
    return {name: value_id(value) for name, value in settings.items()} | reading_setting(dataset.cases)


def _identified(workspace: Workspace, dataset: Dataset, *, trust_files: bool) -> Dataset | None:
    """The dataset with the content ids of its files, read now; None where everything is to be measured anyway.

    That is so without a fingerprint of these cases and settings, and where a file has another size: it has changed for certain.
    """
    recorded = _recorded_ids(workspace, dataset)
    if recorded is None or any(size_of(path) != size_in(one) for path, one in recorded.items()):
        return None
    trusted = {path for path in _same_paths(workspace, dataset) if same_spacing(recorded[path], path)} if trust_files else set()
    if trust_files:
        what = "are not verified, as their paths and sizes are as recorded"
        log.info("--trust-files: the contents of %d of %d files %s.", len(trusted), len(recorded), what)
    now = recorded | content_ids((path for path in recorded if path not in trusted), what="Verifying files")
    return _with_former_ids(workspace, _with_ids(dataset, now))


def _recorded_ids(workspace: Workspace, dataset: Dataset) -> dict[Path, str] | None:
    """Every file to its content id when the fingerprint was measured; None without a fingerprint of these cases and settings."""
    stamp = recorded_stamp(workspace.preprocessed(dataset.name) / FINGERPRINT)
    files = {f"{case.name} {name}": file for case in dataset.cases for name, file in case_inputs(case, case_paths(case)).items()}
    if stamp is None or stamp.settings != _settings(dataset) or stamp.inputs.keys() != files.keys():
        return None
    return {file: stamp.inputs[name] for name, file in files.items()}


def _same_paths(workspace: Workspace, dataset: Dataset) -> set[Path]:
    """Files of cases that were planned with the same paths."""
    path = workspace.preprocessed(dataset.name) / DESCRIPTION
    if not path.is_file():
        return set()
    planned = {case.name: case for case in read_description(path, home=workspace.home, raw=dataset.folder.parent).cases}
    same = [case for case in dataset.cases if case.name in planned and case_paths(planned[case.name]) == case_paths(case)]
    return {path for case in same for path in case_paths(case)}


def _with_former_ids(workspace: Workspace, dataset: Dataset) -> Dataset:
    """The dataset with those ids of pictures that were recorded before spacings counted, where the spacing is the one measured then.

    So what was made of these pictures stays current.
    """
    folder = workspace.preprocessed(dataset.name)
    if not any(SPACING_MARK in one for case in dataset.cases for one in case.digests):
        return dataset
    stamp = recorded_stamp(folder / FINGERPRINT)
    if stamp is None or not (folder / FINGERPRINT).is_file():
        return dataset
    former = read_json(folder / FINGERPRINT, Fingerprint)
    spacings = {} if former.has_spacing is False else {case.name: case.spacing for case in former.cases}

    def id_of(case: Case, path: Path, what: str, now: str) -> str:
        then, spacing = stamp.inputs.get(f"{case.name} {what}", now), spacings.get(case.name)
        is_former = then != now and same_content(then, now) and spacing is not None
        return then if is_former and read_geometry(path).spacing == spacing else now

    def ids_of(case: Case) -> tuple[str, ...]:
        names = case_inputs(case, case_paths(case)).items()
        return tuple(id_of(case, path, what, now) for (what, path), now in zip(names, case.digests, strict=True))

    return _with_digests(dataset, {case.name: ids_of(case) for case in dataset.cases if case.digests})


def _identified_since_0_1_0(folder: Path, dataset: Dataset) -> Dataset | None:
    """The dataset with content ids, read now, where version 0.1.0 measured files of the same sizes; else None."""
    key = folder / OLD_FINGERPRINT_KEY
    if not (key.is_file() and (folder / FINGERPRINT).is_file()):
        return None
    if not fingerprint_of_0_1_0_fits(read_json(key, dict), dataset, MEASURED):
        return None
    log.info("%s: measured by version 0.1.0, which recorded no contents; the files are read once to identify them.", folder / FINGERPRINT)
    return _with_ids(dataset, content_ids((path for case in dataset.cases for path in case_paths(case)), what="Identifying files"))


def _with_ids(dataset: Dataset, ids: Mapping[Path, str]) -> Dataset:
    return _with_digests(dataset, {case.name: tuple(ids[path] for path in case_paths(case)) for case in dataset.cases})


def _with_digests(dataset: Dataset, digests: Mapping[str, tuple[str, ...]]) -> Dataset:
    return replace(dataset, cases=tuple(replace(case, digests=digests.get(case.name, ())) for case in dataset.cases))
