"""Trained models that stay loaded, and predict any number of images: in memory, or from files to files."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from ..data.array_images import from_array, in_order_of_array, is_array_with_place
from ..data.found_cases import FoundCases
from ..data.given_inputs import Given, find_cases_in, given_inputs
from ..data.images import files_read, images_below, read_image
from ..data.labels import to_file_values
from ..data.sitk_images import from_sitk, to_sitk
from ..inference.ensemble import Ensemble
from ..inference.logits import Logits
from ..inference.postprocessing import describe
from ..inference.prediction import predict_cases
from ..inference.prediction_files import Destination, destination_of, organ_uncertainties
from ..runtime.outputs import Outputs, check_not_among, check_outside_home
from ..runtime.registry import allowed_code
from ..runtime.runs import ModelFolder
from ..schema import Case, Geometry, Image
from ..schema.settings import PredictSettings
from ..selection.case_ranking import compare_with_training, tell_likeness
from ..selection.cheaper_ways import describe_mirroring, known_losses
from ..selection.prediction_tables import conclude_prediction, is_table, tables_of
from ..selection.validated_dice import in_words, validated_dice
from .fast_prediction import describe_fast
from .known_patients import with_patients
from .model_source import ModelSource
from .needed_memory import cases_beyond, check_memory

log = logging.getLogger(__name__)
NEEDS_PLACE = "an array needs its spacing in mm or its affine: predict((array, (2.5, 0.8, 0.8)))"


@dataclass(frozen=True)
class PredictedCases:
    """What became of the images of one prediction.

    Attributes:
        written: Cases that have their label maps, now or from an earlier call.
        failures: Case -> reason for the others.
        skipped: What is no image of a case, item -> reason; no fault.
    """

    written: tuple[str, ...]
    failures: dict[str, str]
    skipped: dict[str, str]


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """Trained models with their networks in memory, as `autoseg.load_model` returns them.

    Threads may share one: a call waits until the former has ended, since the networks use all processors anyway.

    Attributes:
        source: Where the models lie.
        settings: What they were loaded with.
        ensemble: The chosen models with their networks.
    """

    source: ModelSource
    settings: PredictSettings
    ensemble: Ensemble
    _lock: Lock = field(default_factory=Lock, repr=False)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels that an image must have, in this order."""
        return self.ensemble.channels

    @property
    def organs(self) -> dict[str, tuple[int, ...]]:
        """The organs that are segmented, each with its values in label maps; a region has those of all that lies in it."""
        labels = self.ensemble.labels
        return {name: values for name, values in zip(labels.names, labels.members, strict=True) if name in self.ensemble.choice.organs}

    @cached_property
    def validation_dice(self) -> dict[str, float]:
        """Organ to its mean Dice over held-out cases of the training data; NaN where nobody knows. Below 0.5 an organ was not learnt."""
        return validated_dice(self.ensemble.choice, self.source.results)

    def predict(self, image: Any, *, probabilities: bool = False) -> Any:
        """Segments one image and returns the label map as the same kind of thing.

        Args:
            image: A path (file or DICOM folder), a list of paths (one a channel), a SimpleITK image, or an array with what it lacks:
                ``(array, spacing)`` with an array ``(Z, Y, X)`` or ``(C, Z, Y, X)`` and its spacing in mm in array order, whose axes must
                run as in most training images; ``(array, affine)`` with an array ``(X, Y, Z)`` or ``(C, X, Y, Z)`` and the matrix
                ``(4, 4)`` to right, anterior, superior in mm, as nibabel and MONAI have them.
            probabilities: Return each organ's calibrated probability too.

        Returns:
            For a path or a SimpleITK image a SimpleITK label image with the input's geometry; for ``(array, spacing)`` or ``(array,
            affine)`` a tuple of the label array without channels and what was given with it. Values are the dataset's own label values.
            With `probabilities` a tuple of that and a dictionary from each organ's name to its probabilities on the same grid, float32,
            as a SimpleITK image or an array.

        Raises:
            ValueError: The image does not fit the model.
        """
        with self.in_use():
            ensemble, read = self.ensemble, self._read(image)
            if self.settings.max_memory is not None:
                check_memory(ensemble, read.geometry, self.settings.max_memory, read.source)
            logits, by_fold = ensemble.logits_by_fold(read) if ensemble.choice.vote else (ensemble.logits(read), None)
            label_map = ensemble.segment(logits, by_fold)
            found = organ_uncertainties(ensemble, ensemble.candidate_predictions(logits), label_map)
            tell_likeness(compare_with_training(found, ensemble.choice, self.source.results))
            result = _as_given(to_file_values(label_map, ensemble.labels), image, read.geometry)
            result = (result, image[1]) if is_array_with_place(image) else result
            if not probabilities:
                return result
            shares = _probabilities(ensemble, logits, read.geometry.shape)
            return result, {organ: _as_given(one, image, read.geometry) for organ, one in shares.items()}

    def predict_folder(self, images: Given, out: str | Path, *, overwrite: bool = False) -> dict[str, str]:
        """As `predict_each`; returns case -> reason for the cases that failed; all others are written."""
        return self.predict_each(images, out, overwrite=overwrite).failures

    def predict_each(self, images: Given, out: str | Path, *, overwrite: bool = False) -> PredictedCases:
        """Segments every case of folders, files and DICOM series into a folder, or one image into a file.

        Arguments, result and errors are those of `autoseg.pipeline.predict_each`.
        """
        inputs = given_inputs(images)
        found = find_cases_in(inputs, self.channels, nifti_geometry=self.source.nifti_geometry(self.settings))
        for item, reason in found.skipped.items():
            log.warning("%s: skipped: %s", item, reason)
        for case, reason in found.failed.items():
            log.error("%s failed: %s", case, reason)
        if not found.cases:
            return PredictedCases((), found.failed, found.skipped)
        tell_models(self, f"{len(found.cases)} case{'s' if len(found.cases) > 1 else ''}", found.cases)
        return predict_found(self, found, [*inputs.paths, *inputs.folders], Path(out), overwrite=overwrite)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Within the block no other thread predicts, and names in the models' files may import what settings allow."""
        with self._lock, allowed_code(self.settings.allowed_modules):
            yield

    def _read(self, image: Any) -> Image:
        read = _as_image(image, self.source.nifti_geometry(self.settings))
        if is_array_with_place(image) and read.geometry.dim != self.source.dim:
            found = f"{read.geometry.dim} with an array of shape {tuple(image[0].shape)}"
            raise ValueError(f"image: expected {self.source.dim} numbers as spacing, as the training images have axes, found {found}")
        if len(read.array) != len(self.channels):
            expected = f"{len(self.channels)} channels ({', '.join(self.channels)})" if len(self.channels) > 1 else "1 channel"
            raise ValueError(f"{read.source}: expected {expected} as in training, found {len(read.array)}")
        return read


def _as_image(image: Any, nifti_geometry: str | None) -> Image:
    if is_array_with_place(image):
        return from_array(*image)
    if isinstance(image, (list, tuple)) and any(hasattr(one, "ndim") for one in image):
        raise ValueError(f"image: {NEEDS_PLACE}, found {len(image)} things in a {type(image).__name__}")
    if isinstance(image, (str, Path, list, tuple)):
        paths = [Path(path) for path in ([image] if isinstance(image, (str, Path)) else image)]
        return read_image(paths, nifti_geometry=nifti_geometry)
    if isinstance(image, np.ndarray):
        raise ValueError(f"image: {NEEDS_PLACE}")
    read = from_sitk(image)
    return Image(read.array.astype(np.float32), read.geometry, read.source)


def _as_given(volume: np.ndarray, image: Any, geometry: Geometry) -> Any:
    """A volume ``(Z, Y, X)`` as an array in the order of the array that was given, else as a SimpleITK image."""
    return in_order_of_array(volume, image[1]) if is_array_with_place(image) else to_sitk(volume, geometry)


def _probabilities(ensemble: Ensemble, logits: Mapping[str, Logits], shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Organ to its calibrated probabilities on the file's grid; organs that no model segments are missing."""
    found = {organ: np.zeros(shape if len(shape) == 3 else (1, *shape), np.float32) for organ in ensemble.choice.organs}
    for index, start, slab in ensemble.probabilities(logits):
        found[ensemble.labels.names[index]][start : start + len(slab)] = slab
    return {organ: volume.reshape(shape) for organ, volume in found.items()}


def describe_models(model: LoadedModel, what: str = "Predicting", cases: Sequence[Case] = ()) -> list[str]:
    """Which models segment which organ, how, and what is done to their label maps, a line each; of ``--fast`` also what `cases` cost."""
    choice, validated = model.ensemble.choice, model.validation_dice
    dice = {organ: f" (validation Dice {in_words(validated[organ])})" for organ in choice.organs}
    chosen = "; ".join(f"{organ} by {' + '.join(members)}{dice[organ]}" for organ, members in choice.organs.items())
    steps = "; ".join(f"{organ}: {describe(steps, dim=model.source.dim)}" for organ, steps in choice.postprocessing.items())
    return [
        f"{what} with models of {model.source.name}: {chosen}",
        *([f"Post-processing: {steps}"] if steps else []),
        *(_fast(model, cases) if model.settings.fast else _mirroring(model)),
    ]


def _fast(model: LoadedModel, cases: Sequence[Case]) -> list[str]:
    asked = bool(model.settings.folds or model.source.folds)
    return describe_fast(model.ensemble, model.source.results, cases, folds_asked=asked)


def _mirroring(model: LoadedModel) -> list[str]:
    """Of each model whether it averages mirrored copies, where their gain was measured."""
    lines = []
    for name, one in model.ensemble.models.items():
        known = known_losses(model.ensemble.choice, model.source.results, name, ModelFolder(model.source.results / name).trained_folds())
        if text := describe_mirroring(known, mirror=one.predictor.mirror, asked=model.settings.mirror):
            lines.append(f"{name}: {text}")
    return lines


def tell_models(model: LoadedModel, what: str = "Predicting", cases: Sequence[Case] = ()) -> None:
    """Logs `describe_models`."""
    for line in describe_models(model, what, cases):
        log.info("%s", line)


def check_destination(out: Path, images: Sequence[Path], models: ModelSource) -> None:
    """Refuses (ValueError) to write label maps among images, for which they would be taken the next time, or among data and models."""
    check_outside_home(out, data=models.data_folders, results=models.result_folders(out))
    for path in images:
        check_not_among([out], {"images": path})


def predict_found(
    model: LoadedModel, found: FoundCases, images: Sequence[Path], out: Path, *, overwrite: bool = False, keeps_table: bool = False
) -> PredictedCases:
    """Segments cases that were found among some images, into a folder or file.

    Args:
        images: Folders and files that are read, into which nothing is written.
        keeps_table: Write the table of what to check first for a single case too, as more will come.

    Raises:
        ValueError: Files must not be replaced, or label maps would lie among the images; nothing was written.
    """
    with model.in_use():
        ensemble, settings = model.ensemble, model.settings
        destination, cases = destination_of(out, found.cases, settings, dim=len(next(iter(ensemble.models.values())).plan.transpose))
        destination = replace(destination, keeps_table=keeps_table)
        outputs = prediction_outputs(images, destination, cases, model.source, overwrite=overwrite)
        cases = with_patients(cases, model.source.plan)
        validated = model.validation_dice
        beyond = cases_beyond(ensemble, cases, settings)
        failures = predict_cases(cases, destination, ensemble, outputs, validated=validated, refused=beyond)
        conclude_prediction(destination, cases, ensemble, model.source.results, validated=validated, write=outputs.write)
    written = tuple(case.name for case in cases if case.name not in failures)
    return PredictedCases(written, {**found.failed, **failures}, found.skipped)


def prediction_outputs(
    images: Sequence[Path], destination: Destination, cases: Sequence[Case], models: ModelSource, *, overwrite: bool
) -> Outputs:
    """Decides which files a prediction may write; a ValueError where label maps would lie among images, data or models."""
    for folder in destination.folders:
        check_destination(folder, images, models)
    inputs = [file for case in cases for image in case.images for file in (files_read(image) if image.is_file() else [image])]
    inputs += images_below(*images)  # also those of cases that failed
    outputs = Outputs("autoseg_predict", inputs=inputs, protected=models.protected, overwrite=overwrite, is_own=is_table)
    outputs.check(tables_of(destination, cases))
    return outputs
