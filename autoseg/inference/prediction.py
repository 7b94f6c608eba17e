"""New images to label files: the chosen models for each organ, merged, written with the input's geometry, resumable."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from ..data.images import read_image, write_label, written_ending
from ..data.labels import to_file_values
from ..runtime.hardware import peak_gpu_memory, peak_memory, reset_peak_memory
from ..runtime.locks import remove_partial_files
from ..schema import Case
from .ensemble import Ensemble
from .manifest import Manifest, models_key
from .prediction_files import UNCERTAINTY, PredictionFiles, write_probabilities, write_uncertainty
from .uncertainty import OrganUncertainty

log = logging.getLogger(__name__)


def predict_cases(
    cases: Sequence[Case], out: Path, ensemble: Ensemble, *, ending: str | None, save_probabilities: bool, uncertainty: bool = False
) -> dict[str, str]:
    """Segments cases one by one into `out`; those that the same models finished before are kept.

    Args:
        cases: New images.
        out: Folder for ``<case><ending>``.
        ensemble: Models and choice.
        ending: With or without its dot; None takes each input's own where label maps can be written so, else ``.nii.gz``.
        save_probabilities: Also write ``<case>_probabilities.npy`` (float16, one channel an organ, file axis order).
        uncertainty: Also write ``uncertainty/<case>_entropy<ending>`` and ``..._disagreement<ending>`` (`uncertainty.uncertainty_maps`; as
            float 0..1, in formats of pictures as 0..255), and note each organ's uncertainty in the manifest.

    Returns:
        Case to reason, for the cases that failed; the others are written all the same.

    Raises:
        ValueError: Label maps cannot be written with `ending`.
    """
    if ending is not None:
        ending = written_ending(ending, len(next(iter(ensemble.models.values())).plan.transpose))
    for folder in (out, *([out / UNCERTAINTY] if uncertainty else [])):
        folder.mkdir(parents=True, exist_ok=True)
        remove_partial_files(folder)
    manifest = Manifest(out, models_key(ensemble.choice, ensemble.models, ensemble.labels))
    failures: dict[str, str] = {}
    layout = "{desc}: {n:.1f}/{total} cases |{bar:24}| {elapsed} so far, {remaining} left"
    with tqdm(total=len(cases), desc="Predicting", bar_format=layout) as bar:
        for number, case in enumerate(cases):
            files = PredictionFiles.of(case, out, ending, probabilities=save_probabilities, uncertainty=uncertainty)
            try:
                if not manifest.done(case, files.all):
                    manifest.add(case, files.all, _predict_case(case, files, ensemble, bar))
            except (ValueError, OSError, RuntimeError, MemoryError) as error:
                reason = "not enough memory for this case: " if isinstance(error, MemoryError) else ""
                failures[case.name] = f"{reason}{error}".removesuffix(": ")
                log.error("%s: %s", case.name, failures[case.name])
            bar.update(number + 1 - bar.n)
    return failures


def _predict_case(case: Case, files: PredictionFiles, ensemble: Ensemble, bar: tqdm) -> list[OrganUncertainty] | None:
    """Writes the files of a case; returns each organ's uncertainty where it is written."""
    reset_peak_memory()
    started = time.monotonic()
    image = read_image(case.images)
    expected = len(next(iter(ensemble.models.values())).plan.channels)
    if len(image.array) != expected:
        raise ValueError(f"{image.source}: expected {expected} channels as in training, found {len(image.array)}")
    geometry = image.geometry
    if files.uncertainty:
        logits, by_fold = ensemble.logits_by_fold(image, case=case.name, progress=bar.update)
    else:
        logits, by_fold = ensemble.logits(image, case=case.name, progress=bar.update), None
    del image  # large, and no longer needed: what follows takes memory of its own
    if files.probabilities is not None:
        write_probabilities(files.probabilities, ensemble, logits)
    label_map = ensemble.segment(logits)
    rows = None if by_fold is None else write_uncertainty(files, ensemble, ensemble.candidate_predictions(logits, by_fold), label_map)
    write_label(files.label_map, to_file_values(label_map, ensemble.labels), geometry)
    gpu = f", {peak_gpu_memory() / 1e6:.0f} MB of the GPU" if peak_gpu_memory() else ""
    log.info("%s: %.1f s, at most %.0f MB of memory%s", case.name, time.monotonic() - started, peak_memory() / 1e6, gpu)
    return rows
