"""What lies in a folder of predictions, and from which inputs and models it was made."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..model import Case, Choice
from ..records import read_json, to_plain, write_json
from .trained import TrainedModel

MANIFEST = "autoseg_prediction.json"


class Manifest:
    """Which files were made from which inputs by which models: an interrupted prediction goes on, old results never pass for new.

    Args:
        out: Folder of the predictions.
        key: Of the models (`models_key`); what another key made does not count.
    """

    def __init__(self, out: Path, key: str) -> None:
        self.out, self.path, self.key = out, out / MANIFEST, key
        old = read_json(self.path, dict) if self.path.is_file() else {}
        self.cases: dict[str, dict[str, Any]] = old.get("cases", {}) if old.get("models") == self.key else {}

    def done(self, case: Case, files: Sequence[Path]) -> bool:
        """Whether all these files of a case are there, made by these models from the input as it is now."""
        return all(self._name(file) in self._files(case) and file.exists() for file in files)

    def add(self, case: Case, files: Sequence[Path], findings: Sequence[Any] | None = None) -> None:
        """Notes what was made of a case; `findings` are kept for the table of all cases, those of an earlier time where it is None."""
        names = {*self._files(case), *map(self._name, files)}
        old = self.cases[case.name].get("findings") if self._files(case) else None
        told = old if findings is None else to_plain(list(findings))
        entry = {"input": input_key(case), "files": sorted(names)}
        self.cases[case.name] = entry if told is None else entry | {"findings": told}
        write_json(self.path, {"models": self.key, "cases": self.cases})

    def findings(self, cases: Sequence[Case]) -> list[dict[str, Any]]:
        """What was noted of these cases."""
        return [row for case in cases if self._files(case) for row in self.cases[case.name].get("findings", [])]

    def _files(self, case: Case) -> list[str]:
        """Made by these models from the input as it is now."""
        entry = self.cases.get(case.name, {})
        return entry["files"] if entry.get("input") == input_key(case) else []

    def _name(self, file: Path) -> str:
        return file.relative_to(self.out).as_posix()


def models_key(choice: Choice, models: Mapping[str, TrainedModel]) -> str:
    """Identifies everything besides the input that a label map follows from: choice, weights, settings, temperatures, post-processing."""
    parts = [str(sorted(choice.organs.items()))]
    for name, model in sorted(models.items()):
        parts.append(f"{name} {model.key} {model.predictor.mirror} {model.predictor.step}")
    parts += [f"{name} at {choice.calibration[name].temperature}" for name in sorted(models) if name in choice.calibration]
    for organ, steps in sorted(choice.cleaning.items()):
        parts.append(f"{organ} {steps.min_volume_mm3} {steps.components} {steps.fill_holes}")
    return hashlib.sha256("|".join(parts).encode()).hexdigest()


def input_key(case: Case) -> str:
    """Identifies a case's images without reading them: names, sizes and times."""
    facts = []
    for path in case.images:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        facts += [f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
    return hashlib.sha256("|".join(facts).encode()).hexdigest()
