"""New images to label files: the chosen models for each organ, merged, written with the input's geometry, resumable."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..images import ending_of, label_ending, read_image, write_label, written_ending
from ..label_subsets import subset, translate
from ..labels import to_file
from ..machine import peak_gpu_memory, peak_memory, reset_peak_memory
from ..model import Case, Choice, Image, Labels
from ..naming import unknown
from ..records import atomic, read_json, remove_partial, write_json
from .ensemble import merge_organs
from .export import Logits, export_labels, probabilities
from .trained import Progress, TrainedModel, worth_noting

log = logging.getLogger(__name__)

MANIFEST = "autoseg_prediction.json"


@dataclass(frozen=True)
class Ensemble:
    """Everything that is needed to segment an image: which members vote on which organ, and the members.

    Attributes:
        choice: Organ to members; organs that it lacks are background.
        models: Member name to loaded model, of all organs or of some.
        labels: Of the dataset.

    Raises:
        ValueError: A member does not know the organ that it is chosen for, or members that are averaged have different organs.
    """

    choice: Choice
    models: Mapping[str, TrainedModel]
    labels: Labels

    def __post_init__(self) -> None:
        for organ, members in self.choice.organs.items():
            own = [self._labels_of(name) for name in members]
            for name, labels in zip(members, own, strict=True):
                if organ not in labels.names:
                    raise unknown(f"organ of {name}", organ, labels.names)
            if any(labels != own[0] for labels in own):
                listed = "; ".join(f"{name}: {', '.join(labels.names)}" for name, labels in zip(members, own, strict=True))
                raise ValueError(f"models to average for {organ}: expected the same organs, found {listed}")

    def logits(self, image: Image, *, case: str = "", progress: Progress | None = None) -> dict[str, Logits]:
        """Every member's logits of one image; `progress` gets shares that add up to one."""
        share = None if progress is None else lambda part: progress(part / len(self.models))
        known = worth_noting(self.models.values())  # a cascade's first stage, or an ensemble's member, is asked once
        return {name: model.logits(image, case=case, progress=share, known=known) for name, model in self.models.items()}

    def segment(self, logits: Mapping[str, Logits]) -> np.ndarray:
        """The merged label map in internal values of the dataset and the file's axis order."""
        chosen = subset(self.labels, tuple(self.choice.organs))
        maps = {}
        for members in dict.fromkeys(self.choice.organs.values()):
            own = self._labels_of(members[0])
            found, confidence = export_labels([logits[name] for name in members], own)
            maps["+".join(members)] = translate(found, own, chosen), confidence
        merged, conflicts = merge_organs(maps, {organ: "+".join(members) for organ, members in self.choice.organs.items()}, chosen)
        if conflicts:
            log.debug("%d voxels were claimed by two organs and went to the more confident one", conflicts)
        return translate(merged, chosen, self.labels)

    def probabilities(self, logits: Mapping[str, Logits]) -> Iterator[tuple[int, int, np.ndarray]]:
        """Of each chosen organ: its place in `labels`, the first slice of a slab, and its probabilities there ``(slab, Y, X)``."""
        organs, first = self.choice.organs, 0 if self.labels.regions else 1
        for members in dict.fromkeys(organs.values()):
            own = self._labels_of(members[0])
            served = [organ for organ in self.labels.names if organs.get(organ) == members]
            for start, slab in probabilities([logits[name] for name in members], own):
                for organ in served:
                    yield self.labels.names.index(organ), start, slab[own.names.index(organ) + first]

    def _labels_of(self, member: str) -> Labels:
        return self.models[member].plan.labels


def predict_cases(cases: Sequence[Case], out: Path, ensemble: Ensemble, *, ending: str | None, save_probabilities: bool) -> dict[str, str]:
    """Segments cases one by one into `out`; those that the same models finished before are kept.

    Args:
        cases: New images.
        out: Folder for ``<case><ending>``.
        ensemble: Models and choice.
        ending: Of written files, with or without its dot; None takes each input's own where label maps can be written so,
            else ``.nii.gz``.
        save_probabilities: Also write ``<case>_probabilities.npy`` (float16, one channel an organ, file axis order).

    Returns:
        Case to reason, for the cases that failed; the others are written all the same.

    Raises:
        ValueError: Label maps cannot be written with `ending`.
    """
    if ending is not None:
        ending = written_ending(ending, len(next(iter(ensemble.models.values())).plan.transpose))
    out.mkdir(parents=True, exist_ok=True)
    remove_partial(out)
    manifest = _Manifest(out, ensemble)
    failures: dict[str, str] = {}
    with _bar(len(cases)) as bar:
        for number, case in enumerate(cases):
            target = out / f"{case.name}{ending or label_ending(ending_of(case.images[0]))}"
            shares = out / f"{case.name}_probabilities.npy" if save_probabilities else None
            if not manifest.done(case, target, shares):
                try:
                    _predict_case(case, target, ensemble, bar, shares=shares)
                    manifest.add(case, target, shares)
                except (ValueError, OSError, RuntimeError, MemoryError) as error:
                    what = "not enough memory for this case: " if isinstance(error, MemoryError) else ""
                    failures[case.name] = f"{what}{error}".removesuffix(": ")
                    log.error("%s: %s", case.name, failures[case.name])
            bar.update(number + 1 - bar.n)
    return failures


def _predict_case(case: Case, target: Path, ensemble: Ensemble, bar: tqdm, *, shares: Path | None) -> None:
    reset_peak_memory()
    started = time.monotonic()
    image = read_image(case.images)
    expected = len(next(iter(ensemble.models.values())).plan.channels)
    if len(image.array) != expected:
        raise ValueError(f"{image.source}: expected {expected} channels as in training, found {len(image.array)}")
    logits, geometry = ensemble.logits(image, case=case.name, progress=bar.update), image.geometry
    del image  # large, and no longer needed: what follows takes memory of its own
    if shares is not None:
        _write_probabilities(shares, ensemble, logits)
    write_label(target, to_file(ensemble.segment(logits), ensemble.labels), geometry)
    gpu = f", {peak_gpu_memory() / 1e6:.0f} MB of the GPU" if peak_gpu_memory() else ""
    log.info("%s: %.1f s, at most %.0f MB of memory%s", case.name, time.monotonic() - started, peak_memory() / 1e6, gpu)


def _write_probabilities(path: Path, ensemble: Ensemble, logits: Mapping[str, Logits]) -> None:
    """Streams slab by slab: never more than one slab of all classes in memory. Organs that nobody segments have 0."""
    geometry = next(iter(logits.values())).trace.geometry
    shape = (len(ensemble.labels.names), *geometry.shape)
    with atomic(path) as partial:
        file = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float16, shape=shape)
        view = file[:, None] if geometry.dim == 2 else file
        for index, start, slab in ensemble.probabilities(logits):
            view[index, start : start + len(slab)] = slab
        file.flush()


@contextmanager
def _bar(total: int) -> Iterator[tqdm]:
    layout = "{desc}: {n:.1f}/{total} cases |{bar:24}| {elapsed} so far, {remaining} left"
    with tqdm(total=total, desc="Predicting", bar_format=layout) as bar:
        yield bar


class _Manifest:
    """Which files were made from which inputs by which models: an interrupted prediction goes on, old results never pass for new."""

    def __init__(self, out: Path, ensemble: Ensemble) -> None:
        self.path, self.key = out / MANIFEST, _models_key(ensemble)
        old = read_json(self.path, dict) if self.path.is_file() else {}
        self.cases: dict[str, dict[str, Any]] = old.get("cases", {}) if old.get("models") == self.key else {}

    def done(self, case: Case, *files: Path | None) -> bool:
        return all(file.name in self._files(case) and file.exists() for file in files if file is not None)

    def add(self, case: Case, *files: Path | None) -> None:
        names = {*self._files(case), *(file.name for file in files if file is not None)}
        self.cases[case.name] = {"input": _input_key(case), "files": sorted(names)}
        write_json(self.path, {"models": self.key, "cases": self.cases})

    def _files(self, case: Case) -> list[str]:
        """Made by these models from the input as it is now."""
        entry = self.cases.get(case.name, {})
        return entry["files"] if entry.get("input") == _input_key(case) else []


def _models_key(ensemble: Ensemble) -> str:
    parts = [str(sorted(ensemble.choice.organs.items()))]
    for name, model in sorted(ensemble.models.items()):
        parts.append(f"{name} {model.key} {model.predictor.mirror} {model.predictor.step}")
    return hashlib.sha256("|".join(parts).encode()).hexdigest()


def _input_key(case: Case) -> str:
    facts = []
    for path in case.images:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        facts += [f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
    return hashlib.sha256("|".join(facts).encode()).hexdigest()
