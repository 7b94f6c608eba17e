"""What a prediction would do, without writing anything: models, images that are there and can be read, files that would be written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..data.found_cases import FoundCases
from ..data.given_inputs import Given, find_cases_in, given_inputs
from ..inference.prediction import checked_files, is_kept, read_new_image
from ..inference.prediction_files import Destination, destination_of
from ..runtime.failures import failure_of
from ..runtime.registry import allows_code
from ..schema import Case
from ..schema.settings import PredictSettings
from ..selection.prediction_tables import tables_of
from .chosen_models import ensemble_of, present_choice
from .dry_run import DryRun, would_write
from .loaded_model import LoadedModel, describe_models, prediction_outputs
from .model_source import ModelSource, find_source
from .needed_memory import cases_beyond


@allows_code()
def dry_prediction(
    source: Given, out: str | Path, settings: PredictSettings | None = None, *, home: str | Path | None = None, overwrite: bool = False
) -> DryRun:
    """What `predict_each` would do with the same arguments; images are read, and models loaded, to find what is wrong with them.

    Raises:
        ValueError: As of `predict_each`.
    """
    settings = settings or PredictSettings()
    models = find_source(settings, home)
    inputs = given_inputs(source)
    found = find_cases_in(inputs, models.plan.channels, nifti_geometry=models.nifti_geometry(settings))
    lines = [f"{item}: skipped: {reason}" for item, reason in found.skipped.items()]
    images = [*inputs.paths, *inputs.folders]
    choice = present_choice(models, settings.model)
    if choice is None:
        lines.append(f"The best model for each organ would be chosen first, and written to {models.results / 'choice.json'}.")
        lines += _without_models(models, found, images, Path(out), settings, overwrite=overwrite)
    else:
        model = LoadedModel(models, settings, ensemble_of(models, choice, settings))
        lines += describe_models(model, f"{len(found.cases)} case{'' if len(found.cases) == 1 else 's'}", found.cases)
        lines += _cases(model, found, images, Path(out), overwrite=overwrite) if found.cases else []
    failures = dict(found.failed)
    for case in found.cases:
        with failure_of(case.name, failures, "would fail"):
            read_new_image(case, len(models.plan.channels))
    return DryRun(tuple(lines), failures, len(found.cases) + len(found.failed))


def _cases(model: LoadedModel, found: FoundCases, images: Sequence[Path], out: Path, *, overwrite: bool) -> list[str]:
    """A line for each case: its images, its label map, and what would become of that."""
    dim = len(next(iter(model.ensemble.models.values())).plan.transpose)
    destination, cases = destination_of(out, found.cases, model.settings, dim=dim)
    outputs = prediction_outputs(images, destination, cases, model.source, overwrite=overwrite)
    manifest, files, clashing = checked_files(cases, destination, model.ensemble, outputs)
    found.failed.update(clashing | cases_beyond(model.ensemble, cases, model.settings))
    lines = []
    for case in cases:
        if case.name not in clashing:
            with failure_of(case.name, {}):
                kept = is_kept(case, files[case.name], manifest, outputs)
                lines.append(_line(case, files[case.name].all, "kept, as it is made from this image by these models" if kept else ""))
    return [*lines, *_tables(destination, cases)]


def _without_models(
    models: ModelSource, found: FoundCases, images: Sequence[Path], out: Path, settings: PredictSettings, *, overwrite: bool
) -> list[str]:
    """As `_cases` where nobody knows the models yet, so that nothing counts as made by them."""
    if not found.cases:
        return []
    destination, cases = destination_of(out, found.cases, settings, dim=len(models.plan.transpose))
    outputs = prediction_outputs(images, destination, cases, models, overwrite=overwrite)
    files = {case.name: destination.files_of(case) for case in cases}
    outputs.check({name: one.with_sidecars for name, one in files.items()})
    return [*(_line(case, files[case.name].all, "") for case in cases), *_tables(destination, cases)]


def _tables(destination: Destination, cases: Sequence[Case]) -> list[str]:
    """What is written beside the label maps."""
    tables = [path for paths in tables_of(destination, cases).values() for path in paths]
    return would_write(*tables, destination.manifest)


def _line(case: Case, files: Sequence[Path], kept: str) -> str:
    """Such as ``a: scans/a_0000.nii.gz -> out/a.nii.gz (new)``."""
    images, written = (", ".join(map(str, paths)) for paths in (case.images, files))
    return f"{case.name}: {images} -> {written} ({kept or ('replaced' if any(map(os.path.lexists, files)) else 'new')})"
