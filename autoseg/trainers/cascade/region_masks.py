"""Candidate regions of the training cases: a mask and the possible centres of patches of each, and labels that ignore what is outside.

Roth et al., Comput. Med. Imaging Graph. 66 (2018).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor
from tqdm import tqdm

from ...data.annotations import annotated_indices
from ...data.label_subsets import organ_indices, translate_labels
from ...inference.candidate_region_mask import candidate_region_mask
from ...preprocessing.storage import Locations, Store, StoredCase, read_array, write_array, write_arrays
from ...runtime.provenance import Stamp, content_id, forget, is_current, record
from ...schema import Configuration, Labels
from ...schema.conventions import ANNOTATED
from ...schema.run_record import RunRecord
from ..derived_cases import open_folder
from ..patch_sampling import segmentation_of
from ..run_options import RunFolders

CENTRES = 10_000
"""Most voxels of a region that are stored as possible centres of patches."""

SEED = 4321
"""Of the random choice of those voxels, which is the same for a case whenever it is made."""


def prepare_regions(
    job: RunRecord, folders: RunFolders, *, out: Path | None = None, names: Collection[str] = (), progress: bool = True
) -> Path:
    """Computes the candidate region of each case of a fold, for all folds of the model; may be interrupted and called again.

    Args:
        folders: Of the run, with the segmentations of the previous stage where there is one.
        out: The folder to write into; None means ``region_on_<data>`` beside the run.
        names: Of the cases; none means those of the fold.

    Returns:
        That folder: ``<case>.b2nd``, ``(Z, Y, X)`` uint8, and ``<case>.npz``, voxels as in
        `preprocessing.class_locations`: those of the organs that lie inside, and some of the whole region.

    Raises:
        ValueError: The configuration has no region.
    """
    region = job.configuration.region
    if region is None:
        raise ValueError(f"{job.configuration.name}: expected a configuration with a candidate region, got none")
    out = open_folder(out or folders.run.parent / f"region_on_{folders.data.name}", "region.json", region)
    store, organs = Store(folders.data), organ_indices(job.plan.stored_labels, job.plan.labels)
    names = [name for name in sorted(set(names) or {*job.split.train, *job.split.val}) if store.has(name) and folders.has_previous_of(name)]
    stamps = {name: _stamp(name, store, folders) for name in names}
    waiting = [name for name, stamp in stamps.items() if not is_current(out / f"{name}.b2nd", stamp)]
    for name in tqdm(waiting, desc="Candidate regions", unit="case", disable=not progress or not waiting):
        forget(out / f"{name}.b2nd")
        stored = folders.load(name, organs)
        mask = _mask(job.configuration, stored, folders)
        write_arrays(out / f"{name}.npz", _centres(stored, mask, job.plan.stored_labels))
        write_array(out / f"{name}.b2nd", mask.astype(np.uint8))
        record(out / f"{name}.b2nd", stamps[name])
    return out


def class_shares(job: RunRecord, folders: RunFolders) -> np.ndarray | None:
    """Share of the candidate region's voxels in background and each organ, ``(1 + organs,)``, mean over a fold's training cases.

    ``N_k / N_C`` of Roth et al. Only cases in which all organs are annotated count; None where there is none.

    Args:
        folders: With the candidate regions.
    """
    if folders.region is None:
        raise ValueError(f"{folders.run}: expected candidate regions, got none")
    store, labels, shares = Store(folders.data), job.plan.labels, []
    for name in (name for name in sorted(job.split.train) if (folders.region / f"{name}.b2nd").is_file()):
        stored = store.load(name)
        if annotated_indices(stored.annotated, labels) is not None:
            continue
        inside = np.asarray(segmentation_of(stored)[:])[np.asarray(read_array(folders.region / f"{name}.b2nd")[:]) > 0]
        inside = translate_labels(inside, job.plan.stored_labels, labels).clip(min=0)  # outside of the image's mask is background
        counts = np.bincount(inside, minlength=1 + len(labels.names))[: 1 + len(labels.names)]  # without ignored voxels
        if counts.any():
            shares.append(counts / counts.sum())
    return np.mean(shares, axis=0) if shares else None


def in_region(stored: StoredCase, folder: Path | None) -> StoredCase:
    """The case with the voxels that patches may be centred on, where there are candidate regions."""
    if folder is not None:
        stored.locations = Locations(folder / f"{stored.name}.npz", stored.organs)
    return stored


def mark_outside(segmentation: Tensor, region: Tensor, labels: Labels) -> Tensor:
    """An internal label map with the value that no loss counts (`with_ignore`) outside a candidate region of the same shape."""
    return segmentation.masked_fill(region <= 0, len(labels.base_values) + 1)


def with_ignore(labels: Labels) -> Labels:
    """The labels with an ignore value: their own, or one that the dataset does not use."""
    return labels if labels.ignore is not None else replace(labels, ignore=max(labels.base_values) + 1)


def _stamp(name: str, store: Store, folders: RunFolders) -> Stamp:
    """What the region of a case follows from, besides the recipe of the whole folder."""
    previous = {} if folders.previous is None else {"previous": content_id(folders.previous_of(name))}
    return Stamp({"case": store.content_id(name), **previous})


def _mask(configuration: Configuration, stored: StoredCase, folders: RunFolders) -> np.ndarray:
    of_body = configuration.region is not None and configuration.region.source == "body"
    image = np.asarray(stored.image[:]) if of_body else np.empty((0, *stored.image.shape[1:]))
    organs = None if folders.previous is None else read_array(folders.previous_of(stored.name))[0]
    mask = candidate_region_mask(configuration, image, organs, source=stored.name)
    return np.ones(image.shape[1:], bool) if mask is None else mask


def _centres(stored: StoredCase, mask: np.ndarray, labels: Labels) -> dict[str, np.ndarray]:
    """Voxels inside: those that preprocessing stored of each organ, and a sample of the whole region (where it is annotated)."""
    rng = np.random.default_rng(SEED)
    of_organs = {key: voxels[mask[tuple(voxels.T)]] for key, voxels in stored.locations.items() if key != ANNOTATED}
    if labels.internal_ignore is not None:
        mask = mask & (np.asarray(segmentation_of(stored)[:]) != labels.internal_ignore)
    flat = np.flatnonzero(mask)
    if len(flat) > CENTRES:
        flat = rng.choice(flat, CENTRES, replace=False)
    voxels = np.stack(np.unravel_index(flat, mask.shape), axis=1)
    return of_organs | {ANNOTATED: voxels.astype(np.int16 if max(mask.shape) < np.iinfo(np.int16).max else np.int32)}
