"""Preprocessing of cases: reorient, crop to non-zero, normalise, resample, and sample locations of the organs.

The order and the numbers are nnU-Net's (Isensee et al., Nature Methods 2021), so that the same plan means the same data.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from ..data.annotations import annotated_indices, check_annotated
from ..data.geometry import geometry_difference
from ..data.images import PICTURES, count_channels, ending_of, read_case_geometry, read_case_image
from ..data.label_placement import read_case_label
from ..data.labels import to_internal_values, values_mask
from ..runtime.hardware import GIB
from ..runtime.migrate.artefacts import stamp_of_0_1_0_fits
from ..runtime.provenance import (
    Stamp,
    annotated_setting,
    case_ids,
    case_inputs,
    case_paths,
    content_ids,
    reading_setting,
    same_content,
    value_id,
)
from ..runtime.serialization import read_json, write_json
from ..runtime.worker_pool import run_cases
from ..schema import Case, Configuration, Dataset, Image, Intensity, Labels, Plan, Trace
from ..schema.conventions import ANNOTATED, OUTSIDE
from .cropping import nonzero_box, slices_of
from .normalization import find_scheme, reads_statistics
from .orientation import plan_transform, reorient
from .resampling import resample_image, resample_labels, resampled_shape
from .slice_grids import kept_box
from .storage import Store, StoredRecord

log = logging.getLogger(__name__)

FORMAT = 2
"""Version of the preprocessing; a new number makes older results stale."""

RECIPE = "configuration.json"
"""Beside preprocessed cases: the `Recipe` that they were made by."""

UNREAD = Intensity(*(0.0,) * 7)
"""Stands in a `Recipe` for statistics that nothing depends on."""

LOCATIONS_AT_LEAST = 10_000
LOCATIONS_SHARE = 0.01
"""Voxels stored per organ: this number, or this share if that is more."""

SEED = 1234
"""Seed of the sampling of those voxels, the same whenever a case is preprocessed."""


@dataclass(frozen=True)
class Recipe:
    """All settings that preprocessed values depend on; stored beside them as ``configuration.json``."""

    format: int
    orientation: str
    transpose: tuple[int, ...]
    labels: Labels
    intensities: tuple[Intensity, ...]
    dim: int
    spacing: tuple[float, ...]
    normalization: tuple[str, ...]
    mask_normalization: tuple[bool, ...]


@dataclass(frozen=True)
class SliceRecipe(Recipe):
    """Of a configuration that sees a part of the slices, or slices of another number of pixels (`slice_grids`)."""

    center_crop: tuple[int, ...]
    slice_shape: tuple[int, ...]


def preprocess_case(
    image: Image, segmentation: np.ndarray | None, plan: Plan, configuration: Configuration, *, case: str = ""
) -> tuple[np.ndarray, np.ndarray | None, Trace]:
    """Brings one case to the grid and the intensities of a configuration.

    Args:
        image: As read, ``(C, Z, Y, X)`` or ``(C, Y, X)``.
        segmentation: Internal labels on the same voxels, or None.
        case: Name for the trace and for messages; the image's source if empty.

    Returns:
        Image ``(C, Z, Y, X)`` float32, labels ``(Z, Y, X)`` int16 (`OUTSIDE` where the image has no data and no organ) or None, and the
        trace that undoes it. A 2D image becomes one slice.

    Raises:
        ValueError: Channels, axes or shapes do not fit, or voxels are NaN or infinite.
    """
    name = case or image.source
    _check(image, segmentation, plan, configuration, name)
    order, flips = plan_transform(image.geometry, plan.order_of(configuration), plan.orientation)
    array, spacing = reorient(image.array, order, flips), tuple(image.geometry.spacing[axis] for axis in order)
    box, mask = nonzero_box(array)
    box = kept_box(box, mask.shape, configuration)
    shape_before_crop, inside = mask.shape, slices_of(box)
    array, mask = array[(slice(None),) + inside], mask[inside]
    target = configuration.spacing if len(spacing) == len(configuration.spacing) else (spacing[0], *configuration.spacing)
    shape = resampled_shape(array.shape[-len(spacing) :], spacing, target)
    if wanted := configuration.slice_shape:
        pixels = zip(spacing[-2:], array.shape[-2:], wanted, strict=True)
        shape, target = (*shape[:-2], *wanted), (*target[:-2], *(size * n / new for size, n, new in pixels))
    shape = shape if len(shape) == 3 else (1, *shape)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is infinite, or NaN, and found next
        array = _normalise(array, mask, plan, configuration)
        result = resample_image(array, shape, spacing=spacing, new_spacing=target)
    _check_finite(result, image, name)
    trace = Trace(name, image.geometry, order, shape_before_crop, box, shape, target, flips)
    if segmentation is None:
        return result, None, trace
    labels = reorient(segmentation[None], order, flips)[0][inside].astype(np.int16)
    labels[(labels == 0) & ~mask] = OUTSIDE
    return result, resample_labels(labels, shape, spacing=spacing, new_spacing=target), trace


def _check(image: Image, segmentation: np.ndarray | None, plan: Plan, configuration: Configuration, name: str) -> None:
    spatial = image.array.shape[1:]
    if len(image.array) != len(plan.channels):
        raise ValueError(f"{name}: expected {len(plan.channels)} channels ({', '.join(plan.channels)}), found {len(image.array)}")
    if len(spatial) != len(plan.transpose):
        raise ValueError(f"{name}: the plan was made for images of {len(plan.transpose)} axes, found {len(spatial)} (shape {spatial})")
    if configuration.dim > len(spatial):
        raise ValueError(f"{name}: configuration {configuration.name} needs volumes, found a 2D image of shape {spatial}")
    if not image.geometry.has_spacing and knows_spacing(plan):
        is_picture = ending_of(Path(image.source)) in PICTURES
        beside = 'write the millimetres of a pixel as {"spacing": [...]} to a .json file of the image\'s name beside it'
        remedy = beside if is_picture else "write it to the header (PixelSpacing of DICOM)"
        raise ValueError(f"{name}: expected a known spacing as of the images in training, found none of {image.source}; {remedy}")
    if segmentation is not None and segmentation.shape != spatial:
        raise ValueError(f"{name}: image and label must have the same shape, expected {spatial}, found {segmentation.shape}")
    bad = image.array.size - int(np.count_nonzero(np.isfinite(image.array)))
    if bad:
        found = f"{bad} NaN or infinite voxels in {image.source}"
        raise ValueError(f"{name}: expected finite numbers, found {found}; autoseg_check --fix repairs a copy")


def knows_spacing(plan: Plan) -> bool:
    """Whether a plan was made from images whose spacing is known: where it is not, 1 stands for it, by which older plans are told."""
    if plan.has_spacing is not None:
        return plan.has_spacing
    asked = plan.settings.spacing if plan.settings is not None else None
    # The coarse first stage of a cascade is always resampled.
    return asked is None and any(set(one.spacing) != {1.0} for name, one in plan.configurations.items() if name != "3d_lowres")


def _check_finite(result: np.ndarray, image: Image, name: str) -> None:
    """Raises a ValueError where voxels became infinite or NaN by normalisation or resampling: they were too large for 32 bits."""
    if not np.isfinite([result.min(), result.max()]).all():
        raise ValueError(
            f"{name}: expected intensities that can be normalised, found voxels from {image.array.min():.3g} to {image.array.max():.3g} in"
            f" {image.source}, which overflow; correct the image, or leave it out"
        )


def _normalise(array: np.ndarray, mask: np.ndarray, plan: Plan, configuration: Configuration) -> np.ndarray:
    result = np.empty(array.shape, np.float32)
    for index, scheme in enumerate(configuration.normalization):
        function = find_scheme(scheme)
        inside = mask if configuration.mask_normalization[index] else None
        result[index] = function(array[index], inside, plan.intensities[index])
    return result


def class_locations(
    segmentation: np.ndarray, labels: Labels, rng: np.random.Generator, *, annotated: tuple[str, ...] | None = None
) -> dict[str, np.ndarray]:
    """Samples the voxels on which patches may be centred, from internal labels ``(Z, Y, X)``; organs that were not `annotated` have none.

    Those of a union are the voxels of its first organ.

    Returns:
        Index of each organ in `Labels.names` as text to ``(N, 3)`` voxels, ascending by draw: all up to `LOCATIONS_AT_LEAST`, or
        `LOCATIONS_SHARE` of them if that is more; ``(0, 3)`` for absent organs. With an ignore label also `ANNOTATED`.
    """
    boxes = ndimage.find_objects(np.maximum(segmentation, 0).astype(np.int32))
    found: dict[str, np.ndarray] = {}
    shown = _values_shown(labels, annotated)
    for index in range(len(labels.names)):
        members = shown.get(index, ())
        parts = [boxes[value - 1] for value in members if value <= len(boxes) and boxes[value - 1] is not None]
        box = tuple(slice(min(p[a].start for p in parts), max(p[a].stop for p in parts)) for a in range(3)) if parts else (slice(0, 0),) * 3
        found[str(index)] = _draw(values_mask(segmentation[box], members or (0,)), [side.start for side in box], rng)
    if labels.internal_ignore is not None:
        found[ANNOTATED] = _draw(segmentation != labels.internal_ignore, [0, 0, 0], rng)
    return found


def _values_shown(labels: Labels, annotated: tuple[str, ...] | None) -> dict[int, tuple[int, ...]]:
    """Index of each annotated organ to its internal values, of a union that of its first organ to the values of all."""
    known = annotated_indices(annotated, labels)
    if known is None:
        return dict(enumerate(labels.internal_members))
    several = [one if isinstance(one, tuple) else (one,) for one in known]
    return {one[0]: tuple(value for index in one for value in labels.internal_members[index]) for one in several}


def _draw(mask: np.ndarray, offset: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    flat = np.flatnonzero(mask)
    count = max(min(LOCATIONS_AT_LEAST, len(flat)), int(np.ceil(len(flat) * LOCATIONS_SHARE)))
    if count < len(flat):
        flat = rng.choice(flat, count, replace=False)
    points = np.stack(np.unravel_index(flat, mask.shape), axis=1) + np.asarray(offset)
    small = max((n + o for n, o in zip(mask.shape, offset, strict=True)), default=0) < np.iinfo(np.int16).max
    return points.astype(np.int16 if small else np.int32)


def preprocess_dataset(
    dataset: Dataset, plan: Plan, configuration: Configuration, folder: Path, *, workers: int | None = None
) -> dict[str, str]:
    """Preprocesses every case of a dataset that is not in `folder` yet; cases that failed are returned with the reason.

    It may be interrupted and called again. What was made by another recipe (spacing, normalisation, labels ...) or from files of another
    content is made again. Contents are known from `Case.digests`; only where those are empty are the files of preprocessed cases read.

    Args:
        folder: Gets the cases (`Store`) and ``configuration.json``.
        workers: Processes; None takes what cores and available memory allow, 0 works in this process.
    """
    store = Store(folder, patch=_patch(configuration))
    store.clean()
    recipe = recipe_of(plan, configuration)
    waiting = _not_current(store, dataset.cases, [recipe, _keep_recipe(store, recipe)])
    if not waiting:
        log.info("%s: all %d cases are preprocessed already", configuration.name, len(dataset.cases))
        return {}
    memory = {case.name: case_memory(case, plan, configuration) for case in waiting}
    log.info("%s: %d cases, largest about %.1f GB of memory", configuration.name, len(waiting), max(memory.values()) / GIB)
    jobs: dict[str, tuple[Any, ...]] = {case.name: (case,) for case in waiting}
    function = partial(_preprocess_and_store, plan=plan, configuration=configuration, folder=folder)
    _, failures = run_cases(function, jobs, workers=workers, title=f"Preprocessing {configuration.name}", memory_per_job=memory)
    store.clean()
    return failures


def cases_to_preprocess(dataset: Dataset, plan: Plan, configuration: Configuration, folder: Path) -> list[Case]:
    """The cases that `preprocess_dataset` would preprocess; nothing is written."""
    recipe = recipe_of(plan, configuration)
    kept = _kept_recipe(folder, recipe) if folder.is_dir() else None
    return list(dataset.cases) if kept is None else _not_current(Store(folder), dataset.cases, [recipe, kept], keep_stamps=False)


def _preprocess_and_store(case: Case, plan: Plan, configuration: Configuration, folder: Path) -> None:
    case = _identified(case)
    image = read_case_image(case)
    segmentation = None
    if case.label is not None:
        label = read_case_label(case, plan.stored_labels)
        difference = geometry_difference(image.geometry, label.geometry)
        if difference and image.geometry.shape == label.geometry.shape:
            log.warning("%s: label and image differ in %s; taken voxel by voxel, autoseg_check tells more", case.name, difference)
        check_annotated(label.array, plan.stored_labels, case)
        segmentation = to_internal_values(label.array, plan.stored_labels, source=str(case.label))
    array, segmentation, trace = preprocess_case(image, segmentation, plan, configuration, case=case.name)
    del image
    locations = None
    if segmentation is not None:
        locations = class_locations(segmentation, plan.stored_labels, np.random.default_rng(SEED), annotated=case.annotated)
    record = StoredRecord(trace, stamp_of(case, recipe_of(plan, configuration)), case.annotated)
    Store(folder, patch=_patch(configuration)).write(case.name, array, segmentation, record, locations)


def _patch(configuration: Configuration) -> tuple[int, ...]:
    return configuration.patch_size if configuration.dim == 3 else (1, *configuration.patch_size)


def recipe_of(plan: Plan, configuration: Configuration) -> Recipe:
    """The settings of a plan that preprocessed values depend on."""
    grid, normalization = (configuration.dim, configuration.spacing), (configuration.normalization, configuration.mask_normalization)
    plain = (FORMAT, plan.orientation, plan.order_of(configuration), plan.stored_labels, plan.intensities, *grid, *normalization)
    if not (configuration.center_crop or configuration.slice_shape):
        return _relevant(Recipe(*plain))
    return _relevant(SliceRecipe(*plain, configuration.center_crop, configuration.slice_shape))


def _relevant(recipe: Recipe) -> Recipe:
    """The recipe without the statistics of channels whose normalisation does not read them: a corrected label map changes these."""
    schemes = recipe.normalization
    read = [index >= len(schemes) or reads_statistics(schemes[index]) for index in range(len(recipe.intensities))]
    pairs = zip(recipe.intensities, read, strict=True)
    return replace(recipe, intensities=tuple(one if is_read else UNREAD for one, is_read in pairs))


def is_of_other_recipe(folder: Path, recipe: Recipe) -> bool:
    """Whether a folder of preprocessed cases was made by another recipe."""
    return (folder / RECIPE).exists() and _kept_recipe(folder, recipe) is None


def _kept_recipe(folder: Path, recipe: Recipe) -> Recipe | None:
    """The recipe that lies in a folder, where it means the same as `recipe`: those of earlier versions hold all statistics."""
    path = folder / RECIPE
    try:
        kept = read_json(path, type(recipe)) if path.exists() else None
    except ValueError:  # of another version, or damaged: its cases are not to be trusted either
        return None
    return kept if kept is not None and value_id(_relevant(kept)) == value_id(recipe) else None


def _keep_recipe(store: Store, recipe: Recipe) -> Recipe:
    """Empties the folder if its cases were made by another recipe, then writes this one; in that order, for the case of a kill between.

    Returns:
        The recipe that lies there then.
    """
    path = store.folder / RECIPE
    if (kept := _kept_recipe(store.folder, recipe)) is not None:
        return kept
    stale = store.names()
    if stale:
        log.info("%s: %d cases were preprocessed for another plan and are made again", store.folder, len(stale))
    for name in stale:
        store.remove(name)
    write_json(path, recipe)
    return recipe


def _not_current(store: Store, cases: Sequence[Case], recipes: Sequence[Recipe], *, keep_stamps: bool = True) -> list[Case]:
    """The cases that are not there as their files and the recipe, in one of its forms, would make them now."""
    records = {case.name: record for case in cases if (record := _stored_record(store, case)) is not None}
    unknown = [case for case in cases if not case.digests and case.name in records and records[case.name].made_from is not None]
    ids = content_ids((path for case in unknown for path in case_paths(case)), what="Comparing files with preprocessed cases")
    waiting = []
    for case in cases:
        known = replace(case, digests=tuple(ids[path] for path in case_paths(case))) if case in unknown else case
        record = records.get(case.name)
        if record is None or not _is_current(store, known, record, recipes, keep_stamps=keep_stamps):
            waiting.append(case)
    return waiting


def _stored_record(store: Store, case: Case) -> StoredRecord | None:
    """What was noted of a preprocessed case, None where it or one of its files is not there, or not whole."""
    try:
        return store.load(case.name).record if store.is_whole(case.name, labelled=case.label is not None) else None
    except (ValueError, OSError):
        return None


def _is_current(store: Store, case: Case, record: StoredRecord, recipes: Sequence[Recipe], *, keep_stamps: bool) -> bool:
    """Whether a case was preprocessed from the files that it has now; one of version 0.1.0 gets its stamp, to keep, if its sizes agree."""
    if record.made_from is not None:
        return any(record.made_from == stamp_of(case, recipe) for recipe in recipes)
    if not stamp_of_0_1_0_fits(record.stamp, case):
        return False
    if case.digests and keep_stamps:
        store.write_record(case.name, replace(record, made_from=stamp_of(case, recipes[0]), stamp=""))
    return True


def _identified(case: Case) -> Case:
    """The case with the content ids of its files as they are now; a ValueError where one was replaced since the dataset was planned."""
    now = case_ids(replace(case, digests=()))
    for path, expected, found in zip(case_paths(case), case.digests or now, now, strict=True):
        if not same_content(expected, found):
            raise ValueError(
                f"{case.name}: {path}: expected the content {expected} that was planned with, found {found}; "
                "after a change of the data run autoseg_plan_and_preprocess again"
            )
    return replace(case, digests=case.digests or now)


def stamp_of(case: Case, recipe: Recipe) -> Stamp:
    """What a case, with the content ids of its files, is preprocessed from."""
    settings = {"annotated": annotated_setting(case), "recipe": value_id(recipe), **reading_setting([case])}
    return Stamp(case_inputs(case, case.digests), settings)


def case_memory(case: Case, plan: Plan, configuration: Configuration) -> int:
    """Estimated peak in bytes of preprocessing a case, from its headers; 0 where they cannot be read (the case itself will say why)."""
    try:
        geometry = read_case_geometry(case)
        channels = sum(count_channels(path) for path in case.images)
    except Exception:
        return 0
    order, _ = plan_transform(geometry, plan.order_of(configuration), plan.orientation)
    spacing, shape = tuple(geometry.spacing[axis] for axis in order), tuple(geometry.shape[axis] for axis in order)
    target = configuration.spacing if len(spacing) == len(configuration.spacing) else (spacing[0], *configuration.spacing)
    before, after = int(np.prod(shape)), int(np.prod(resampled_shape(shape, spacing, target)))
    # measured: interpreter and libraries; a file being read is there twice (with the image and its normalised copy), labels and masks
    # beside it; resampling holds every channel of the result, and of one channel or label the result with one intermediate
    return int(0.2 * GIB + before * (8 * channels + 16) + after * (4 * channels + 20))
