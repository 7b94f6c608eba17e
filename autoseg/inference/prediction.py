"""New images to label files: the chosen models for each organ, merged, written with the input's geometry, resumable."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from ..data.images import read_case_image, read_label, write_label
from ..data.labels import to_file_values, to_internal_values
from ..runtime.failures import failure_of
from ..runtime.hardware import peak_gpu_memory, peak_memory, reset_peak_memory
from ..runtime.locks import remove_partial_files
from ..runtime.made_folders import made_folder
from ..runtime.outputs import Outputs, clashes
from ..runtime.serialization import Writer, from_jsonable
from ..schema import Case, Image
from .ensemble import Ensemble
from .manifest import Manifest, models_key
from .organ_measures import measure_organs
from .prediction_files import UNCERTAINTY, Destination, PredictionFiles, organ_uncertainties, write_probabilities, write_uncertainty_maps
from .uncertainty import OrganUncertainty

log = logging.getLogger(__name__)


def predict_cases(
    cases: Sequence[Case],
    destination: Destination,
    ensemble: Ensemble,
    outputs: Outputs,
    *,
    validated: Mapping[str, float] | None = None,
    refused: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Segments cases one by one; those that the same models finished before are kept, also where somebody corrected their files since.

    Args:
        cases: New images.
        destination: Where the files go, and which are wanted.
        ensemble: Models and choice.
        outputs: Decides which files may be written; asked of all before the first is.
        validated: Organ to its mean Dice in validation, which is noted of each case.
        refused: Case to the reason why it is not to be predicted; one that is done is kept all the same.

    Returns:
        Case to reason, for the cases that failed; the others are written all the same. Of cases whose files would be the same, all fail.

    Raises:
        ValueError: A file that must not be replaced lies where one is to be written; nothing was written.
    """
    manifest, files, failures = checked_files(cases, destination, ensemble, outputs, validated=validated)
    by_name = {case.name: case for case in cases}
    failures |= {name: reason for name, reason in (refused or {}).items() if not manifest.done(by_name[name], files[name].all)}
    for name, reason in failures.items():
        log.error("%s failed: %s", name, reason)
    folders = (destination.folder, *([destination.folder / UNCERTAINTY] if destination.uncertainty else []))
    with made_folder(*folders):
        for folder in folders:
            remove_partial_files(folder)
        _predict_all(cases, files, ensemble, outputs, manifest=manifest, failures=failures)
    return failures


def _predict_all(
    cases: Sequence[Case],
    files: Mapping[str, PredictionFiles],
    ensemble: Ensemble,
    outputs: Outputs,
    *,
    manifest: Manifest,
    failures: dict[str, str],
) -> None:
    """Predicts the cases that are not among `failures` and not current, and notes them; those that fail are put there."""
    layout = "{desc}: {n:.1f}/{total} cases |{bar:24}| {elapsed} so far, {remaining} left"
    try:
        with tqdm(total=len(cases), desc="Predicting", bar_format=layout) as bar:
            for number, case in enumerate(cases):
                with failure_of(case.name, failures):
                    if case.name not in failures and is_kept(case, files[case.name], manifest, outputs):
                        _measure_again(case, files[case.name], ensemble, manifest, outputs)
                    elif case.name not in failures:
                        manifest.begin(case, overwrite=outputs.overwrite)
                        manifest.add(case, files[case.name].all, _predict_case(case, files[case.name], ensemble, bar, outputs.write))
                bar.update(number + 1 - bar.n)
    finally:
        manifest.publish()


def checked_files(
    cases: Sequence[Case], destination: Destination, ensemble: Ensemble, outputs: Outputs, *, validated: Mapping[str, float] | None = None
) -> tuple[Manifest, dict[str, PredictionFiles], dict[str, str]]:
    """What is noted of a folder of predictions, the files of each case there, and the cases whose files would be the same, with the reason.

    Raises:
        ValueError: A file that must not be replaced lies where one is to be written.
    """
    key = models_key(ensemble.choice, ensemble.models, ensemble.labels)
    manifest = Manifest(destination.manifest, key, ensemble.labels, validated=validated)
    files = {case.name: destination.files_of(case) for case in cases}
    failures = _clashes(cases, files)
    outputs.check({case.name: _unsafe(case, files[case.name], manifest, outputs) for case in cases if case.name not in failures})
    return manifest, files, failures


def _clashes(cases: Sequence[Case], files: Mapping[str, PredictionFiles]) -> dict[str, str]:
    """Case to reason, for cases that would be written to one file: their names are the same, or become so."""
    counts = Counter(case.name for case in cases)
    twice = {
        name: f"{count} images have this name, and would be written to one file; rename them" for name, count in counts.items() if count > 1
    }
    return clashes({name: one.with_sidecars for name, one in files.items()}) | twice


def _unsafe(case: Case, files: PredictionFiles, manifest: Manifest, outputs: Outputs) -> list[Path]:
    """Files of a case that `outputs` has something against, none where the case is done: then they are not written."""
    unsafe = [path for path in files.with_sidecars if outputs.problem(path)]
    try:
        done = bool(unsafe) and all(map(outputs.may_stay, unsafe)) and manifest.done(case, files.all)
    except (ValueError, OSError):  # an image that cannot be read is said when it is predicted
        done = False
    return [] if done else unsafe


def is_kept(case: Case, files: PredictionFiles, manifest: Manifest, outputs: Outputs) -> bool:
    """Whether a case is done and its files stay as they are."""
    if not manifest.done(case, files.all):
        return False
    changed = [path for path in files.all if outputs.changed(path)]
    if changed and not outputs.overwrite:
        names = ", ".join(path.name for path in changed)
        log.warning("%s: %s was changed after it had been predicted, and is kept; --overwrite predicts it again", case.name, names)
    return not (changed and outputs.overwrite)


def _measure_again(case: Case, files: PredictionFiles, ensemble: Ensemble, manifest: Manifest, outputs: Outputs) -> None:
    """Measures the organs of a case that was predicted before, where its label map was corrected, or more is wanted than was noted."""
    rows = [from_jsonable(one, OrganUncertainty) for one in manifest.findings([case])]
    lacking = [one for one in rows if one.measures is None or (files.statistics and not one.measures.mean)]
    if not rows or not (lacking or outputs.changed(files.label_map)):
        return
    try:
        image = read_case_image(case) if files.statistics else None
        stored = read_label(files.label_map)
        label_map = to_internal_values(stored.array, ensemble.labels, source=str(files.label_map))
        geometry = stored.geometry if image is None else image.geometry
        if label_map.shape != geometry.shape:
            raise ValueError(f"expected the shape {geometry.shape} of the image, found {label_map.shape}")
        measures = measure_organs(label_map, ensemble.labels, geometry, image)
    except (ValueError, OSError) as error:
        log.warning("%s: its organs cannot be measured again, and their volumes are those of the prediction: %s", case.name, error)
        return
    manifest.add(case, files.all, [replace(one, measures=measures.get(one.organ)) for one in rows])


@contextmanager
def _naming_image(image: Image) -> Iterator[None]:
    """Adds the file and its range of intensities to errors of the networks, which know the case's name only."""
    try:
        yield
    except ValueError as error:
        if image.source in str(error):
            raise
        low, high = image.array.min(), image.array.max()
        raise ValueError(f"{error} ({image.source}, voxels from {low:.3g} to {high:.3g})") from error


def read_new_image(case: Case, channels: int) -> Image:
    """Reads a case that is to be predicted; a ValueError where it cannot be read, or has another number of channels."""
    image = read_case_image(case)
    if len(image.array) != channels:
        raise ValueError(f"{image.source}: expected {channels} channels as in training, found {len(image.array)}")
    return image


def _predict_case(case: Case, files: PredictionFiles, ensemble: Ensemble, bar: tqdm, write: Writer) -> list[OrganUncertainty]:
    """Writes the files of a case; returns what is known of each organ without a reference."""
    reset_peak_memory()
    started = time.monotonic()
    image = read_new_image(case, len(ensemble.channels))
    geometry = image.geometry
    with _naming_image(image):
        if files.uncertainty or ensemble.choice.vote:
            logits, by_fold = ensemble.logits_by_fold(image, case=case.name, progress=bar.update)
        else:
            logits, by_fold = ensemble.logits(image, case=case.name, progress=bar.update), None
    kept = image if files.statistics else None
    del image  # large, and no longer needed: what follows takes memory of its own
    if files.probabilities is not None:
        write_probabilities(files.probabilities, ensemble, logits, write=write)
    label_map = ensemble.segment(logits, by_fold)
    candidates = ensemble.candidate_predictions(logits, by_fold)
    maps = write_uncertainty_maps(files, candidates, write=write)
    rows = organ_uncertainties(ensemble, candidates, label_map, maps, image=kept)
    write_label(files.label_map, to_file_values(label_map, ensemble.labels), geometry, write=write)
    gpu = f", {peak_gpu_memory() / 1e6:.0f} MB of the GPU" if peak_gpu_memory() else ""
    log.info("%s: %.1f s, at most %.0f MB of memory%s", case.name, time.monotonic() - started, peak_memory() / 1e6, gpu)
    return rows
