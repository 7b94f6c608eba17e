"""Training cases of a locator: whole volumes on its coarse grid, with all organs as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ...data.annotations import UNION, Known, annotated_indices
from ...data.label_subsets import translate_labels
from ...inference.localisation import coarse_shape, to_coarse
from ...preprocessing.resampling import resample_labels
from ...preprocessing.storage import Store, write_arrays
from ...runtime.provenance import Stamp, forget, is_current, record
from ...schema import Configuration, Labels, Plan
from ..derived_cases import open_folder
from ..patch_sampling import segmentation_of

NOT_ANNOTATED = 2
FOREGROUND = Labels(("organs",), ((1,),), ignore=NOT_ANNOTATED)
"""Internal values of a coarse label map: 0 background, 1 any organ, 2 not annotated (or background where not all organs were)."""


def prepare_coarse(model: Path, data: Path, names: Sequence[str], plan: Plan, configuration: Configuration, *, progress: bool) -> Path:
    """Brings cases to the coarse grid; may be interrupted and called again. Shared by all folds of a model.

    Args:
        data: Preprocessed cases.

    Returns:
        ``coarse_on_<data>`` in the model folder: ``<case>.npz`` with ``image`` ``(C, z, y, x)`` float32 and ``labels`` ``(z, y, x)`` int16.
        A case in which none of the plan's organs was annotated has no file: it is of no use.

    Raises:
        ValueError: The configuration has no locator.
    """
    locator, spacing = configuration.locator, configuration.spacing
    if locator is None:
        raise ValueError(f"{configuration.name}: expected a configuration with a locator, got none")
    grid = {"spacing": list(locator.spacing), "shape": list(locator.shape), "sigma": locator.sigma}
    out = open_folder(model / f"coarse_on_{data.name}", "locator.json", grid)
    store = Store(data)
    organs = {name: annotated_indices(store.load(name).annotated, plan.labels) for name in names if store.has(name)}
    for name in (name for name, annotated in organs.items() if annotated == ()):
        forget(out / f"{name}.npz")
        (out / f"{name}.npz").unlink(missing_ok=True)
    stamps = {name: _stamp(store, name, annotated, plan) for name, annotated in organs.items() if annotated != ()}
    waiting = [name for name, stamp in stamps.items() if not is_current(out / f"{name}.npz", stamp)]
    for name in tqdm(waiting, desc="Coarse volumes", unit="case", disable=not progress or not waiting):
        forget(out / f"{name}.npz")
        stored = store.load(name)
        image = to_coarse(np.asarray(stored.image[:]), locator, spacing)
        labels = _foreground(np.asarray(segmentation_of(stored)[:]), plan, organs[name])
        shape = coarse_shape(locator, labels.shape, spacing)
        labels = resample_labels(labels, shape, spacing=spacing, new_spacing=locator.spacing)
        write_arrays(out / f"{name}.npz", {"image": image, "labels": labels})
        record(out / f"{name}.npz", stamps[name])
    return out


def _stamp(store: Store, name: str, organs: tuple[Known, ...] | None, plan: Plan) -> Stamp:
    """What a coarse case is made from, besides the grid of the whole folder: the case, and which of the plan's organs it has annotated."""
    several = [one if isinstance(one, tuple) else (one,) for one in organs or ()]
    names = "all" if organs is None else ", ".join(UNION.join(plan.labels.names[index] for index in one) for one in several)
    return Stamp({"case": store.content_id(name)}, {"annotated": names})


def _foreground(segmentation: np.ndarray, plan: Plan, organs: tuple[Known, ...] | None) -> np.ndarray:
    """All organs as one, in the values of `FOREGROUND`; where some of them were not annotated, they may be anywhere in the background."""
    internal = translate_labels(segmentation.astype(np.int16), plan.stored_labels, plan.labels)
    ignored = internal == plan.labels.internal_ignore if plan.labels.internal_ignore is not None else np.zeros(internal.shape, bool)
    known = {index for one in organs or () for index in (one if isinstance(one, tuple) else (one,))}
    unknown = set() if organs is None else set(range(len(plan.labels.names))) - known
    if unknown:
        ignored |= internal == 0
    if not plan.labels.regions:  # values of unions of which the model learns only some organs
        ignored |= np.isin(internal, [plan.labels.internal_members[index][0] for index in unknown])
    return np.where(ignored, NOT_ANNOTATED, internal > 0).astype(np.int16)
