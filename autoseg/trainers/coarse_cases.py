"""Whole training cases on a locator's coarse grid, with all organs as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..annotations import annotated_indices
from ..inference.localisation import coarse_shape, to_coarse
from ..label_subsets import translate
from ..model import Configuration, Labels, Plan
from ..records import atomic, read_json, remove_partial, write_json
from ..resampling import resample_labels
from ..storage import Store

FOREGROUND = Labels(("organs",), ((1,),), ignore=2)
"""Internal values of a coarse label map: 0 background, 1 any organ, 2 not annotated (or background where not all organs were)."""


def prepare_coarse(model: Path, data: Path, names: Sequence[str], plan: Plan, configuration: Configuration, *, progress: bool) -> Path:
    """Brings cases to the coarse grid; may be interrupted and called again. Shared by all folds of a model.

    Args:
        model: Model folder.
        data: Preprocessed cases.
        names: Of the cases that are wanted.
        plan: Of the dataset.
        configuration: With a locator.
        progress: Show a bar.

    Returns:
        ``coarse_on_<data>`` in the model folder: ``<case>.npz`` with ``image`` ``(C, z, y, x)`` float32 and ``labels`` ``(z, y, x)`` int16
        and ``annotated``, `_known`. A case in which none of the plan's organs was annotated has no file: it has nothing to teach.
    """
    out = model / f"coarse_on_{data.name}"
    out.mkdir(parents=True, exist_ok=True)
    remove_partial(out)
    _keep_recipe(out, configuration)
    store = Store(data)
    organs = {name: annotated_indices(store.load(name).annotated, plan.labels) for name in names if store.has(name)}
    for name in (name for name, some in organs.items() if some == ()):
        (out / f"{name}.npz").unlink(missing_ok=True)
    there = {name: _known(some, plan) for name, some in organs.items() if some != ()}
    waiting = [name for name, known in there.items() if not _is_current(out / f"{name}.npz", store.trace_path(name), known)]
    for name in tqdm(waiting, desc="Coarse volumes", unit="case", disable=not progress or not waiting):
        stored = store.load(name)
        image = to_coarse(np.asarray(stored.image[:]), configuration.locator, configuration.spacing)
        labels = _foreground(np.asarray(stored.segmentation[:]), plan, partly=organs[name] is not None)
        shape = coarse_shape(configuration.locator, labels.shape, configuration.spacing)
        spacings = {"spacing": configuration.spacing, "new_spacing": configuration.locator.spacing}
        with atomic(out / f"{name}.npz") as partial:
            np.savez(partial, image=image, labels=resample_labels(labels, shape, **spacings), annotated=there[name])
    return out


def _known(organs: tuple[int, ...] | None, plan: Plan) -> np.ndarray:
    """Names of the annotated ones among the plan's organs; none at all where every organ was annotated."""
    return np.array([plan.labels.names[index] for index in organs or ()], str)


def _foreground(segmentation: np.ndarray, plan: Plan, *, partly: bool) -> np.ndarray:
    """All organs as one, in the values of `FOREGROUND`; `partly` where some were not annotated and may be anywhere in the background."""
    internal = translate(segmentation.astype(np.int16), plan.stored_labels, plan.labels)
    ignored = internal == plan.labels.internal_ignore if plan.labels.internal_ignore is not None else np.zeros(internal.shape, bool)
    if partly:
        ignored |= internal == 0
    return np.where(ignored, FOREGROUND.internal_ignore, internal > 0).astype(np.int16)


def _keep_recipe(out: Path, configuration: Configuration) -> None:
    """Empties the folder if its volumes are for another grid, then notes this one; in that order, for the case of a kill between."""
    path, locator = out / "locator.json", configuration.locator
    grid = {"spacing": list(locator.spacing), "shape": list(locator.shape), "sigma": locator.sigma}
    try:
        same = path.is_file() and read_json(path, dict) == grid
    except ValueError:
        same = False
    if not same:
        for old in out.glob("*.npz"):
            old.unlink(missing_ok=True)
        write_json(path, grid)


def _is_current(target: Path, source: Path, known: np.ndarray) -> bool:
    """Whether a coarse file is younger than its case and was made for the same annotated organs."""
    if not target.is_file() or source.stat().st_mtime > target.stat().st_mtime:
        return False
    with np.load(target, allow_pickle=False) as case:
        return "annotated" in case and case["annotated"].tolist() == known.tolist()
