"""What lies in a folder of predictions, and from which inputs and models it was made."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.images import ending_of
from ..data.label_subsets import labels_as_in
from ..runtime.locks import exclusive_lock
from ..runtime.outputs import NOTES
from ..runtime.provenance import content_id, reading_setting, value_id
from ..runtime.runs import Run
from ..runtime.serialization import from_jsonable, read_json, to_jsonable, write_json
from ..schema import Case, Choice, Labels
from ..schema.scores import UNRELIABLE_DICE

if TYPE_CHECKING:
    from .trained_model import TrainedModel

log = logging.getLogger(__name__)

MANIFEST = "autoseg_prediction.json"


class Manifest:
    """Which files of a folder were made from which inputs by which models; what models with another key (`models_key`) made does not count.

    So an interrupted prediction goes on, and old results never pass for new. Each case has a file of its own in the hidden folder, since
    one file of all cases would have to be written anew for each of them; `publish` writes that at the end. Commands that predict into one
    folder at the same time share it: each changes the entries of its own cases only. It notes the `labels`, too, and how good the
    models were in validation, organ by organ (`validated`).
    """

    def __init__(self, path: Path, key: str, labels: Labels | None = None, *, validated: Mapping[str, float] | None = None) -> None:
        self.path, self.key, self.labels = path, key, labels
        self._validated = {organ: round(dice, 4) if math.isfinite(dice) else None for organ, dice in (validated or {}).items()}
        self._inputs: dict[str, str] = {}
        self._published = _entries_in(path)

    @property
    def cases(self) -> dict[str, dict[str, Any]]:
        """The entries of all cases, by their names."""
        return {**_entries_in(self.path), **_entries_of_cases(_case_files(self.path))}

    def done(self, case: Case, files: Sequence[Path]) -> bool:
        """Whether all these files of a case are there, made by these models from the input as it is now.

        Reads the input to identify it, before it is predicted: what changes meanwhile is noticed next time.
        """
        self._inputs[case.name] = input_key(case)
        return all(self._name(file) in self._entry(case).get("files", []) and file.exists() for file in files)

    def begin(self, case: Case, *, overwrite: bool = False) -> None:
        """Notes that a case is being predicted, before its files are replaced; what was noted of other models or another input goes.

        Raises:
            ValueError: An image elsewhere with other content has the same name, and was or is predicted into this folder; not with
                `overwrite`.
        """
        with self.locked():
            former = self._of(case.name)
            source, is_same = former.get("source"), former.get("input") == self._input(case)
            is_named = self.path.parent.name == NOTES  # the user said which file to write
            if source and source != _source(case) and not (is_same or is_named or overwrite):
                raise ValueError(
                    f"{', '.join(map(str, case.images))}: expected another name or another output folder: into {self.path.parent} "
                    f"{', '.join(source)} is predicted under the same name; --overwrite (overwrite=True) replaces that"
                )
            if not self._entry(case) or source != _source(case):
                entry = {"models": self.key, "input": self._input(case), "files": [], **self._entry(case), "source": _source(case)}
                self._write(case.name, entry)

    def add(self, case: Case, files: Sequence[Path], findings: Sequence[Any] | None = None) -> None:
        """Notes what was made of a case; `findings` are kept for the table of all cases, those of an earlier time where it is None."""
        entry = {"models": self.key, "input": self._input(case), "source": _source(case), "files": [], **self._entry(case)}
        if case.group not in (None, case.name):
            entry["patient"] = case.group
        if self.labels is not None:
            entry["labels"] = value_id(self.labels)
        entry["files"] = sorted({*entry["files"], *map(self._name, files)})
        if findings is not None:
            entry["findings"] = to_jsonable(list(findings))
        if self._validated:
            entry["validation_dice"] = self._validated
            low = [organ for organ, dice in self._validated.items() if dice is not None and dice < UNRELIABLE_DICE]
            entry["warnings"] = [f"{organ}: not to be relied on, validation Dice {self._validated[organ]:.2f}" for organ in low]
        self._write(case.name, entry)

    def findings(self, cases: Sequence[Case]) -> list[dict[str, Any]]:
        """What was noted of these cases, after they were predicted: what is not of their present input is forgotten then."""
        of_models = [entry for case in cases if (entry := self._of(case.name)).get("models") == self.key]
        return [row for entry in of_models for row in entry.get("findings", [])]

    def all_findings(self) -> list[dict[str, Any]]:
        """What was noted of all cases that these models predicted into the folder, also in other calls, and whose files are still there."""
        made = [entry for entry in self.cases.values() if entry.get("models") == self.key and entry.get("files")]
        there = [entry for entry in made if all((self._folder / str(name)).exists() for name in entry["files"])]
        return [row for entry in there for row in entry.get("findings", [])]

    def publish(self) -> None:
        """Writes the file of all cases, where it is not so already: for people, other programs, and copies without hidden files."""
        with self.locked():
            cases = self.cases
            if not cases or cases == _entries_in(self.path):
                return
            known = _labels_in(self.path)
            for path in _case_files(self.path).glob("*.json"):
                with contextlib.suppress(ValueError):  # said by `cases`
                    known |= _labels_in(path)
            used = {entry.get("labels") for entry in cases.values()}
            write_json(self.path, {"format": 2, "labels": {key: one for key, one in known.items() if key in used}, "cases": cases})

    def locked(self) -> AbstractContextManager[None]:
        """Locks what is noted of the folder; by a file in the hidden folder, as the visible one is the user's."""
        return exclusive_lock(self._folder / NOTES, "predicting", wait=True)

    @property
    def _folder(self) -> Path:
        return self.path.parent if self.path.parent.name != NOTES else self.path.parent.parent

    def _entry(self, case: Case) -> dict[str, Any]:
        """What these models made of the case's present input; empty where it is nothing."""
        entry = self._of(case.name)
        return entry if entry.get("models") == self.key and entry.get("input") == self._input(case) else {}

    def _input(self, case: Case) -> str:
        if case.name not in self._inputs:
            self._inputs[case.name] = input_key(case)
        return self._inputs[case.name]

    def _of(self, name: str) -> dict[str, Any]:
        """What is noted of a case by anybody; empty where nothing is."""
        own = _entries_of_cases(_case_files(self.path), name)
        return own.get(name) or self._published.get(name, {})

    def _write(self, name: str, entry: dict[str, Any]) -> None:
        known = {value_id(self.labels): to_jsonable(self.labels)} if self.labels is not None else {}
        own = _case_files(self.path) / f"{name}.json"
        with contextlib.suppress(ValueError):  # said where its entry was read
            known = {**_labels_in(own), **known}
        known = {**_labels_in(self.path), **known}
        labels = {key: one for key, one in known.items() if key == entry.get("labels")}
        write_json(own, {"format": 2, "labels": labels, "cases": {name: entry}})

    def _name(self, file: Path) -> str:
        return file.relative_to(self._folder).as_posix()


def written_labels(folder: Path) -> dict[str, Labels]:
    """Name of each label map in a folder of predictions, or of validation, to the labels whose values it was written with.

    Label maps of which nothing is noted are missing: those of others, and of earlier versions.
    """
    run = Run(folder.parent)
    if folder.name == run.validation.name and run.is_started:
        record = run.record()
        return {path.name: record.plan.labels for path in folder.iterdir() if ending_of(path)}
    found: dict[str, Labels] = {}
    for manifest in (folder / MANIFEST, folder / NOTES / MANIFEST):
        for path in (manifest, *sorted(_case_files(manifest).glob("*.json"))):
            labels = {key: from_jsonable(one, Labels) for key, one in _labels_in(path).items()}
            cases = read_json(path, dict)["cases"].values() if labels else ()
            found |= {name: labels[case["labels"]] for case in cases if case.get("labels") in labels for name in case.get("files", [])}
    return found


def recorded_cases(prediction: Path) -> dict[str, dict[str, Any]]:
    """What is noted of the cases in a folder of predictions, or of a label map in one; empty where nothing is, or not by this program."""
    folder = prediction if prediction.is_dir() else prediction.parent
    found: dict[str, dict[str, Any]] = {}
    for manifest in (folder / NOTES / MANIFEST, folder / MANIFEST):
        with contextlib.suppress(ValueError):
            found |= {**_entries_in(manifest), **_entries_of_cases(_case_files(manifest))}
    return found


def _case_files(manifest: Path) -> Path:
    """The folder with a file for each case: of a folder of predictions, or of files that were named one by one."""
    return manifest.parent / "named" if manifest.parent.name == NOTES else manifest.parent / NOTES / "cases"


def _entries_in(path: Path) -> dict[str, dict[str, Any]]:
    """The entries of one file; those of before format 2 have the key of their models in common."""
    old = read_json(path, dict) if path.is_file() else {}
    cases = old.get("cases", {})
    if not isinstance(cases, dict) or not all(isinstance(entry, dict) for entry in cases.values()):
        raise ValueError(f"{path}: expected a list of predicted cases, as autoseg_predict writes it; found something else")
    common = {"models": old["models"]} if "models" in old else {}
    return {name: {**common, **entry} for name, entry in cases.items()}


def _entries_of_cases(folder: Path, name: str = "*") -> dict[str, dict[str, Any]]:
    """The entries of all files of single cases, or of that of one case; a damaged one is said, and its case is predicted again."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json")) if name == "*" else [folder / f"{name}.json"]:
        try:
            found |= _entries_in(path)
        except ValueError as error:
            log.warning("%s: what is noted of this case counts as nothing: %s", path, error)
    return found


def _labels_in(manifest: Path) -> dict[str, Any]:
    """The sets of labels that a manifest knows, by their ids."""
    known = read_json(manifest, dict).get("labels", {}) if manifest.is_file() else {}
    return known if isinstance(known, dict) else {}


def models_key(choice: Choice, models: Mapping[str, TrainedModel], labels: Labels) -> str:
    """Identifies all that a label map follows from but the input: choice, weights, settings, temperatures, post-processing, values."""
    parts = [str(sorted(choice.organs.items()))]
    here = {name: labels_as_in(model.plan.labels, labels) for name, model in sorted(models.items())}
    if any(model.plan.labels != here[name] for name, model in models.items()):
        parts.append(value_id(labels))
        # the organs too: regions that the dataset no longer has were once painted over all others
        parts += [f"{name} as {', '.join(one.names)}" for name, one in here.items() if one.regions]
    for name, model in sorted(models.items()):
        parts.append(f"{name} {model.key} {model.predictor.mirror} {model.predictor.step}")
    parts += [f"{name} at {choice.calibration[name].temperature}" for name in sorted(models) if name in choice.calibration]
    for organ, steps in sorted(choice.postprocessing.items()):
        parts.append(f"{organ} {steps.min_volume_mm3} {steps.components} {steps.fill_holes}")
    parts += ["vote"] if choice.vote else []
    return hashlib.sha256("|".join(parts).encode()).hexdigest()


def _source(case: Case) -> list[str]:
    """Where a case's images lie."""
    return [os.path.realpath(path) for path in case.images]


def input_key(case: Case) -> str:
    """Identifies a case's images by their content, and how their headers are read."""
    return value_id([*(content_id(path) for path in case.images), *reading_setting([case]).items()])
