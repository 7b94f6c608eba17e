"""New images to label files: the chosen models for each organ, merged, written with the input's geometry, resumable."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..data.images import PICTURES, ending_of, label_ending, read_image, write_image, write_label, written_ending
from ..data.labels import to_file
from ..runtime.hardware import peak_gpu_memory, peak_memory, reset_peak_memory
from ..runtime.locks import remove_partial
from ..runtime.registry import unknown
from ..runtime.serialization import atomic
from ..schema import Case, Choice, Image, Labels
from .apply_selection import apply_selection, calibrated
from .export import Logits, probabilities
from .lazy_logits import lazy_mean
from .low_memory import LowMemoryPredictor
from .manifest import Manifest, models_key
from .predictor import Predictor
from .trained_model import Progress, TrainedModel, logits_cache_for
from .uncertainty import LEVELS, MM3_PER_ML, CandidatePrediction, OrganUncertainty, along_organ, expected_dice, uncertainty_maps

log = logging.getLogger(__name__)

UNCERTAINTY = "uncertainty"
"""Folder beside the label maps, so that its maps are not taken for label maps."""


@dataclass(frozen=True)
class Ensemble:
    """Everything that is needed to segment an image: which members vote on which organ, and the members.

    Attributes:
        choice: Organ to members; organs that it lacks are background.
        models: Member name to loaded model, of all organs or of some.
        labels: Of the dataset.
        voters: Member name to its folds, each as a model of its own, to ask them one by one; a member that is missing is one vote.

    Raises:
        ValueError: A member does not know the organ that it is chosen for, or members that are averaged have different organs.
    """

    choice: Choice
    models: Mapping[str, TrainedModel]
    labels: Labels
    voters: Mapping[str, tuple[TrainedModel, ...]] = field(default_factory=dict)

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
        known = logits_cache_for(self.models.values())  # a cascade's first stage, or an ensemble's member, is asked once
        return {name: model.logits(image, case=case, progress=share, known=known) for name, model in self.models.items()}

    def votes(self, image: Image, *, case: str = "", progress: Progress | None = None) -> tuple[dict[str, Logits], dict[str, list[Logits]]]:
        """Every member's logits of one image, and those of each of its folds alone, asked for once.

        Where a model is the mean of its folds' logits, that mean stands for the model, which then is not asked: the same but for rounding.
        """
        alone = {name: self.voters.get(name) or (model,) for name, model in self.models.items()}
        whole = {name: model for name, model in self.models.items() if not _is_mean_of(model, alone[name])}
        asked = [model for some in alone.values() for model in some] + list(whole.values())
        known = logits_cache_for(asked)
        share = None if progress is None else lambda part: progress(part / len(asked))

        def ask(model: TrainedModel) -> Logits:
            return model.logits(image, case=case, progress=share, known=known)

        votes = {name: [ask(model) for model in some] for name, some in alone.items()}
        return {name: ask(whole[name]) if name in whole else lazy_mean(votes[name]) for name in self.models}, votes

    def segment(self, logits: Mapping[str, Logits]) -> np.ndarray:
        """The merged label map in internal values of the dataset and the file's axis order, tidied as the choice says."""
        found, conflicts = apply_selection(logits, self.choice, self.own, self.labels)
        if conflicts:
            log.debug("%d voxels were claimed by two organs and went to the more confident one", conflicts)
        return found

    def probabilities(self, logits: Mapping[str, Logits]) -> Iterator[tuple[int, int, np.ndarray]]:
        """Of each chosen organ: its place in `labels`, the first slice of a slab, and its probabilities there ``(slab, Y, X)``.

        They are calibrated, and those of the models: post-processing changes only the label map.
        """
        for opinion in self.candidate_predictions(logits):
            for start, slab in probabilities(opinion.members, opinion.labels):
                for organ, channel in zip(opinion.organs, opinion.channels, strict=True):
                    yield self.labels.names.index(organ), start, slab[channel]

    def candidate_predictions(
        self, logits: Mapping[str, Logits], votes: Mapping[str, Sequence[Logits]] | None = None
    ) -> list[CandidatePrediction]:
        """What each candidate says about a case, calibrated; `votes` are its networks' own, without them its members count as such."""
        votes = votes or {name: [one] for name, one in logits.items()}
        found = []
        for members in dict.fromkeys(self.choice.organs.values()):
            organs = tuple(organ for organ in self.labels.names if self.choice.organs.get(organ) == members)
            means = tuple(self._calibrated(name, logits[name]) for name in members)
            voters = tuple(self._calibrated(name, one) for name in members for one in votes[name])
            found.append(CandidatePrediction(self.own[members[0]], organs, means, voters))
        return found

    def _calibrated(self, member: str, logits: Logits) -> Logits:
        return calibrated({member: logits}, self.choice, self.own)[member]

    @property
    def own(self) -> dict[str, Labels]:
        """Member to its labels."""
        return {name: model.plan.labels for name, model in self.models.items()}

    def _labels_of(self, member: str) -> Labels:
        return self.models[member].plan.labels


@dataclass(frozen=True)
class Outputs:
    """Files of one case.

    Attributes:
        label_map: Of the organs.
        probabilities: NumPy array, or None.
        uncertainty: Maps of entropy and of disagreement, or empty.
    """

    label_map: Path
    probabilities: Path | None = None
    uncertainty: tuple[Path, ...] = ()

    @property
    def files(self) -> list[Path]:
        """All of them."""
        return [self.label_map, *([] if self.probabilities is None else [self.probabilities]), *self.uncertainty]


def predict_cases(
    cases: Sequence[Case], out: Path, ensemble: Ensemble, *, ending: str | None, save_probabilities: bool, uncertainty: bool = False
) -> dict[str, str]:
    """Segments cases one by one into `out`; those that the same models finished before are kept.

    Args:
        cases: New images.
        out: Folder for ``<case><ending>``.
        ensemble: Models and choice.
        ending: Of written files, with or without its dot; None takes each input's own where label maps can be written so,
            else ``.nii.gz``.
        save_probabilities: Also write ``<case>_probabilities.npy`` (float16, one channel an organ, file axis order).
        uncertainty: Also write ``uncertainty/<case>_entropy<ending>`` and ``..._disagreement<ending>`` (`uncertainty.uncertainty_maps`; as
            float 0..1, in formats of pictures as 0..255), and note in the manifest how each organ was found.

    Returns:
        Case to reason, for the cases that failed; the others are written all the same.

    Raises:
        ValueError: Label maps cannot be written with `ending`.
    """
    if ending is not None:
        ending = written_ending(ending, len(next(iter(ensemble.models.values())).plan.transpose))
    for folder in (out, *([out / UNCERTAINTY] if uncertainty else [])):
        folder.mkdir(parents=True, exist_ok=True)
        remove_partial(folder)
    manifest = Manifest(out, models_key(ensemble.choice, ensemble.models))
    failures: dict[str, str] = {}
    with _bar(len(cases)) as bar:
        for number, case in enumerate(cases):
            outputs = _outputs(case, out, ending, save_probabilities=save_probabilities, uncertainty=uncertainty)
            try:
                if not manifest.done(case, outputs.files):
                    manifest.add(case, outputs.files, _predict_case(case, outputs, ensemble, bar))
            except (ValueError, OSError, RuntimeError, MemoryError) as error:
                what = "not enough memory for this case: " if isinstance(error, MemoryError) else ""
                failures[case.name] = f"{what}{error}".removesuffix(": ")
                log.error("%s: %s", case.name, failures[case.name])
            bar.update(number + 1 - bar.n)
    return failures


def _outputs(case: Case, out: Path, ending: str | None, *, save_probabilities: bool, uncertainty: bool) -> Outputs:
    ending = ending or label_ending(ending_of(case.images[0]))
    shares = out / f"{case.name}_probabilities.npy" if save_probabilities else None
    maps = tuple(out / UNCERTAINTY / f"{case.name}_{what}{ending}" for what in ("entropy", "disagreement")) if uncertainty else ()
    return Outputs(out / f"{case.name}{ending}", shares, maps)


def _predict_case(case: Case, outputs: Outputs, ensemble: Ensemble, bar: tqdm) -> list[OrganUncertainty] | None:
    """Writes everything that is wanted of a case; the findings where uncertainty is."""
    reset_peak_memory()
    started = time.monotonic()
    image = read_image(case.images)
    expected = len(next(iter(ensemble.models.values())).plan.channels)
    if len(image.array) != expected:
        raise ValueError(f"{image.source}: expected {expected} channels as in training, found {len(image.array)}")
    geometry = image.geometry
    if outputs.uncertainty:
        logits, votes = ensemble.votes(image, case=case.name, progress=bar.update)
    else:
        logits, votes = ensemble.logits(image, case=case.name, progress=bar.update), None
    del image  # large, and no longer needed: what follows takes memory of its own
    if outputs.probabilities is not None:
        _write_probabilities(outputs.probabilities, ensemble, logits)
    found = ensemble.segment(logits)
    findings = None if votes is None else _write_uncertainty(outputs, ensemble, ensemble.candidate_predictions(logits, votes), found)
    write_label(outputs.label_map, to_file(found, ensemble.labels), geometry)
    gpu = f", {peak_gpu_memory() / 1e6:.0f} MB of the GPU" if peak_gpu_memory() else ""
    log.info("%s: %.1f s, at most %.0f MB of memory%s", case.name, time.monotonic() - started, peak_memory() / 1e6, gpu)
    return findings


def _write_uncertainty(
    outputs: Outputs, ensemble: Ensemble, candidate_predictions: Sequence[CandidatePrediction], found: np.ndarray
) -> list[OrganUncertainty]:
    """Writes the maps of a case whose label map is `found` (internal values), and says how each organ was found."""
    trace = candidate_predictions[0].members[0].trace
    maps = uncertainty_maps(candidate_predictions)
    for path, values in zip(outputs.uncertainty, maps, strict=True):
        picture = ending_of(path) in PICTURES
        write_image(path, (np.round(values * LEVELS).astype(np.uint8) if picture else values)[None], trace.geometry)
    expected: dict[str, float] = {}
    for opinion in candidate_predictions:
        steps = {organ: steps for organ, steps in ensemble.choice.postprocessing.items() if organ in opinion.organs}
        expected |= expected_dice(opinion.members, opinion.labels, steps, organs=opinion.organs)
    findings = []
    for organ in (name for name in ensemble.labels.names if name in expected):
        voxels, (entropy, disagreement) = along_organ(found, ensemble.labels, organ, maps)
        volume = voxels * math.prod(trace.geometry.spacing) / MM3_PER_ML
        findings.append(OrganUncertainty(trace.case, organ, volume, expected[organ], entropy, disagreement))
    return findings


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


def _is_mean_of(model: TrainedModel, folds: Sequence[TrainedModel]) -> bool:
    """Whether a model's logits are the mean of its folds': not where it first finds where to look, or computes with what it averaged."""
    plain = type(model) is TrainedModel and isinstance(model.predictor, (Predictor, LowMemoryPredictor))
    return plain or (len(folds) == 1 and folds[0] is model)
