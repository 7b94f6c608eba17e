"""What lies in a folder of predictions, and from which inputs and models it was made."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.label_subsets import labels_as_in
from ..runtime.provenance import content_id, value_id
from ..runtime.serialization import read_json, to_jsonable, write_json
from ..schema import Case, Choice, Labels
from .trained_model import TrainedModel

MANIFEST = "autoseg_prediction.json"


class Manifest:
    """Which files of a folder were made from which inputs by which models; what models with another key (`models_key`) made does not count.

    So an interrupted prediction goes on, and old results never pass for new.
    """

    def __init__(self, out: Path, key: str) -> None:
        self.out, self.path, self.key = out, out / MANIFEST, key
        self._inputs: dict[str, str] = {}
        old = read_json(self.path, dict) if self.path.is_file() else {}
        self.cases: dict[str, dict[str, Any]] = old.get("cases", {}) if old.get("models") == self.key else {}

    def done(self, case: Case, files: Sequence[Path]) -> bool:
        """Whether all these files of a case are there, made by these models from the input as it is now.

        Reads the input to identify it, before it is predicted: what changes meanwhile is noticed next time. What was made from another
        input is forgotten at once.
        """
        self._inputs[case.name] = input_key(case)
        if case.name in self.cases and self.cases[case.name]["input"] != self._inputs[case.name]:
            del self.cases[case.name]
            self._write()
        return all(self._name(file) in self._files(case) and file.exists() for file in files)

    def add(self, case: Case, files: Sequence[Path], findings: Sequence[Any] | None = None) -> None:
        """Notes what was made of a case; `findings` are kept for the table of all cases, those of an earlier time where it is None."""
        entry = self.cases.setdefault(case.name, {})
        entry |= {"input": self._inputs.get(case.name) or input_key(case), "files": sorted({*self._files(case), *map(self._name, files)})}
        if findings is not None:
            entry["findings"] = to_jsonable(list(findings))
        self._write()

    def findings(self, cases: Sequence[Case]) -> list[dict[str, Any]]:
        """What was noted of these cases, after `done` was asked of each."""
        return [row for case in cases for row in self.cases.get(case.name, {}).get("findings", [])]

    def _files(self, case: Case) -> list[str]:
        return self.cases.get(case.name, {}).get("files", [])

    def _write(self) -> None:
        write_json(self.path, {"models": self.key, "cases": self.cases})

    def _name(self, file: Path) -> str:
        return file.relative_to(self.out).as_posix()


def models_key(choice: Choice, models: Mapping[str, TrainedModel], labels: Labels) -> str:
    """Identifies all that a label map follows from but the input: choice, weights, settings, temperatures, post-processing, values."""
    parts = [str(sorted(choice.organs.items()))]
    if any(model.plan.labels != labels_as_in(model.plan.labels, labels) for model in models.values()):
        parts.append(value_id(labels))
    for name, model in sorted(models.items()):
        parts.append(f"{name} {model.key} {model.predictor.mirror} {model.predictor.step}")
    parts += [f"{name} at {choice.calibration[name].temperature}" for name in sorted(models) if name in choice.calibration]
    for organ, steps in sorted(choice.postprocessing.items()):
        parts.append(f"{organ} {steps.min_volume_mm3} {steps.components} {steps.fill_holes}")
    return hashlib.sha256("|".join(parts).encode()).hexdigest()


def input_key(case: Case) -> str:
    """Identifies a case's images by their content."""
    return value_id([content_id(path) for path in case.images])
