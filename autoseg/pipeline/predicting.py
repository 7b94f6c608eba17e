"""New images to segmentations with the chosen models, as files or through Python."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.datasets import find_new_cases
from ..data.descriptions import planned_dataset
from ..data.images import files_read, images_below, read_image
from ..data.label_subsets import label_conflict
from ..data.labels import to_file_values
from ..data.nifti_geometry import check_form
from ..data.sitk_images import from_sitk, to_sitk
from ..inference.ensemble import Ensemble, check_channels
from ..inference.postprocessing import describe, forced
from ..inference.prediction import predict_cases
from ..inference.prediction_files import Destination, destination_of, organ_uncertainties
from ..inference.trained_model import InferenceOptions, ModelCache, TrainedModel, load_model
from ..runtime.case_contents import in_words
from ..runtime.dataset_folders import matching_names
from ..runtime.hardware import choose_device, prepare_device
from ..runtime.outputs import Outputs, check_not_among
from ..runtime.registry import allows_code, unknown_name_error
from ..runtime.runs import ModelFolder, model_folders
from ..runtime.serialization import read_json
from ..runtime.workspace import Workspace, find_workspace, last_name
from ..schema import Case, Choice, Geometry, Image
from ..schema.settings import PredictSettings
from ..selection.case_ranking import RANKED_CASES, compare_with_training, conclude_prediction, is_table, tell_likeness
from ..selection.stored_scores import not_in_choice, validated_folds, voting_folds
from ..trainers.corrected_references import corrected_since
from .choosing import choose_again

log = logging.getLogger(__name__)


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


def predict_folder(
    source: str | Path, out: str | Path, settings: PredictSettings | None = None, *, home: str | Path | None = None, overwrite: bool = False
) -> dict[str, str]:
    """As `predict_each`; returns case -> reason for the cases that failed; all others are written."""
    return predict_each(source, out, settings, home=home, overwrite=overwrite).failures


@allows_code()
def predict_each(
    source: str | Path, out: str | Path, settings: PredictSettings | None = None, *, home: str | Path | None = None, overwrite: bool = False
) -> PredictedCases:
    """Segments every case of a folder (or one file, or one DICOM series) into another folder, or one image into a file.

    Args:
        source: Images ``case_0000.nii.gz`` ... (the suffix is optional for one channel), one file, a DICOM series, or a folder of series.
        out: Gets one label map a case, with its input's geometry. A prediction that was interrupted goes on. With
            `PredictSettings.uncertainty` also ``uncertainty/`` with two maps a case; of several cases ``autoseg_uncertainty.csv``, the
            table of what to check first. A name with an image's ending, ``seg.nii.gz``, is the file of the only case.
        overwrite: Replace files that prediction did not write, or that were changed since; never images that are read, data or models.

    Returns:
        What was written, and what failed for which reason: one bad case never stops the others.

    Raises:
        ValueError: No images, no trained model, several trained datasets to choose from, or files that must not be replaced; nothing was
            written then.
    """
    settings = settings or PredictSettings()
    workspace, dataset = _trained_dataset(settings.dataset, home)
    ensemble = load_ensemble(workspace, dataset, settings)
    found = find_new_cases(Path(source), ensemble.channels, nifti_geometry=_nifti_geometry(workspace, dataset, settings))
    for item, reason in found.skipped.items():
        log.warning("%s: skipped: %s", item, reason)
    for case, reason in found.failed.items():
        log.error("%s failed: %s", case, reason)
    if not found.cases:
        return PredictedCases((), found.failed, found.skipped)
    destination, cases = destination_of(Path(out), found.cases, settings, dim=len(next(iter(ensemble.models.values())).plan.transpose))
    outputs = _outputs(Path(source), destination, found.cases, workspace, overwrite=overwrite)
    chosen = "; ".join(f"{organ} by {' + '.join(members)}" for organ, members in ensemble.choice.organs.items())
    log.info("%d cases with models of %s: %s", len(cases), dataset, chosen)
    if ensemble.choice.postprocessing:
        log.info("Post-processing: %s", "; ".join(f"{organ}: {describe(steps)}" for organ, steps in ensemble.choice.postprocessing.items()))
    failures = predict_cases(cases, destination, ensemble, outputs)
    conclude_prediction(destination, cases, ensemble, workspace.results(dataset), write=outputs.write)
    written = tuple(case.name for case in cases if case.name not in failures)
    return PredictedCases(written, {**found.failed, **failures}, found.skipped)


def _outputs(source: Path, destination: Destination, cases: Sequence[Case], workspace: Workspace, *, overwrite: bool) -> Outputs:
    """Decides which files a prediction may write.

    Raises:
        ValueError: The label maps would lie among the images, which they would be taken for the next time.
    """
    check_not_among(destination.folders, {"images": source})
    inputs = [file for case in cases for image in case.images for file in (files_read(image) if image.is_file() else [image])]
    inputs += [source] if source.is_file() else images_below(source)  # also those of cases that failed
    outputs = Outputs("autoseg_predict", inputs=inputs, protected=workspace.folders, overwrite=overwrite, is_own=is_table)
    if destination.has_table(len(cases)):
        outputs.check({"table of what to check first": [destination.folder / RANKED_CASES]})
    return outputs


@allows_code()
def predict(
    image: Any, model: str | int | Path | None = None, *, settings: PredictSettings | None = None, home: str | Path | None = None
) -> Any:
    """Segments one image and returns the label map as the same kind of thing.

    Args:
        image: A path (file or DICOM folder), a list of paths (one a channel), a SimpleITK image, or ``(array, spacing)`` with an array
            ``(Z, Y, X)`` or ``(C, Z, Y, X)``, whose axes run as in most training images, and the spacing in mm in array order.
        model: A dataset (id, name) whose models are used, or its folder ``results/<dataset>``; None means the only trained one.

    Returns:
        For a path or a SimpleITK image a SimpleITK label image with the input's geometry; for ``(array, spacing)`` a tuple of the label
        array ``(Z, Y, X)`` and the spacing. Values are the dataset's own label values.

    Raises:
        ValueError: The image does not fit the model, or there is no model.
    """
    settings = settings or PredictSettings()
    if model is not None and (Path(str(model)) / "plan.json").is_file():
        folder = Path(str(model)).resolve()
        workspace, dataset = Workspace(folder.parents[1]), folder.name
    else:
        workspace, dataset = _trained_dataset(settings.dataset if model is None else str(model), home)
    ensemble = load_ensemble(workspace, dataset, settings)
    read = _as_image(image, _nifti_geometry(workspace, dataset, settings))
    logits, by_fold = ensemble.logits_by_fold(read) if ensemble.choice.vote else (ensemble.logits(read), None)
    label_map = ensemble.segment(logits, by_fold)
    found = organ_uncertainties(ensemble, ensemble.candidate_predictions(logits), label_map)
    tell_likeness(compare_with_training(found, ensemble.choice, workspace.results(dataset)))
    labels = to_file_values(label_map, ensemble.labels)
    return (labels, image[1]) if _is_array_and_spacing(image) else to_sitk(labels, read.geometry)


@allows_code()
def load_ensemble(workspace: Workspace, dataset: str, settings: PredictSettings) -> Ensemble:
    """Loads what the choice (or the user) names; makes the choice first where models were trained after it.

    Raises:
        ValueError: The wanted model or folds are not trained.
    """
    choice = models_chosen(workspace, dataset, settings.model)
    choice = replace(choice, vote=choice.vote or settings.vote)
    if settings.postprocess:
        labels = workspace.present_plan(dataset).labels
        choice = replace(choice, postprocessing=forced(settings.postprocess, labels, choice.postprocessing))
    return chosen_ensemble(workspace, dataset, choice, settings)


def chosen_ensemble(
    workspace: Workspace, dataset: str, choice: Choice, settings: PredictSettings, *, stage_folds: tuple[str, ...] | None = None
) -> Ensemble:
    """Loads the models of a choice; `stage_folds` are those of cascades' first stages, None means all.

    Raises:
        ValueError: One of them or a fold of it is not trained, or they do not fit the dataset's plan.
    """
    device = choose_device(settings.device)
    if not settings.low_memory:  # it keeps freed memory, and tries convolutions that need more
        prepare_device(device)
    root = workspace.results(dataset)
    members = sorted({name for names in choice.organs.values() for name in names})
    first, step = settings.step if isinstance(settings.step, tuple) else (None, settings.step)
    options = InferenceOptions(mirror=settings.mirror, step=step, first_step=first, stage_folds=stage_folds, low_memory=settings.low_memory)
    folds = {name: tuple(settings.folds or choice.member_folds.get(name) or choice.folds) for name in members}
    loaded: ModelCache = {}  # a cascade's first stage may be a member as well
    plan = workspace.present_plan(dataset)
    models = {name: load_model(root / name, device, replace(options, folds=folds[name]), loaded=loaded) for name in members}
    check_channels(models, plan)
    labels = plan.labels
    without = [organ for organ in labels.names if organ not in choice.organs]
    if without:
        log.warning("%s: not segmented by these models, background in the results.", ", ".join(without))
    fold_models: dict[str, tuple[TrainedModel, ...]] = {}
    if settings.uncertainty or choice.vote:
        alone = {name: [replace(options, folds=(fold,)) for fold in folds[name]] for name in members if len(folds[name]) > 1}
        fold_models = {name: tuple(load_model(root / name, device, one, loaded=loaded) for one in some) for name, some in alone.items()}
    return Ensemble(choice, models, labels, fold_models)


def models_chosen(workspace: Workspace, dataset: str, model: str | None = None) -> Choice:
    """The choice among the trained models, made anew where models were validated after it; or `model` for all of its organs.

    Raises:
        ValueError: There is no such model, or none to choose from.
    """
    trained = {model.name: model for model in model_folders(workspace.results(dataset))}
    labels = workspace.present_plan(dataset).labels
    path = workspace.results(dataset) / "choice.json"
    data_is_here = (workspace.preprocessed(dataset) / "plan.json").is_file()
    if model is None and path.is_file():
        choice = read_json(path, Choice)
        _check_members(choice, trained, path)
        newer = not_in_choice(choice, path.parent, validated_folds(path.parent)) if data_is_here else []
        gone = [organ for organ in choice.organs if organ not in labels.names]
        if not newer and not gone:
            _warn_of_corrections(workspace, dataset, path)
            return choice
        if newer:
            log.info("%s was made before these were validated: %s", path, ", ".join(newer))
        if gone:
            log.warning("%s was made for organs that the dataset no longer has: %s", path, ", ".join(gone))
    if model is not None or not data_is_here:
        if model is None and len(trained) > 1:
            raise ValueError(f"{path}: not there, and neither is the data to make it from. Say with -c which model: {', '.join(trained)}")
        organs = {name: folder.labels(labels).names for name, folder in trained.items()}
        name = next(iter(trained)) if model is None else _model_meant(model, organs)
        folds = voting_folds(trained[name].trained_folds())
        if reason := label_conflict(trained[name].labels(labels), labels):
            raise ValueError(f"{name}: does not fit the organs of {dataset}: {reason}; train it again")
        known = [organ for organ in labels.names if organ in organs[name]]
        if unknown := [organ for organ in organs[name] if organ not in known]:
            log.warning("%s segments what is no organ of %s any more, and is left out: %s", name, dataset, ", ".join(unknown))
        return Choice(dict.fromkeys(known, (name,)), folds, {}, 0, rule="the only one" if model is None else "as asked")
    log.info("Choosing the best configuration for each organ of %s first.", dataset)
    return choose_again(dataset, home=workspace.home)


def _warn_of_corrections(workspace: Workspace, dataset: str, choice: Path) -> None:
    """Says of which cases a choice judged models by images or label maps that were corrected since."""
    if dataset in workspace.descriptions():
        cases = planned_dataset(workspace, dataset).cases
        if changed := corrected_since(choice.parent, validated_folds(choice.parent), cases):
            again = f"autoseg_find_best_configuration {dataset}"
            log.warning("%s was made with former contents of %s; choose again: %s", choice, in_words(changed), again)


def _check_members(choice: Choice, trained: Mapping[str, ModelFolder], path: Path) -> None:
    """Refuses (ValueError) a choice of models or folds that are not there any more, or of no model at all."""
    if not choice.organs:
        raise ValueError(f"{path}: expected a model for at least one organ, found none; remove the file to choose again")
    for organ, members in choice.organs.items():
        if not members:
            raise ValueError(f"{path}: expected a model for {organ}, found none; remove the file to choose again")
        for name in members:
            folds, there = choice.member_folds.get(name) or choice.folds, trained[name].trained_folds() if name in trained else []
            if lacking := [fold for fold in folds if fold not in there] if name in trained else [name]:
                what = f"fold {', '.join(lacking)} of {name}" if name in trained else name
                raise ValueError(f"{path}: {what}, chosen for {organ}, is not there; copy it back, or remove the file to choose again")


def _model_meant(model: str, organs: Mapping[str, Sequence[str]]) -> str:
    """The model folder that a user means by its name or its configuration's; of several of one configuration the one of most organs.

    Raises:
        ValueError: There is none, or several have as many organs; the message lists them.
    """
    if model in organs:
        return model
    fitting = [name for name in organs if ModelFolder(Path(name)).configuration == model]
    most = max((len(organs[name]) for name in fitting), default=0)
    largest = [name for name in fitting if len(organs[name]) == most]
    if len(largest) != 1:
        raise unknown_name_error("model", model, largest or organs)
    return largest[0]


def _trained_dataset(which: str | None, home: str | Path | None) -> tuple[Workspace, str]:
    workspace = find_workspace(home)
    trained = workspace.trained_datasets()
    if not trained:
        raise ValueError(f"{workspace.home / 'results'}: nothing is trained yet. Run: autoseg_train DATASET 3d_fullres 0")
    fitting = trained if which is None else matching_names(trained, last_name(which))
    if len(fitting) != 1:
        listed = "\n".join(f"  -d {name}" for name in trained)
        wrong = f"-d {which} means {'several' if fitting else 'none'} of the trained datasets"
        raise ValueError(f"{'say which of the trained datasets' if which is None else wrong}:\n{listed}")
    return workspace, fitting[0]


def _nifti_geometry(workspace: Workspace, dataset: str, settings: PredictSettings) -> str | None:
    """The reading of contradictory headers: the user's, else that of the plan."""
    check_form(settings.nifti_geometry)
    planned = workspace.present_plan(dataset).settings
    return settings.nifti_geometry or (planned.nifti_geometry if planned else None)


def _is_array_and_spacing(image: Any) -> bool:
    return isinstance(image, tuple) and len(image) == 2 and isinstance(image[0], np.ndarray)


def _as_image(image: Any, nifti_geometry: str | None) -> Image:
    if _is_array_and_spacing(image):
        array, spacing = image
        dim = len(spacing)
        if array.ndim not in (dim, dim + 1):
            raise ValueError(f"image: expected {dim} or {dim + 1} axes for a spacing of {dim} numbers, found shape {array.shape}")
        array = array if array.ndim == dim + 1 else array[None]
        geometry = Geometry(array.shape[1:], tuple(map(float, spacing)), (0.0,) * dim, tuple(np.eye(dim).ravel()), oriented=False)
        return Image(array.astype(np.float32), geometry)
    if isinstance(image, (str, Path, Sequence)):
        paths = [Path(path) for path in ([image] if isinstance(image, (str, Path)) else image)]
        return read_image(paths, nifti_geometry=nifti_geometry)
    read = from_sitk(image)
    return Image(read.array.astype(np.float32), read.geometry, read.source)
