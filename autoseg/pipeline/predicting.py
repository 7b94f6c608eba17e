"""New images to segmentations with the chosen models, as files or through Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..data.given_inputs import Given
from ..runtime.registry import allows_code
from ..schema.settings import PredictSettings
from ..selection.validated_dice import warn_of_low_dice
from .chosen_models import load_ensemble
from .loaded_model import LoadedModel, PredictedCases
from .model_source import find_source, source_meant


def load_model(
    model: str | int | Path | None = None, settings: PredictSettings | None = None, *, home: str | Path | None = None
) -> LoadedModel:
    """Loads trained models, to predict any number of images: ``model = load_model(folder)``, ``model.predict(image)``.

    Args:
        model: A folder anywhere, whatever its name, without a home: the results of a dataset (with ``choice.json``), one model (with
            ``fold_0`` ...), or one fold (with ``checkpoint_final.pt`` and ``run.json``). Or a trained dataset (id, name) of the home; None
            means what `settings` say, or the only trained dataset.
        settings: Device, mirroring, folds and so on.
        home: Home folder.

    Raises:
        ValueError: There is no such model; the message says what was found instead.
    """
    loaded = _loaded(model, settings or PredictSettings(), home)
    warn_of_low_dice(loaded.validation_dice)
    return loaded


@allows_code()
def _loaded(model: str | int | Path | None, settings: PredictSettings, home: str | Path | None) -> LoadedModel:
    source = find_source(settings, home) if model is None else source_meant(model, settings, home)
    return LoadedModel(source, settings, load_ensemble(source, settings))


def predict_folder(
    source: Given, out: str | Path, settings: PredictSettings | None = None, *, home: str | Path | None = None, overwrite: bool = False
) -> dict[str, str]:
    """As `predict_each`; returns case -> reason for the cases that failed; all others are written."""
    return predict_each(source, out, settings, home=home, overwrite=overwrite).failures


def predict_each(
    source: Given, out: str | Path, settings: PredictSettings | None = None, *, home: str | Path | None = None, overwrite: bool = False
) -> PredictedCases:
    """Segments every case of folders, files and DICOM series into a folder, or one image into a file.

    Args:
        source: A folder of images ``case_0000.nii.gz`` ... (the suffix is optional for one channel), one file, a DICOM series, or a folder
            of series; a pattern (``scans/*/T1.nii.gz``); or several of these.
        out: Gets one label map a case, with its input's geometry. A prediction that was interrupted goes on. With
            `PredictSettings.uncertainty` also ``uncertainty/`` with two maps a case; of several cases ``autoseg_uncertainty.csv``, the
            table of what to check first. A name with an image's ending, ``seg.nii.gz``, is the file of the only case.
        overwrite: Replace files that prediction did not write, or that were changed since; never images that are read, data or models.

    Returns:
        What was written, and what failed for which reason: one bad case never stops the others.

    Raises:
        ValueError: No images, two of one name, no trained model, several trained datasets to choose from, or files that must not be
            replaced; nothing was written then.
    """
    # At its end it warns of organs that were not learnt.
    return _loaded(None, settings or PredictSettings(), home).predict_each(source, out, overwrite=overwrite)


def predict(
    image: Any, model: str | int | Path | None = None, *, settings: PredictSettings | None = None, home: str | Path | None = None
) -> Any:
    """Segments one image and returns the label map as the same kind of thing: `LoadedModel.predict` of models that are loaded for it.

    Args:
        image: As in `LoadedModel.predict`.
        model: As in `load_model`, which keeps the networks for further images.

    Returns:
        For a path or a SimpleITK image a SimpleITK label image with the input's geometry; for ``(array, spacing)`` a tuple of the label
        array ``(Z, Y, X)`` and the spacing. Values are the dataset's own label values.

    Raises:
        ValueError: The image does not fit the model, or there is no model.
    """
    return load_model(model, settings, home=home).predict(image)
