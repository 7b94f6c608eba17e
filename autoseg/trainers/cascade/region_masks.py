"""Candidate regions of the training cases: a mask a case, voxels to centre patches on, and the loss that counts inside only.

Roth et al., Comput. Med. Imaging Graph. 66 (2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor
from tqdm import tqdm

from ...data.label_subsets import positions
from ...inference.candidate_region import candidate_region_mask
from ...preprocessing.storage import Locations, Store, StoredCase, read_array, write_array
from ...runtime.locks import remove_partial
from ...runtime.provenance import Stamp, content_id, forget, is_current, record
from ...runtime.serialization import atomic, read_json, write_json
from ...schema import CandidateRegion, Configuration, Labels
from ...schema.conventions import ANNOTATED
from ...schema.run_record import RunRecord
from ..job import RunFolders

CENTRES = 10_000
"""Voxels of a region that are remembered to centre patches on."""

SEED = 4321
"""Of the drawing of those voxels: a case gives the same ones whenever they are drawn."""


def prepare_regions(job: RunRecord, folders: RunFolders, *, progress: bool = True) -> Path:
    """Computes the candidate region of each case of a fold, for all folds of the model; may be interrupted and called again.

    Args:
        job: Its configuration says which region.
        folders: Of the run, with the segmentations of the previous stage where there is one.
        progress: Show a bar.

    Returns:
        ``region_on_<data>`` beside the run: ``<case>.b2nd``, ``(Z, Y, X)`` uint8, and ``<case>.npz``, voxels as in
        `preprocessing.class_locations`: those of the organs that lie inside, and some of the whole region.
    """
    out = folders.run.parent / f"region_on_{folders.data.name}"
    out.mkdir(parents=True, exist_ok=True)
    remove_partial(out)
    _keep_recipe(out, job.configuration.region)
    store, organs = Store(folders.data), positions(job.plan.stored_labels, job.plan.labels)
    names = [name for name in sorted({*job.split.train, *job.split.val}) if store.has(name) and _has_previous(folders, name)]
    stamps = {name: _stamp(name, store, folders) for name in names}
    waiting = [name for name, stamp in stamps.items() if not is_current(out / f"{name}.b2nd", stamp)]
    for name in tqdm(waiting, desc="Candidate regions", unit="case", disable=not progress or not waiting):
        forget(out / f"{name}.b2nd")
        stored = store.load(name, organs=organs)
        mask = _mask(job.configuration, stored, folders)
        with atomic(out / f"{name}.npz") as partial:
            np.savez(partial, **_centres(stored, mask, job.plan.stored_labels))
        write_array(out / f"{name}.b2nd", mask.astype(np.uint8))
        record(out / f"{name}.b2nd", stamps[name])
    return out


def in_region(stored: StoredCase, folder: Path | None) -> StoredCase:
    """The case with the voxels that patches may be centred on, where there are candidate regions."""
    if folder is not None:
        stored.locations = Locations(folder / f"{stored.name}.npz", stored.organs)
    return stored


def mark_outside(maps: Tensor, labels: Labels) -> Tensor:
    """Label maps ``(S, *patch)`` without the last one, the region, outside of which the first gets the value that no loss counts.

    Returns:
        ``(*patch)`` where there were only two.
    """
    kept, region = maps[:-1], maps[-1]
    kept[0].masked_fill_(region <= 0, len(labels.base_values) + 1)
    return kept[0] if len(kept) == 1 else kept


def with_ignore(labels: Labels) -> Labels:
    """The labels with an ignore value: their own, or one that the dataset does not use."""
    return labels if labels.ignore is not None else replace(labels, ignore=max(labels.base_values) + 1)


def _keep_recipe(out: Path, region: CandidateRegion) -> None:
    """Empties the folder if its masks are of another region, then notes this one; in that order, for the case of a kill between."""
    path = out / "region.json"
    try:
        same = path.is_file() and read_json(path, CandidateRegion) == region
    except ValueError:
        same = False
    if not same:
        for old in [*out.glob("*.b2nd"), *out.glob("*.npz")]:
            old.unlink(missing_ok=True)
        write_json(path, region)


def _has_previous(folders: RunFolders, name: str) -> bool:
    return folders.previous is None or (folders.previous / f"{name}.b2nd").is_file()


def _stamp(name: str, store: Store, folders: RunFolders) -> Stamp:
    """What the region of a case follows from, besides the recipe of the whole folder."""
    previous = {} if folders.previous is None else {"previous": content_id(folders.previous / f"{name}.b2nd")}
    return Stamp({"case": store.content_id(name), **previous})


def _mask(configuration: Configuration, stored: StoredCase, folders: RunFolders) -> np.ndarray:
    image = np.asarray(stored.image[:]) if configuration.region.source == "body" else np.empty((0, *stored.image.shape[1:]))
    organs = None if folders.previous is None else read_array(folders.previous / f"{stored.name}.b2nd")[0]
    mask = candidate_region_mask(configuration, image, organs, source=stored.name)
    return np.ones(image.shape[1:], bool) if mask is None else mask


def _centres(stored: StoredCase, mask: np.ndarray, labels: Labels) -> dict[str, np.ndarray]:
    """Voxels inside: those of each organ that preprocessing remembered, and a sample of the whole region (where it is annotated)."""
    rng = np.random.default_rng(SEED)
    found = {key: voxels[mask[tuple(voxels.T)]] for key, voxels in stored.locations.items() if key != ANNOTATED}
    if labels.internal_ignore is not None:
        mask = mask & (np.asarray(stored.segmentation[:]) != labels.internal_ignore)
    flat = np.flatnonzero(mask)
    if len(flat) > CENTRES:
        flat = rng.choice(flat, CENTRES, replace=False)
    return found | {ANNOTATED: _as_voxels(flat, mask.shape)}


def _as_voxels(flat: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    return np.stack(np.unravel_index(flat, shape), axis=1).astype(np.int16 if max(shape) < np.iinfo(np.int16).max else np.int32)
